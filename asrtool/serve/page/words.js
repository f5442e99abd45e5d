// Lines of words: final ones as buttons that are shaded by confidence, and the line that is being spoken.

import {joined} from "./formats.js";

const SHADES = [0.9, 0.75, 0.5]; // a word of a lower confidence has a darker ground; below the last one it is underlined

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

export function shade(confidence) {
  return typeof confidence === "number" ? SHADES.filter((limit) => confidence < limit).length : 0;
}

export function describeWord({start, end, confidence}) {
  const time = `${formatNumber(start, 2)} to ${formatNumber(end, 2)} s`;
  return typeof confidence === "number" ? `${time}, confidence ${formatNumber(100 * confidence, 0)} %` : time;
}

function lineOf(start, ...content) {
  return make("li", {class: "line"}, make("time", {}, clock(start)), make("span", {class: "text", dir: "auto"}, ...content));
}

export function finalLine({start, words, remark}, onChoose) {
  const nodes = words.flatMap((word) => {
    const button = make("button", {type: "button", class: `word shade${shade(word.confidence)}`, tabindex: "-1", title: describeWord(word), "aria-expanded": "false"}, word.text);
    button.addEventListener("click", () => onChoose(button, word));
    return [button, " "];
  });
  if (remark) nodes.push(make("span", {class: "remark"}, remark));
  return lineOf(words[0]?.start ?? start, ...nodes);
}

// The words so far: the first numFinal cannot change any more.
export function partialLine(words, numFinal) {
  const settled = joined(words.slice(0, numFinal));
  const pending = joined(words.slice(numFinal));
  return lineOf(words[0].start, make("span", {class: "settled"}, settled), settled && pending ? " " : "", make("em", {class: "pending"}, pending));
}

// One word of the list is reached by Tab; the arrow keys, Home and End go to the others.
export function moveBetweenWords(list) {
  list.addEventListener("focusin", ({target}) => {
    if (target.matches(".word")) setTabStop(list, target);
  });
  list.addEventListener("keydown", (event) => {
    const words = [...list.querySelectorAll(".word")];
    const place = words.indexOf(document.activeElement);
    const next = {ArrowRight: place + 1, ArrowDown: nextLine(words, place, 1), ArrowLeft: place - 1, ArrowUp: nextLine(words, place, -1), Home: 0, End: words.length - 1}[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    words[Math.max(0, Math.min(words.length - 1, next))].focus();
  });
}

function nextLine(words, place, step) {
  const line = words[place]?.closest(".line");
  let next = place;
  while (words[next]?.closest(".line") === line && words[next]) next += step;
  return next;
}

export function setTabStop(list, word) {
  for (const other of list.querySelectorAll('.word[tabindex="0"]')) other.tabIndex = -1;
  word.tabIndex = 0;
}
