// Files, one after the other: each is sent as it is, and its segments come back as lines of JSON while it is recognised.

import {sentence} from "./connection.js";

const LOST = "The connection to the server was lost; what was recognised is below.";
const HOPELESS = [413, 415]; // statuses of a file that the server will refuse again: too large or too long, not audio

export class Uploads {
  // on: {figures(seconds, computeSeconds), refused(): the token is wrong}
  constructor(url, getToken, on) {
    Object.assign(this, {url, getToken, on, waiting: [], current: null});
  }

  add(file, recording) {
    this.waiting.push({file, recording, read: 0, seconds: 0});
    recording.setState(this.current ? "waiting" : "sending");
    this.next();
  }

  // Stops the file that is being recognised; the next one follows.
  cancel() {
    this.current?.request.abort();
  }

  remove(recording) {
    this.waiting = this.waiting.filter((item) => item.recording !== recording);
    if (this.current?.recording === recording) this.cancel();
  }

  next() {
    if (this.current || !this.waiting.length) return;
    const item = this.waiting.shift();
    this.current = item;
    this.send(item);
  }

  send(item) {
    const {file, recording} = item;
    const request = new XMLHttpRequest(); // reports how much was sent, which fetch does not
    item.request = request;
    request.open("POST", `${this.url}?${new URLSearchParams({format: "jsonl", name: file.name})}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    const token = this.getToken();
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    recording.setState("sending", 0);
    request.upload.addEventListener("progress", ({loaded, total}) => recording.setState("sending", loaded / total));
    request.upload.addEventListener("load", () => recording.setState("recognising", undefined));
    request.addEventListener("progress", () => this.read(item));
    request.addEventListener("abort", () => this.finish(item, "This file was stopped; what was recognised is below."));
    request.addEventListener("error", () => this.finish(item, LOST));
    request.addEventListener("load", () => this.load(item));
    request.send(file);
  }

  // Takes the whole lines that have arrived.
  read(item) {
    const {request} = item;
    if (request.status !== 200) return;
    const end = request.responseText.lastIndexOf("\n") + 1;
    const lines = request.responseText.slice(item.read, end).split("\n").filter(Boolean);
    item.read = Math.max(item.read, end);
    for (const line of lines) this.receive(item, JSON.parse(line));
  }

  receive(item, message) {
    const {recording} = item;
    if (message.type === "recording") item.seconds = message.seconds;
    else if (message.type === "segment") {
      recording.addUtterance(message);
      recording.setState("recognising", item.seconds ? message.end / item.seconds : undefined);
    } else if (message.type === "error") item.problem = sentence(message.message);
    else if (message.type === "end") {
      item.isComplete = true;
      item.seconds = message.seconds;
      this.on.figures(message.seconds, message.compute_seconds);
    }
  }

  load(item) {
    const {request} = item;
    this.read(item);
    if (request.status === 401) this.on.refused();
    if (request.status !== 200) this.finish(item, errorMessage(request));
    else this.finish(item, item.problem ?? (item.isComplete ? null : LOST));
  }

  finish(item, problem) {
    const {file, recording, request} = item;
    this.current = null;
    const isHopeless = HOPELESS.includes(request.status);
    if (problem) recording.fail(problem, isHopeless ? null : "Try again", isHopeless ? null : () => this.retry(file, recording));
    recording.finish(item.seconds);
    this.next();
  }

  retry(file, recording) {
    recording.reset();
    this.add(file, recording);
  }
}

function errorMessage(request) {
  try {
    return sentence(JSON.parse(request.responseText).error.message);
  } catch {
    return `The server answered with status ${request.status}.`;
  }
}
