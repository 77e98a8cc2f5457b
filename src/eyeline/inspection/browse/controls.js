// The filters' controls. They are the browser's own; `sync` sets them to what `filter` says.

const form = document.getElementById("filters");
const controls = {}; // what `sync` has to reach

function group(legend, ...children) {
  return el("fieldset", {}, el("legend", { textContent: legend }), ...children);
}

// A box to tick for each of several values.
function choices(set, entries) {
  const boxes = new Map();
  const list = el("div", { className: "choices" });
  for (const { value, name, colour, note } of entries) {
    const input = el("input", { type: "checkbox" });
    input.addEventListener("change", () => {
      if (input.checked) filter[set].add(value);
      else filter[set].delete(value);
      changed();
    });
    const swatch = colour ? el("i", { className: "swatch" }) : null;
    if (swatch) swatch.style.borderColor = colour;
    const bar = el("i", { className: "share" });
    const count = el("small", {});
    list.append(el("label", { title: note || name }, input, swatch,
      el("span", { textContent: name }), count, bar));
    boxes.set(value, { input, count, bar });
  }
  controls[set] = boxes;
  return list;
}

// Two numbers, from and to.
function range(key, unit) {
  const inputs = ["from", "to"].map((word, i) => {
    const input = el("input", { type: "number", min: 0, inputMode: "numeric",
      placeholder: i ? "any" : "0", "aria-label": `${word}, ${unit}` });
    input.addEventListener("input", () => {
      const value = input.value === "" ? (i ? Infinity : 0) : Number(input.value);
      if (Number.isNaN(value)) return;
      filter[key][i] = value;
      changed();
    });
    return input;
  });
  controls[key] = inputs;
  return el("div", { className: "range" }, inputs[0], "to", inputs[1], el("small", {
    textContent: unit }));
}

function buildControls() {
  const search = el("input", { type: "search", placeholder: "part of a file name",
    "aria-label": "Part of the file name" });
  search.addEventListener("input", () => {
    filter.text = search.value;
    changed();
  });
  const order = el("select", { "aria-label": "Order" });
  for (const [key, [name]] of Object.entries(ORDERS)) {
    order.append(el("option", { value: key, textContent: name }));
  }
  order.addEventListener("change", () => {
    filter.order = order.value;
    changed();
  });
  Object.assign(controls, { search, order });

  const totals = new Array(DATA.classes.length).fill(0);
  for (const picture of PICTURES) for (const object of picture.objects) totals[object[LABEL]]++;
  const classes = DATA.classes.map((name, k) => ({ value: k, name, colour: DATA.colours[k],
    total: totals[k] })).filter(({ total, value }) => total || value < DATA.classes.length - 1)
    .sort((a, b) => b.total - a.total);
  controls.totals = totals;
  const kinds = Object.entries(DATA.kinds).map(([kind, [severity, title]]) => ({
    value: kind, name: kind, note: `${severity}: ${title}` }));
  const sizes = el("div", { className: "segments" });
  controls.sizes = new Map([["any", [0, Infinity]], ...Object.entries(SIZES)].map(
    ([name, bounds]) => {
      const button = el("button", { type: "button", textContent: name, "aria-pressed": "false" });
      button.addEventListener("click", () => {
        filter.side = [...bounds];
        changed();
      });
      sizes.append(button);
      return [button, bounds];
    }));
  const names = el("input", { type: "checkbox", checked: true });
  names.addEventListener("change", () => {
    namesOnTiles = names.checked;
    showTiles();
  });
  const clear = el("button", { type: "button", className: "clear", textContent: "Show all" });
  clear.addEventListener("click", () => {
    Object.assign(filter, fresh(), { order: filter.order });
    changed();
  });
  controls.clear = clear;

  const parts = [group("File name", search)];
  if (DATA.splits.length > 1) {
    parts.push(group("Split", choices("splits", DATA.splits.map((name, i) => ({ value: i,
      name: name || "unknown" })))));
  }
  parts.push(group("Objects by class", choices("classes", classes)));
  parts.push(group("Size of objects (root of the area)", sizes, range("side", "pixels")));
  parts.push(group("Objects in a picture", range("count", "objects")));
  if (kinds.length) parts.push(group("What is wrong", choices("faults", kinds)));
  parts.push(group("Order", order));
  parts.push(el("label", { className: "tick" }, names, "class names on the pictures"), clear);
  const details = el("details", { open: innerWidth > 900 },
    el("summary", { textContent: "Filters" }), ...parts);
  form.append(details);
  form.addEventListener("submit", (event) => event.preventDefault());
}

function sync() {
  for (const set of ["splits", "classes", "faults"]) {
    for (const [value, { input }] of controls[set] || []) input.checked = filter[set].has(value);
  }
  for (const key of ["side", "count"]) {
    controls[key].forEach((input, i) => {
      const value = filter[key][i];
      const text = value === (i ? Infinity : 0) ? "" : String(value);
      if (document.activeElement !== input) input.value = text;
    });
  }
  for (const [button, bounds] of controls.sizes) {
    const same = bounds.every((value, i) => value === filter.side[i]);
    button.setAttribute("aria-pressed", String(same));
  }
  if (controls.search.value !== filter.text) controls.search.value = filter.text;
  controls.order.value = filter.order;
  controls.clear.hidden = !isNarrowed();
  countControls();
}

// How many objects, pictures and faults of each kind the shown pictures have.
function countControls() {
  const objects = new Array(DATA.classes.length).fill(0);
  const splits = new Array(DATA.splits.length).fill(0);
  const faults = new Map();
  for (const { picture } of shown) {
    splits[picture.split]++;
    for (const object of picture.objects) objects[object[LABEL]]++;
    for (const [kind] of allFaults(picture)) faults.set(kind, (faults.get(kind) || 0) + 1);
  }
  const highest = Math.max(1, ...controls.totals);
  for (const [k, { count, bar }] of controls.classes) {
    count.textContent = objects[k].toLocaleString("en");
    bar.style.setProperty("--all", `${100 * controls.totals[k] / highest}%`);
    bar.style.setProperty("--part", `${100 * objects[k] / highest}%`);
  }
  for (const [i, { count }] of controls.splits || []) count.textContent = splits[i];
  for (const [kind, { count }] of controls.faults || []) {
    count.textContent = faults.get(kind) || 0;
  }
}
