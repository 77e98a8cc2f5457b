// Controls are the browser's own, so that keys and screen readers work as everywhere.

let groups = 0;

// One of several. `options` are [value, label, note]; as `rows` they stand in a list that scrolls.
function radios(parent, legend, options, chosen, choose, rows = false) {
  const name = `choice-${groups++}`;
  const inputs = new Map();
  const list = el("div", { className: rows ? "rows" : "segments" });
  for (const [value, label, note, colour] of options) {
    const input = el("input", { type: "radio", name, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    const text = el("span", {}, colour ? dot(colour) : null, label);
    if (note) text.append(el("small", { textContent: note }));
    list.append(el("label", {}, input, text));
    inputs.set(value, input);
  }
  parent.append(el("fieldset", {}, el("legend", { textContent: legend }), list));
  return {
    select(value) {
      const input = inputs.get(value);
      if (!input || input.checked) return;
      input.checked = true;
      if (rows) list.scrollTop = input.parentElement.offsetTop - list.clientHeight / 2;
    },
    clear() {
      for (const input of inputs.values()) input.checked = false;
    },
  };
}

function slider(parent, label, low, high, value, told, change) {
  const output = el("output", { textContent: told(value) });
  const input = el("input", { type: "range", min: low, max: high, value, step: "any" });
  input.setAttribute("aria-valuetext", told(value));
  if (Number.isInteger(high - low) && high - low >= 20) input.step = 1;
  else input.step = (high - low) / 100;
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = told(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
    change(Number(input.value));
  });
  parent.append(el("label", { className: "slider" }, el("span", { textContent: label }), input,
    output));
  return input;
}

function dot(colour) {
  const mark = el("i", { className: "mark" });
  mark.style.background = colour;
  return mark;
}

function legend(parent, entries) {
  const items = entries.map(([colour, text, dashed]) => {
    const mark = el("i", { className: "mark line" });
    mark.style.borderTop = `3px ${dashed || "solid"} ${colour}`;
    return el("li", {}, mark, text);
  });
  parent.append(el("ul", { className: "key" }, ...items));
}

const isNumber = (cell) => typeof cell === "number"
  || /^−?[\d.,]+( ×.*| %)?$/.test(cell?.textContent ?? cell);

// Rows of cells; a cell is text, a node, or a number, which goes to the right.
function table(caption, heads, rows) {
  const line = (cells, tag) => el("tr", {}, ...cells.map((cell) => {
    const text = typeof cell === "number" ? cell.toLocaleString("en") : cell;
    return el(tag, { className: isNumber(cell) ? "num" : "" }, text);
  }));
  const body = rows.map((cells) => line(cells, "td"));
  const head = line(heads, "th");
  for (const [i, cell] of [...head.children].entries()) {
    cell.scope = "col";
    if (rows.some((cells) => isNumber(cells[i]))) cell.className = "num";
  }
  const whole = el("table", { className: "plain", "aria-label": caption }, el("thead", {}, head),
    el("tbody", {}, ...body));
  // The title stays where it is when a wide table scrolls.
  return el("div", {}, el("h4", { textContent: caption }),
    el("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption }, whole));
}

function replace(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null));
}

// Two columns: what is looked at, and what is said of it.
function columns(view) {
  const left = el("div", { className: "look" });
  const right = el("div", { className: "said" });
  view.append(el("div", { className: "columns" }, left, right));
  return [left, right];
}
