// Speaking: from the microphone through a connection into a recording.

import {Connection} from "./connection.js";
import {DelayClock} from "./delay.js";
import {openMicrophone} from "./microphone.js";

const DEAF_SECONDS = 4; // of digital silence, after which something is wrong with the microphone

export class Speech {
  // on: {state(name), block(level, seconds), result(figures), silent(isSilent), warned(text), ended(problem)}
  constructor(recording, url, options, on) {
    Object.assign(this, {recording, url, options, on, offset: recording.seconds, seconds: 0, hasSound: false, hasEnded: false});
    this.clock = new DelayClock();
  }

  async start() {
    this.on.state("opening");
    try {
      this.microphone = await openMicrophone((samples, level) => this.capture(samples, level), () => this.stop("The microphone was disconnected; what was recognised is below."));
      if (this.hasEnded) return await this.microphone.stop(); // stopped while the browser asked for permission
      this.connect();
    } catch (problem) {
      this.end({code: problem.name === "SyntaxError" ? "unauthorized" : "microphone", message: problem.name === "SyntaxError" ? "Browsers cannot send this token: it may have letters, digits and -._~ only." : problem.message});
    }
  }

  connect() {
    const {rate} = this.microphone;
    this.connection = new Connection(this.url, {rate, ...this.options}, {
      ready: ({warning}) => {
        this.on.state(this.isStopping ? "finishing" : "speaking");
        if (warning) this.on.warned(warning);
      },
      result: (message) => this.receive(message),
      ended: (problem, message) => this.end(problem, message),
    });
    for (const samples of this.early?.splice(0) ?? []) this.connection.send(samples);
  }

  capture(samples, level) {
    if (this.hasEnded) return;
    const seconds = samples.length / (this.microphone?.rate ?? 48000);
    if (this.connection) this.connection.send(samples);
    else (this.early ??= []).push(samples);
    this.seconds += seconds;
    this.clock.capture(seconds);
    this.checkSound(level);
    this.on.block(level, this.offset + this.seconds);
  }

  checkSound(level) {
    if (this.hasSound) return;
    this.hasSound = level > 0;
    if (this.hasSound && this.seconds > DEAF_SECONDS) this.on.silent(false);
    else if (!this.hasSound && this.seconds > DEAF_SECONDS) this.on.silent(true);
  }

  receive(message) {
    const shifted = (seconds) => Math.round(1000 * (seconds + this.offset)) / 1000;
    const words = message.words.map((word) => ({...word, start: shifted(word.start), end: shifted(word.end)}));
    if (message.type === "final") {
      this.recording.addUtterance({start: shifted(message.start), end: shifted(message.end), confidence: message.confidence, words});
    } else {
      this.recording.setPartial(words, message.num_final);
    }
    const delay = message.type === "partial" ? this.clock.delay(message.end) : null;
    this.on.result({delay, seconds: message.audio_seconds, computeSeconds: message.compute_seconds});
  }

  // Ends the audio; the results of the audio so far still come.
  async stop(message = null) {
    if (this.isStopping || this.hasEnded) return;
    this.isStopping = true;
    this.message = message;
    if (!this.microphone) return this.end(null);
    this.on.state("finishing");
    await this.microphone.stop();
    if (this.connection) this.connection.finish();
  }

  end(problem, message = null) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    if (!this.isStopping) this.microphone?.stop();
    this.recording.keepPartial(problem ? "(not finished)" : null);
    this.recording.finish(Math.round(1000 * (this.offset + this.seconds)) / 1000);
    if (message) this.on.result({delay: null, seconds: message.audio_seconds, computeSeconds: message.compute_seconds});
    this.on.ended(problem ?? (this.message ? {code: "microphone", message: this.message} : null));
  }
}
