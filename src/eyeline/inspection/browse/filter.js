// Which pictures and objects are wanted; the address of the page keeps it.

const PICTURES = DATA.pictures;
// Places in an object's row, as Python wrote it.
const [LABEL, X1, Y1, X2, Y2, IGNORED, SIDE, OUTLINES, FAULTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const SIZES = { small: [0, 32], medium: [32, 96], large: [96, Infinity] }; // as COCO has them
const ORDERS = {
  given: ["as annotated", null],
  name: ["by name", (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true })],
  most: ["most objects first", (a, b) => b.objects.length - a.objects.length],
  fewest: ["fewest objects first", (a, b) => a.objects.length - b.objects.length],
  smallest: ["smallest object first", (a, b) => extreme(a, Math.min) - extreme(b, Math.min)],
  largest: ["largest object first", (a, b) => extreme(b, Math.max) - extreme(a, Math.max)],
  faults: ["most faults first", (a, b) => allFaults(b).length - allFaults(a).length],
};

const filter = fresh();
let shown = []; // the pictures that are wanted, in order; each is { picture, wanted: its objects }

function fresh() {
  return { splits: new Set(), classes: new Set(), faults: new Set(), side: [0, Infinity],
    count: [0, Infinity], text: "", order: "given" };
}

// Of the side of a picture's objects; those without an object come last.
function extreme(picture, choose) {
  if (!picture.objects.length) return choose === Math.min ? Infinity : -Infinity;
  return picture.objects.reduce((best, object) => choose(best, object[SIDE]),
    choose === Math.min ? Infinity : -Infinity);
}

function allFaults(picture) {
  const own = (picture.faults || []).map(([kind, what]) => [kind, what, picture.name]);
  return own.concat(...picture.objects.map((object) => object[FAULTS] || []));
}

function isNote([kind]) {
  return DATA.kinds[kind][0] === "note";
}

function matches(object) {
  return (!filter.classes.size || filter.classes.has(object[LABEL])) &&
    object[SIDE] >= filter.side[0] && object[SIDE] < filter.side[1];
}

// The objects that are wanted of a picture that is wanted, else null.
function wantedOf(picture) {
  if (filter.splits.size && !filter.splits.has(picture.split)) return null;
  if (filter.text && !picture.name.toLowerCase().includes(filter.text.toLowerCase())) return null;
  if (filter.faults.size && !allFaults(picture).some(([kind]) => filter.faults.has(kind))) {
    return null;
  }
  const wanted = picture.objects.filter(matches);
  const narrowed = filter.classes.size || filter.side[0] > 0 || filter.side[1] < Infinity;
  const least = Math.max(filter.count[0], narrowed && filter.count[1] > 0 ? 1 : 0);
  return wanted.length >= least && wanted.length <= filter.count[1] ? wanted : null;
}

function refilter() {
  shown = [];
  for (const picture of PICTURES) {
    const wanted = wantedOf(picture);
    if (wanted) shown.push({ picture, wanted });
  }
  const order = ORDERS[filter.order][1];
  if (order) shown.sort((a, b) => order(a.picture, b.picture));
}

function isNarrowed() {
  return toAddress(false) !== "";
}

// As "class=RBC,WBC&size=0-32&objects=3-&fault=box&name=x&order=most".
function toAddress(withOrder = true) {
  const parts = [];
  const list = (key, set, name) => {
    if (set.size) parts.push(`${key}=${[...set].map((v) => encodeURIComponent(name(v))).join(",")}`);
  };
  const range = (key, [low, high]) => {
    if (low > 0 || high < Infinity) parts.push(`${key}=${low}-${high < Infinity ? high : ""}`);
  };
  list("split", filter.splits, (i) => DATA.splits[i]);
  list("class", filter.classes, (k) => DATA.classes[k]);
  range("size", filter.side);
  range("objects", filter.count);
  list("fault", filter.faults, (kind) => kind);
  if (filter.text) parts.push(`name=${encodeURIComponent(filter.text)}`);
  if (withOrder && filter.order !== "given") parts.push(`order=${filter.order}`);
  return parts.join("&");
}

// What makes no sense in an address is passed over. Gives back the name of the picture to open.
function fromAddress(hash) {
  Object.assign(filter, fresh());
  let open = null;
  for (const pair of hash.replace(/^#/, "").split("&")) {
    const [key, ...rest] = pair.split("=");
    let words = [];
    try {
      words = rest.join("=").split(",").filter(Boolean).map(decodeURIComponent);
    } catch {
      continue; // such as "%zz"
    }
    const among = (names) => new Set(words.map((w) => names.indexOf(w)).filter((i) => i >= 0));
    if (key === "split") filter.splits = among(DATA.splits);
    if (key === "class") filter.classes = among(DATA.classes);
    if (key === "fault") filter.faults = new Set(words.filter((w) => w in DATA.kinds));
    if (key === "name") filter.text = words.join(",");
    if (key === "order" && words[0] in ORDERS) filter.order = words[0];
    if (key === "picture") open = words.join(",");
    const bounds = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)?$/.exec(words[0] || "");
    if (bounds) {
      const found = [Number(bounds[1]), bounds[2] ? Number(bounds[2]) : Infinity];
      if (key === "size") filter.side = found;
      if (key === "objects") filter.count = found;
    }
  }
  return open;
}
