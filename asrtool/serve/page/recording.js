// A recording on the page: its lines while they are recognised, and its downloads.

import {FORMATS, download, joined, plainText} from "./formats.js";
import {clock, describeWord, finalLine, moveBetweenWords, partialLine, setTabStop} from "./words.js";

let count = 0;

export class Recording {
  // on: {say(text), status(text), removed(recording)}
  constructor(name, method, on) {
    Object.assign(this, {name, method, on, seconds: 0, utterances: [], partial: null});
    this.chosen = null;
    this.build(`recording-${++count}`);
  }

  build(id) {
    this.state = make("span", {class: "state soft"});
    this.progress = make("progress", {hidden: true, max: "1", "aria-label": `Progress of ${this.name}`});
    this.lines = make("ol", {class: "lines", "aria-label": "Lines"});
    this.facts = make("p", {class: "word-facts", role: "status", hidden: true, dir: "auto"});
    this.failure = make("div", {class: "failure warning", hidden: true});
    this.tools = make("div", {class: "recording-tools", role: "group", "aria-label": `${this.name}: copy and download`, hidden: true}, this.buttons());
    this.node = make("article", {class: "recording", "aria-labelledby": id},
      make("div", {class: "recording-head"}, make("h3", {id, dir: "auto"}, this.name), this.state), this.progress, this.failure, this.lines, this.facts, this.tools);
    moveBetweenWords(this.lines);
  }

  buttons() {
    const button = (label, name, onclick, needsWords = true) =>
      make("button", {type: "button", "aria-label": name, "data-needs-words": needsWords, onclick}, label);
    const formats = Object.entries(FORMATS).map(([extension, {label}]) => button(label, `Download as ${label}`, () => this.save(extension)));
    const copy = navigator.clipboard ? button("Copy", "Copy the text", () => this.copy()) : null;
    return [copy, ...formats, button("Remove", `Remove ${this.name}`, () => this.remove(), false)];
  }

  // Shows a line of what happens, and how much of it is done, 0 to 1; null: nothing is shown, undefined: not known.
  setState(text, share = null) {
    this.state.textContent = text;
    this.progress.hidden = share === null;
    if (typeof share === "number") this.progress.value = share;
    else this.progress.removeAttribute("value");
  }

  finish(seconds) {
    this.seconds = seconds;
    const words = this.utterances.reduce((sum, utterance) => sum + utterance.words.length, 0);
    this.setState(words ? `${clock(seconds)} \u00b7 ${words} ${words === 1 ? "word" : "words"}` : "");
    if (!words && this.failure.hidden) this.fail("No words were recognised in this audio.");
    this.showTools();
  }

  fail(message, label = null, action = null) {
    const button = action ? make("button", {type: "button", onclick: action}, label) : null;
    this.failure.replaceChildren(make("p", {}, message), button ?? "");
    this.failure.hidden = false;
    this.showTools();
  }

  // Only what has words can be copied and downloaded.
  showTools() {
    const isAtEnd = this.isAtEnd();
    this.tools.hidden = false;
    for (const button of this.tools.querySelectorAll("[data-needs-words]")) button.hidden = !this.utterances.length;
    if (isAtEnd) this.tools.scrollIntoView({block: "nearest"});
  }

  // Forgets the words, for another try.
  reset() {
    this.utterances = [];
    this.seconds = 0;
    this.lines.replaceChildren();
    this.resume();
  }

  // Takes up a recording that failed or was stopped.
  resume() {
    this.failure.hidden = true;
    this.tools.hidden = true;
    this.facts.hidden = true;
    this.chosen = null;
  }

  setPartial(words, numFinal) {
    const isAtEnd = this.isAtEnd();
    this.partial?.node.remove();
    this.partial = null;
    if (!words.length) return;
    this.partial = {words, node: partialLine(words, numFinal)};
    this.lines.append(this.partial.node);
    if (isAtEnd) this.scrollToEnd();
  }

  addUtterance(utterance) {
    const isAtEnd = this.isAtEnd();
    this.partial?.node.remove();
    this.partial = null;
    if (!utterance.words.length) return;
    this.utterances.push(utterance);
    this.lines.append(finalLine(utterance, (node, word) => this.choose(node, word)));
    if (!this.lines.querySelector('[tabindex="0"]')) setTabStop(this.lines, this.lines.querySelector(".word"));
    this.on.say(joined(utterance.words));
    if (isAtEnd) this.scrollToEnd();
  }

  // The words of an utterance that the server did not end stay, with a remark.
  keepPartial(remark) {
    if (!this.partial) return;
    const {words} = this.partial;
    this.addUtterance({start: words[0].start, end: words.at(-1).end, words: words.map((word) => ({...word, confidence: null})), remark});
  }

  // Whether the last line is in view; it is not if the reader has scrolled up.
  isAtEnd() {
    const last = this.lines.lastElementChild ?? this.node;
    return last.getBoundingClientRect().top < this.node.closest("#transcripts").getBoundingClientRect().bottom;
  }

  scrollToEnd() {
    (this.lines.lastElementChild ?? this.node).scrollIntoView({block: "end"});
  }

  choose(node, word) {
    this.chosen?.setAttribute("aria-expanded", "false");
    const isSame = this.chosen === node;
    this.chosen = isSame ? null : node;
    this.facts.hidden = isSame;
    if (isSame) return;
    node.setAttribute("aria-expanded", "true");
    this.facts.replaceChildren(make("strong", {}, word.text), make("span", {}, describeWord(word)));
  }

  save(extension) {
    const {media, write} = FORMATS[extension];
    const stem = this.name.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "transcript";
    download(`${stem}.${extension}`, write(this), media);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(plainText(this));
      this.on.status("The text is in the clipboard.");
    } catch {
      this.on.status("The browser did not allow to copy.");
    }
  }

  remove() {
    this.node.remove();
    this.on.removed(this);
  }
}
