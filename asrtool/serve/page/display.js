// The notice, the figures, and what screen readers are told.

import {clock} from "./words.js";

const NUM_DELAYS = 5; // the last ones, whose mean is shown
const NUM_SPOKEN = 20; // lines that are kept for screen readers; all are in the transcripts
const at = (id) => document.getElementById(id);
let delays = [];

// Shows one sentence, with a button for what can be done; null hides it.
export function showNotice(text, label = null, action = null) {
  at("notice").hidden = !text;
  at("notice-text").textContent = text ?? "";
  const button = at("notice-action");
  button.hidden = !label;
  button.textContent = label ?? "";
  button.onclick = () => {
    showNotice(null);
    action();
  };
}

// Reads a recognised line out.
export function say(text) {
  at("spoken").append(make("p", {}, text));
  while (at("spoken").childElementCount > NUM_SPOKEN) at("spoken").firstChild.remove();
}

export function setStatus(text) {
  at("status").textContent = text;
}

export function clearDelay() {
  delays = [];
  at("delay").textContent = "\u2013";
}

// delay: seconds, or null where this result has none. seconds: of audio so far.
export function showFigures({delay, seconds, computeSeconds}) {
  if (delay !== null) {
    delays = [...delays, delay].slice(-NUM_DELAYS);
    at("delay").textContent = `${formatNumber(delays.reduce((a, b) => a + b) / delays.length, 2)} s`;
  }
  if (seconds > 0) at("rtf").textContent = formatNumber(computeSeconds / seconds, 3);
  at("audio").textContent = clock(seconds);
}
