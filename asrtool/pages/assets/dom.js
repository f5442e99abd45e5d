"use strict";
// Elements of the document. Texts are set as text nodes only: nothing from the data is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value === true ? "" : value);
  }
}

// make("p", {class: "soft"}, "text", child, ...): children are nodes or texts; null is left out.
function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  setAttributes(node, attributes);
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function makeSvg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  setAttributes(node, attributes);
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

// A number with a fixed count of decimals and a true minus sign.
function formatNumber(value, digits) {
  const text = value.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  return text.replace("-", "\u2212");
}

// A number of any size for an axis or a reading: 4 significant digits.
function formatAny(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e").replaceAll("-", "\u2212");
  return value.toLocaleString("en-US", {maximumSignificantDigits: 4}).replace("-", "\u2212");
}

// A region that scrolls sideways on its own, which the keyboard can reach.
function scrollable(label, ...children) {
  return withScrollHint(make("div", {class: "scroll", tabindex: "0", role: "group", "aria-label": label}, ...children));
}

// Puts a node that may scroll sideways into a box, which shows a shadow and an arrow at an edge beyond which there is more.
function withScrollHint(node) {
  const box = make("div", {class: "scrollbox"}, node);
  const show = () => {
    const beyond = node.scrollWidth - node.clientWidth;
    box.classList.toggle("more-left", node.scrollLeft > 1);
    box.classList.toggle("more-right", beyond - node.scrollLeft > 1);
  };
  node.addEventListener("scroll", show, {passive: true});
  const observer = new ResizeObserver(show); // also when it is shown for the first time, or its rows change
  observer.observe(node);
  for (const child of node.children) observer.observe(child);
  return box;
}

// Shows the first `shown` of the nodes, and a button for the others. Nodes are created when they are needed.
function fold(container, count, shown, create, what) {
  let made = 0;
  const more = (limit) => {
    for (; made < Math.min(limit, count); made++) container.append(create(made));
  };
  more(shown);
  if (count <= shown) return null;
  const button = make("button", {type: "button"}, `Show all ${count} ${what}`);
  button.addEventListener("click", () => {
    more(count);
    button.remove();
  });
  return button;
}
