// One picture as large as the window: left and right, zoom, what is annotated.

const dialog = document.getElementById("large");
const view = { place: 0, zoom: 1, x: 0, y: 0, chosen: null }; // x, y: shifted, screen pixels
const stage = el("div", { className: "stage", tabIndex: 0, "aria-label":
  "The picture; plus and minus zoom, left and right go to others" });
const sheet = el("div", { className: "sheet" });
const photo = el("img", { alt: "" });
const marks = el("div", { className: "marks" });
const side = el("div", { className: "side" });
const title = el("h2");
const position = el("span", { className: "position", role: "status" });
sheet.append(photo, marks);
stage.append(sheet);

function barButton(text, label, act) {
  const button = el("button", { type: "button", textContent: text, "aria-label": label,
    title: label });
  button.addEventListener("click", act);
  return button;
}

const bar = el("div", { className: "bar-of-large" }, title, position,
  barButton("←", "Previous picture (left arrow)", () => go(-1)),
  barButton("→", "Next picture (right arrow)", () => go(1)),
  barButton("−", "Smaller (minus)", () => zoomBy(1 / 1.5)),
  barButton("+", "Larger (plus)", () => zoomBy(1.5)),
  barButton("fit", "The whole picture (0)", () => zoomTo(1)),
  barButton("✕", "Close (Escape)", () => dialog.close()));
dialog.append(bar, stage, side);

function openLarge(place) {
  view.place = place;
  if (!dialog.open) dialog.showModal();
  showLarge();
  stage.focus();
}

function go(step) {
  const place = view.place + step;
  if (place < 0 || place >= shown.length) return;
  view.place = place;
  showLarge();
}

function showLarge() {
  const { picture } = shown[view.place];
  Object.assign(view, { zoom: 1, x: 0, y: 0, chosen: null });
  title.textContent = picture.name;
  position.textContent = `${view.place + 1} of ${shown.length.toLocaleString("en")}`;
  photo.hidden = Boolean(picture.broken);
  photo.alt = `${picture.name}, ${countsOf(picture)}`;
  photo.src = picture.image || "data:,";
  if (!picture.broken) sharpen(picture);
  showSide(picture);
  place();
  writeAddress();
}

// The file itself, where the page finds it and the browser knows its format.
function sharpen(picture) {
  const full = new Image();
  full.onload = () => {
    const same = Math.abs(full.naturalWidth / full.naturalHeight * picture.height /
      picture.width - 1) < 0.02; // else it is turned, or not what was annotated
    if (same && dialog.open && shown[view.place].picture === picture) photo.src = full.src;
  };
  full.src = picture.file;
}

// Lay the picture out in the stage, and draw on it.
function place() {
  const { picture, wanted } = shown[view.place];
  const fit = Math.min(stage.clientWidth / picture.width, stage.clientHeight / picture.height);
  const scale = fit * view.zoom;
  const [width, height] = [picture.width * scale, picture.height * scale];
  const room = (length, all) => Math.max(0, (length - all) / 2);
  view.x = Math.max(-room(width, stage.clientWidth), Math.min(view.x,
    room(width, stage.clientWidth)));
  view.y = Math.max(-room(height, stage.clientHeight), Math.min(view.y,
    room(height, stage.clientHeight)));
  Object.assign(sheet.style, { width: `${width}px`, height: `${height}px`,
    left: `${(stage.clientWidth - width) / 2 + view.x}px`,
    top: `${(stage.clientHeight - height) / 2 + view.y}px` });
  marks.innerHTML = picture.broken ? "" : overlay(picture, 1 / scale,
    { wanted, chosen: view.chosen, letters: 13 });
  stage.classList.toggle("pans", view.zoom > 1);
}

function zoomBy(factor, atX = 0, atY = 0) {
  zoomTo(view.zoom * factor, atX, atY);
}

// (atX, atY), from the stage's middle, stays where it is.
function zoomTo(zoom, atX = 0, atY = 0) {
  const before = view.zoom;
  view.zoom = Math.max(1, Math.min(zoom, 24));
  const factor = view.zoom / before;
  view.x = atX - (atX - view.x) * factor;
  view.y = atY - (atY - view.y) * factor;
  place();
}

function showSide(picture) {
  const parts = [];
  if (picture.broken) parts.push(el("p", { className: "wrong", textContent: picture.broken }));
  for (const fault of picture.faults || []) {
    parts.push(isNote(fault) ? el("p", { textContent: `Note: ${fault[1]}` })
      : el("p", { className: "wrong", textContent: `⚠ ${fault[1]}` }));
  }
  const split = DATA.splits[picture.split];
  parts.push(el("p", { textContent: [split, picture.broken ? "" :
    `${picture.width} × ${picture.height} pixels`, countsOf(picture)].filter(Boolean)
    .join(" · ") }));
  const rows = el("ul", { className: "objects" });
  for (const object of picture.objects) rows.append(el("li", {}, objectButton(object)));
  side.replaceChildren(...parts, rows);
  side.scrollTop = 0;
}

function objectButton(object) {
  const swatch = el("i", { className: `swatch${object[IGNORED] ? " dashed" : ""}` });
  swatch.style.borderColor = DATA.colours[object[LABEL]];
  const size = `${Math.round(object[X2] - object[X1])} × ${Math.round(object[Y2] - object[Y1])}` +
    (object[IGNORED] ? ", ignored" : "");
  const button = el("button", { type: "button", "aria-pressed": "false" }, swatch,
    el("b", { textContent: nameOf(object) }), el("small", { textContent: size }));
  for (const [, what, where] of object[FAULTS] || []) {
    button.append(el("small", { className: "wrong", textContent: `⚠ ${what} (${where})` }));
  }
  button.addEventListener("click", () => {
    view.chosen = view.chosen === object ? null : object;
    for (const other of side.querySelectorAll("[aria-pressed]")) {
      other.setAttribute("aria-pressed", String(other === button && view.chosen !== null));
    }
    place();
  });
  return button;
}

dialog.addEventListener("keydown", (event) => {
  const act = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), "+": () => zoomBy(1.5),
    "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomTo(1) }[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
dialog.addEventListener("close", () => {
  const button = grid.querySelectorAll(".tile")[view.place];
  if (button) button.focus(); // back to where one was, or the last one looked at
  writeAddress();
});

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - left - stage.clientWidth / 2,
    event.clientY - top - stage.clientHeight / 2);
}, { passive: false });
stage.addEventListener("dblclick", () => zoomTo(view.zoom > 1 ? 1 : 3));

// Dragging pans what is zoomed in; of what is not, a swipe goes to the next picture.
let held = null;
stage.addEventListener("pointerdown", (event) => {
  held = { x: event.clientX, y: event.clientY, fromX: view.x, fromY: view.y,
    touch: event.pointerType === "touch" };
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!held || view.zoom === 1) return;
  view.x = held.fromX + event.clientX - held.x;
  view.y = held.fromY + event.clientY - held.y;
  place();
});
stage.addEventListener("pointerup", (event) => {
  const moved = held ? event.clientX - held.x : 0;
  if (held && held.touch && view.zoom === 1 && Math.abs(moved) > 50) go(moved > 0 ? -1 : 1);
  held = null;
});
stage.addEventListener("pointercancel", () => { held = null; });
addEventListener("resize", () => { if (dialog.open) place(); });
