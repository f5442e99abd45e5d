// A live stream: PCM to the server over a WebSocket, results back. docs/serving.md describes the protocol.

const ANSWER_SECONDS = 15; // until the server is ready, and from the end of the audio until its last result
const MAX_UNSENT_SECONDS = 10; // of audio: the network is slower than speech

// The reasons that a browser gives when no message came before.
const CLOSED = {
  1001: "The server is shutting down; what was recognised is below.",
  1008: "The server refused the stream.",
  1012: "The server is restarting; what was recognised is below.",
  1013: "The server has no room for another stream; try again in a moment.",
};
const LOST = "The connection to the server was lost; what was recognised is below.";
export const UNREACHABLE = "The server cannot be reached; is it still running?";

// Returns the server's line as a sentence.
export function sentence(line) {
  return `${line[0].toUpperCase()}${line.slice(1)}${/[.!?]$/.test(line) ? "" : "."}`;
}

export class Connection {
  // on: {ready(message), result(message), ended(problem)}; ended is called once, with null or {code, message}.
  constructor(url, {rate, hotwords, token}, on) {
    this.rate = rate;
    this.on = on;
    this.unsent = []; // blocks that wait until the server is ready
    this.isReady = false;
    this.hasFinished = false; // all audio was given
    this.hasEnded = false;
    const protocols = token ? ["asrtool", `asrtool.token.${token}`] : ["asrtool"];
    this.socket = new WebSocket(url, protocols);
    this.socket.addEventListener("open", () => this.start(hotwords));
    this.socket.addEventListener("message", ({data}) => this.receive(JSON.parse(data)));
    this.socket.addEventListener("close", ({code}) => this.end({code, message: CLOSED[code] ?? (this.hasOpened ? LOST : UNREACHABLE)}));
    this.expectAnswer();
  }

  start(hotwords) {
    this.hasOpened = true;
    const message = {type: "start", rate: this.rate, format: "s16le", channels: 1};
    if (hotwords.length) message.hotwords = hotwords;
    this.socket.send(JSON.stringify(message));
  }

  receive(message) {
    if (message.type === "ready") this.begin(message);
    else if (message.type === "error") this.end({code: message.code, message: sentence(message.message)});
    else if (message.type === "end") this.end(this.hasFinished ? null : {code: "end", message: "The server ended the stream."}, message);
    else {
      if (this.hasFinished) this.expectAnswer(); // a server that is behind still answers
      this.on.result(message);
    }
  }

  begin(message) {
    clearTimeout(this.timer);
    this.isReady = true;
    this.on.ready(message);
    for (const block of this.unsent.splice(0)) this.send(block);
    if (this.hasFinished) this.sendEnd();
  }

  // Sends an Int16Array of samples.
  send(samples) {
    if (this.hasEnded) return;
    if (!this.isReady) this.unsent.push(samples);
    else if (this.socket.bufferedAmount > 2 * this.rate * MAX_UNSENT_SECONDS) {
      this.end({code: "slow", message: "The network is slower than the speech; what was recognised is below."});
    } else this.socket.send(samples);
  }

  // Says that all audio was given; results still come until `ended`.
  finish() {
    this.hasFinished = true;
    if (this.isReady && !this.hasEnded) this.sendEnd();
  }

  sendEnd() {
    this.socket.send(JSON.stringify({type: "end"}));
    this.expectAnswer();
  }

  expectAnswer() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.end({code: "silent", message: "The server does not answer; what was recognised is below."}), 1000 * ANSWER_SECONDS);
  }

  cancel() {
    this.end(null);
  }

  end(problem, message = null) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearTimeout(this.timer);
    if (problem || !message) this.socket.close(); // after its last message the server closes
    this.on.ended(problem, message);
  }
}
