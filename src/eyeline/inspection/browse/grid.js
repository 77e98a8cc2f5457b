// The pictures as tiles. More of them are made as one scrolls down: never all at once.

const STEP = 48; // tiles
const grid = document.getElementById("grid");
let tiles = 0; // of `shown`, that are made
let list = null;
let namesOnTiles = true;

const more = el("button", { type: "button", className: "more", textContent: "Show more" });
more.addEventListener("click", addTiles);
const nearEnd = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) addTiles();
}, { rootMargin: "800px" });

function showTiles() {
  tiles = 0;
  list = el("ul", { className: "tiles" });
  grid.replaceChildren(list, more);
  nearEnd.disconnect();
  addTiles();
  nearEnd.observe(more);
}

function addTiles() {
  const next = shown.slice(tiles, tiles + STEP);
  list.append(...next.map((entry, i) => el("li", {}, tile(entry, tiles + i))));
  tiles += next.length;
  more.hidden = tiles >= shown.length;
  more.textContent = `Show more (${(shown.length - tiles).toLocaleString("en")})`;
  if (!more.hidden) { // asks again, where the new tiles do not fill the screen
    nearEnd.unobserve(more);
    nearEnd.observe(more);
  }
}

function tile({ picture, wanted }, place) {
  const button = el("button", { type: "button", className: "tile",
    "aria-label": `${picture.name}, ${countsOf(picture)}; look at it large` });
  button.addEventListener("click", () => openLarge(place));
  const frame = el("span", { className: "frame" });
  if (picture.broken) {
    frame.append(el("span", { className: "broken" }, el("b", { textContent: "No picture" }),
      picture.broken));
  } else {
    const image = el("img", { loading: "lazy", decoding: "async", alt: "" });
    image.src = picture.image;
    const unit = Math.max(picture.width / 270, picture.height / 202);
    const marks = el("span", { className: "marks" });
    marks.innerHTML = overlay(picture, unit, { wanted, tags: namesOnTiles });
    frame.append(image, marks);
  }
  const split = DATA.splits.length > 1 && DATA.splits[picture.split]
    ? el("span", { className: "split", textContent: DATA.splits[picture.split] }) : null;
  button.append(frame, el("b", { textContent: picture.name }),
    el("small", {}, split, countsOf(picture)));
  const faults = allFaults(picture).filter((fault) => !isNote(fault));
  if (faults.length) {
    const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : "";
    button.append(el("small", { className: "wrong", textContent: `⚠ ${faults[0][1]}${more}` }));
  }
  return button;
}

// As "RBC: 7, WBC: 1, others: 2".
function countsOf(picture) {
  const counts = new Map();
  for (const object of picture.objects) {
    counts.set(nameOf(object), (counts.get(nameOf(object)) || 0) + 1);
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const told = sorted.slice(0, 3).map(([name, count]) => `${name}: ${count}`);
  const rest = sorted.slice(3).reduce((sum, [, count]) => sum + count, 0);
  if (rest) told.push(`others: ${rest}`);
  return told.join(", ") || "no objects";
}
