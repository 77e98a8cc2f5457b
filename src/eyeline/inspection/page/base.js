"use strict";
// Data, errors, and what is chosen: the parts of the page tell one another through `state`.

const root = document.documentElement;
const errors = [];
root.dataset.errors = "[]";

function report(message) {
  errors.push(String(message));
  root.dataset.errors = JSON.stringify(errors);
}
addEventListener("error", (event) => report(event.message));
addEventListener("unhandledrejection", (event) => report(event.reason));

const DATA = JSON.parse(document.getElementById("data").textContent);
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
  const [section, rest = ""] = decodeURIComponent(location.hash.slice(1)).split(":");
  const pairs = rest.split(",").filter(Boolean).map((pair) => pair.split("="));
  return { section, ...Object.fromEntries(pairs.map(([key, value]) => [key, Number(value)])) };
}

const share = (value) => value.toFixed(value < 0.0995 ? 3 : 2);
const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
const size = ([x1, y1, x2, y2]) => `${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)}`;
const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
