// The delay of live results: from when sound was captured until the words for it are here.

export class DelayClock {
  constructor() {
    this.captured = []; // [seconds of the stream, time of the clock in ms] at the end of each block
    this.seconds = 0;
    this.lastEnd = 0;
  }

  capture(seconds, now = performance.now()) {
    this.seconds += seconds;
    this.captured.push([this.seconds, now]);
  }

  // Seconds since the last sound that a result covers was captured; null if it covers no more than the one before.
  delay(end, now = performance.now()) {
    if (end <= this.lastEnd) return null;
    this.lastEnd = end;
    while (this.captured.length > 1 && this.captured[0][0] < end) this.captured.shift();
    return this.captured.length ? Math.max(0, now - this.captured[0][1]) / 1000 : null;
  }
}
