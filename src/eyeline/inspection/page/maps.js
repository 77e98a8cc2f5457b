// A segmenter's page: one layer at a time, and what the model says of the pixel that is pointed at.

const { width, height, names, colours } = DATA;
const look = document.getElementById("look");
const said = document.getElementById("said");

// The grey values of a picture of the page, `height` rows of `width`.
async function values(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0);
}

function percent(value) {
  return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
}

async function main() {
  const planes = await Promise.all(DATA.probabilities.map(values));
  const entropy = await values(DATA.entropy);
  const truth = DATA.truth ? await values(DATA.truth) : null;

  const layers = [...look.querySelectorAll(".layer")];
  const cross = el("i", { className: "cross" });
  const stack = el("div", {
    className: "stack", tabIndex: 0, role: "application",
    "aria-label": "The picture; arrow keys move from pixel to pixel",
  });
  const list = el("div", { className: "segments" });
  const choice = el("fieldset", {}, el("legend", { textContent: "Layer" }), list);
  for (const [i, layer] of layers.entries()) {
    const input = el("input", { type: "radio", name: "layer", checked: i === 0 });
    input.addEventListener("change", () => show(i));
    list.append(el("label", {}, input, el("span", { textContent: layer.dataset.name })));
    stack.append(layer);
  }
  stack.append(cross);
  look.classList.add("scripted");
  look.append(choice, stack);
  function show(chosen) {
    for (const [i, layer] of layers.entries()) layer.hidden = i !== chosen;
  }
  show(0);

  let x = Math.floor(width / 2);
  let y = Math.floor(height / 2);
  function point(newX, newY) {
    x = Math.min(width - 1, Math.max(0, Math.floor(newX)));
    y = Math.min(height - 1, Math.max(0, Math.floor(newY)));
    cross.style.left = `${(100 * (x + 0.5)) / width}%`;
    cross.style.top = `${(100 * (y + 0.5)) / height}%`;
    tell();
  }
  function tell() {
    const at = y * width + x;
    const found = names.map((name, k) => ({ name, value: planes[k][at] / 255, colour: colours[k] }));
    found.sort((a, b) => b.value - a.value);
    const [high, wide] = DATA.original;
    const column = Math.floor(((x + 0.5) * wide) / width);
    const row = Math.floor(((y + 0.5) * high) / height);
    let told = `column ${column}, row ${row}; entropy ${(entropy[at] / 255).toFixed(2)}`;
    if (truth) told += `; annotated as ${DATA.all[truth[at]] ?? "ignored"}`;
    const rows = found.map(({ name, value, colour }, i) => {
      const meter = el("i", { className: "meter" });
      meter.style.width = `${100 * value}%`;
      meter.style.background = colour;
      return el("tr", { className: i ? "" : "first" }, el("th", { scope: "row", textContent: name }),
        el("td", { className: "num", textContent: percent(value) }),
        el("td", { className: "wide" }, meter));
    });
    const rest = DATA.rest ? el("p", {
      className: "note", textContent: `${DATA.rest} classes that are less likely are left out.`,
    }) : "";
    said.replaceChildren(el("p", { className: "place", textContent: told }),
      el("table", { className: "bars", "aria-label": "Probabilities of the pixel" },
        el("tbody", {}, ...rows)), rest);
  }
  const place = (event) => {
    const box = stack.getBoundingClientRect();
    point(((event.clientX - box.left) * width) / box.width,
      ((event.clientY - box.top) * height) / box.height);
  };
  stack.addEventListener("pointermove", place);
  stack.addEventListener("pointerdown", place);
  stack.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
      ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    point(x + far * step[0], y + far * step[1]);
  });
  point(x, y);
  root.dataset.ready = "true";
}

main();
