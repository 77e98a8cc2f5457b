"use strict";
// What all pages with a script share: errors that are told, the data, elements.

const root = document.documentElement;
const errors = [];
root.dataset.errors = "[]";

function report(message) {
  errors.push(String(message));
  root.dataset.errors = JSON.stringify(errors);
  const line = document.getElementById("error");
  line.hidden = false;
  line.textContent = `Parts of this page do not work: ${errors[0]}`;
}
addEventListener("error", (event) => report(event.message));
addEventListener("unhandledrejection", (event) => report(event.reason));

const DATA = JSON.parse(document.getElementById("data").textContent);

function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "for" || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
