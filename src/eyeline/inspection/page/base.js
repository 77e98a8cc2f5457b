// What is chosen: the parts of the page tell one another through `state`.

const WIDTH = DATA.picture.width;
const HEIGHT = DATA.picture.height; // of the resized picture, in whose pixels all boxes are

const ARRAYS = { Float32Array, Uint16Array, Uint8Array, Int16Array };

// A typed array of what Python packed; shares come back as numbers from 0 to 1.
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  const values = new ARRAYS[packed.array](bytes.buffer);
  return packed.scale ? Float32Array.from(values, (v) => v * packed.scale) : values;
}

function loaded(uri) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture of the page cannot be read"));
    image.src = uri;
  });
}

const state = {};
const listeners = {};

function on(key, listener) {
  (listeners[key] ||= []).push(listener);
}

function set(key, value) {
  if (state[key] === value) return;
  state[key] = value;
  for (const listener of listeners[key] || []) listener(value);
}

// "#boxes:detection=3,object=1" -> { section: "boxes", detection: 3, object: 1 }
function chosenByAddress() {
  let hash = location.hash.slice(1);
  try {
    hash = decodeURIComponent(hash);
  } catch {
    hash = ""; // such as "#100%"
  }
  const [section, rest = ""] = hash.split(":");
  const pairs = rest.split(",").filter(Boolean).map((pair) => pair.split("="));
  return { section, ...Object.fromEntries(pairs.map(([key, value]) => [key, Number(value)])) };
}

// What a stage's limits say of its NMS: which boxes it drops, and sentences on what else it does.
function aboutNms(limits) {
  const { nms, floor, sigma, vote } = limits;
  const whose = limits["all classes"] ? "of any class" : "of its class";
  const notes = [];
  if (floor !== undefined) {
    notes.push("This is soft NMS: no box is dropped outright. Each one's score is lowered for every "
      + `better box ${whose} that it overlaps, `
      + (sigma === undefined ? `times 1 − IoU where the IoU is above ${nms}, `
        : `times exp(−IoU² / ${sigma}), `)
      + `and a box is dropped once its score is below ${floor}.`);
  }
  if (vote !== undefined) {
    notes.push(`Box voting: each box kept is moved to the mean, weighted by score, of the boxes ${whose} `
      + `that overlap it by ${vote} or more.`);
  }
  return { soft: floor !== undefined, whose, notes,
    dropped: floor === undefined ? `suppressed at an IoU above ${nms}`
      : `lowered by soft NMS until below ${floor}` };
}

const share = (value) => value.toFixed(value < 0.0995 ? 3 : 2);
const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
const size = ([x1, y1, x2, y2]) => `${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)}`;
const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
