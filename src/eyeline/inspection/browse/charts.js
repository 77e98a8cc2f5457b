// What the pictures shown have in common, at a glance: sizes of boxes, objects a picture.

const DOTS = 20000; // of the scatter; more could not be told apart
const scatter = { canvas: el("canvas", { role: "img", tabIndex: -1 }), dots: [] };
const histogram = el("div", { className: "bars", role: "img" });
const LOW = 1;

function buildCharts() {
  const legend = el("figcaption", { textContent: "Width and height of the boxes, in pixels; " +
    "between the dashed lines COCO's medium objects. Click a dot to see its picture." });
  document.getElementById("charts").append(el("details", { open: innerWidth > 700 },
    el("summary", { textContent: "Sizes and counts" }),
    el("div", { className: "charts" }, el("figure", {}, scatter.canvas, legend),
      el("figure", {}, histogram, el("figcaption", {
        textContent: "Pictures by their number of objects." })))));
  new ResizeObserver(drawScatter).observe(scatter.canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawScatter);
  scatter.canvas.addEventListener("click", (event) => {
    const near = nearest(event.offsetX, event.offsetY);
    if (near !== null) openLarge(near);
  });
}

function drawCharts() {
  drawScatter();
  drawHistogram();
}

function drawScatter() {
  const { canvas } = scatter;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const c = canvas.getContext("2d");
  c.scale(devicePixelRatio, devicePixelRatio);
  const style = getComputedStyle(document.body);
  const [soft, rule, ink] = ["--soft", "--rule", "--ink"].map((name) => style.getPropertyValue(name));
  const field = { left: 44, top: 22, right: width - 18, bottom: height - 26 };
  let high = 10;
  let count = 0;
  for (const { wanted } of shown) {
    for (const o of wanted) high = Math.max(high, o[X2] - o[X1], o[Y2] - o[Y1]);
    count += wanted.length;
  }
  const log = Math.log(high * 1.15 / LOW);
  const at = (value, from, to) =>
    from + Math.log(Math.max(value, LOW) / LOW) / log * (to - from);
  c.font = "12px system-ui, sans-serif";
  c.fillStyle = soft;
  c.strokeStyle = rule;
  c.textAlign = "center";
  for (const tick of [1, 3, 10, 30, 100, 300, 1000, 3000, 10000].filter((t) => t < high * 1.15)) {
    const [x, y] = [at(tick, field.left, field.right), at(tick, field.bottom, field.top)];
    c.beginPath();
    c.moveTo(x, field.top);
    c.lineTo(x, field.bottom);
    c.moveTo(field.left, y);
    c.lineTo(field.right, y);
    c.stroke();
    c.fillText(tick, x, field.bottom + 15);
    c.textAlign = "right";
    c.fillText(tick, field.left - 6, y + 4);
    c.textAlign = "center";
  }
  c.textAlign = "left";
  c.fillText("height", 2, 12);
  c.textAlign = "right";
  c.fillText("width", field.right, field.bottom - 5);
  c.save();
  c.beginPath();
  c.rect(field.left, field.top, field.right - field.left, field.bottom - field.top);
  c.clip();
  c.strokeStyle = soft;
  c.setLineDash([5, 4]);
  for (const side of [32, 96]) { // width times height is side², a straight line
    c.beginPath();
    c.moveTo(at(side * side / high, field.left, field.right), at(high, field.bottom, field.top));
    c.lineTo(at(high, field.left, field.right), at(side * side / high, field.bottom, field.top));
    c.stroke();
  }
  c.restore();
  scatter.dots = [];
  const every = Math.ceil(count / DOTS);
  let seen = 0;
  c.globalAlpha = count > 3000 ? 0.45 : 0.8;
  shown.forEach(({ wanted }, place) => {
    for (const o of wanted) {
      if (seen++ % every) continue;
      const x = at(o[X2] - o[X1], field.left, field.right);
      const y = at(o[Y2] - o[Y1], field.bottom, field.top);
      scatter.dots.push([x, y, place]);
      c.fillStyle = DATA.colours[o[LABEL]];
      c.fillRect(x - 1.5, y - 1.5, 3, 3);
      if (faulty(o)) {
        c.strokeStyle = ink;
        c.setLineDash([]);
        c.strokeRect(x - 4, y - 4, 8, 8);
      }
    }
  });
  c.globalAlpha = 1;
  const left = every > 1 ? `; one in ${every} is drawn` : "";
  canvas.setAttribute("aria-label", `Widths and heights of ${count} boxes${left}`);
}

// The place of the picture whose dot lies there, or null.
function nearest(x, y) {
  let [best, found] = [64, null]; // 8 pixels at most
  for (const [dotX, dotY, place] of scatter.dots) {
    const away = (dotX - x) ** 2 + (dotY - y) ** 2;
    if (away < best) [best, found] = [away, place];
  }
  return found;
}

// Bars of equal width, but for the last ones where there are many numbers.
function drawHistogram() {
  const counts = shown.map(({ wanted }) => wanted.length);
  const most = counts.reduce((a, b) => Math.max(a, b), 0);
  const step = Math.max(1, Math.ceil((most + 1) / 16));
  const bars = new Array(Math.floor(most / step) + 1).fill(0);
  for (const count of counts) bars[Math.floor(count / step)]++;
  const highest = bars.reduce((a, b) => Math.max(a, b), 1);
  histogram.replaceChildren(...bars.map((count, i) => {
    const [low, high] = [i * step, (i + 1) * step - 1];
    const range = step > 1 ? `${low}–${high}` : String(low);
    const bar = el("i", {});
    bar.style.height = `${100 * count / highest}%`;
    return el("span", { title: `${range} objects: ${count} pictures` },
      el("small", { textContent: count || "" }), bar,
      el("small", { textContent: step > 1 && bars.length > 8 ? String(low) : range }));
  }));
  const told = bars.map((count, i) => `${i * step}: ${count}`).join(", ");
  histogram.setAttribute("aria-label", `Pictures by their number of objects: ${told}`);
}
