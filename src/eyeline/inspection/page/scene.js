// Canvases that are drawn in the resized picture's pixels, as sharp as the screen is.

const COLOURS = {
  object: "#35e07a", missed: "#ffe14a", found: "#5cbcff", suppressed: "#ff7a5c", chosen: "#ffffff",
};
const SHAPES = ["#5cbcff", "#ff9a55", "#5fd088", "#c79bff", "#ff7d72", "#4fd3d8", "#e3bd4e",
  "#ff8fcb", "#ffffff"];
const scenes = []; // all of the page
class Scene {
  // draw(context, unit): `unit` is one pixel of the screen. `view` is what is seen: x1, y1, x2, y2.
  constructor(parent, label, draw, { click, key, view, caption } = {}) {
    this.draw = draw;
    this.canvas = el("canvas", { "aria-label": label, role: key ? "application" : "img" });
    this.caption = el("figcaption", { textContent: caption || "" });
    if (key) { // what the keys do is read out
      this.canvas.tabIndex = 0;
      this.caption.setAttribute("aria-live", "polite");
    }
    parent.append(el("figure", {}, this.canvas, this.caption));
    this.frame(view || [0, 0, WIDTH, HEIGHT]);
    if (click) {
      this.canvas.classList.add("clickable");
      this.canvas.addEventListener("click", (event) => {
        const [x1, y1, x2] = this.view;
        const k = (x2 - x1) / this.canvas.clientWidth;
        click(x1 + event.offsetX * k, y1 + event.offsetY * k);
      });
    }
    if (key) {
      this.canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
          ArrowDown: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        key(...step);
      });
    }
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    scenes.push(this);
  }

  look(view) {
    this.frame(view);
    this.redraw();
  }

  frame(view) {
    this.view = view;
    const ratio = (view[2] - view[0]) / (view[3] - view[1]);
    this.canvas.style.aspectRatio = ratio;
    this.canvas.style.maxWidth = `calc(80vh * ${ratio.toFixed(4)})`;
  }

  redraw() {
    const wide = this.canvas.clientWidth;
    if (!wide) return;
    const [x1, y1, x2, y2] = this.view;
    const k = (wide * devicePixelRatio) / (x2 - x1);
    this.canvas.width = Math.round((x2 - x1) * k);
    this.canvas.height = Math.round((y2 - y1) * k);
    const context = this.canvas.getContext("2d");
    context.setTransform(k, 0, 0, k, -x1 * k, -y1 * k);
    this.draw(context, devicePixelRatio / k);
  }
}

function drawPhoto(context, shade = 0) {
  context.drawImage(photo, 0, 0, WIDTH, HEIGHT);
  if (!shade) return;
  context.fillStyle = `rgb(8 12 18 / ${shade})`;
  context.fillRect(0, 0, WIDTH, HEIGHT);
}

// A box with a dark line about it, so that it is seen on any picture.
function drawBox(context, unit, [x1, y1, x2, y2], colour, { width = 2, dash = [], alpha = 1 } = {}) {
  context.globalAlpha = alpha;
  context.setLineDash([]);
  context.strokeStyle = "rgb(0 0 0 / .55)";
  context.lineWidth = (width + 2) * unit;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.setLineDash(dash.map((d) => d * unit));
  context.strokeStyle = colour;
  context.lineWidth = width * unit;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.setLineDash([]);
  context.globalAlpha = 1;
}

// A few words at a box's upper left corner, inside what is seen.
function drawTag(context, unit, [x1, y1], text, colour, view = [0, 0, WIDTH, HEIGHT]) {
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 8 * unit;
  const high = 18 * unit;
  const x = Math.max(view[0], Math.min(x1, view[2] - wide));
  const y = Math.max(view[1], y1 - high);
  context.fillStyle = "rgb(10 14 20 / .82)";
  context.fillRect(x, y, wide, high);
  context.fillStyle = colour;
  context.textBaseline = "middle";
  context.fillText(text, x + 4 * unit, y + high / 2);
}

function drawObjects(context, unit, alpha = 1) {
  for (const object of DATA.objects) {
    const dash = object.crowd ? [2, 4] : [];
    drawBox(context, unit, object.box, COLOURS.object, { width: 1.5, alpha, dash });
  }
}

// Values from 0 to 1, row by row, as a small picture; `alpha` grows with them where it is asked to.
function heatMap(values, width, height, fading = false) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const share = Math.min(Math.max(values[i], 0), 1);
    const colour = DATA.colours[Math.round(share * (DATA.colours.length - 1))];
    pixels.data.set(colour, 4 * i);
    pixels.data[4 * i + 3] = fading ? 255 * Math.min(1, 0.3 + values[i]) : 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
