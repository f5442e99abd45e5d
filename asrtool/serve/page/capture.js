// Runs in the browser's audio thread: mixes the channels, and posts blocks of 50 ms of 16-bit PCM with their level.

const BLOCKS_PER_SECOND = 20;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.newBlock();
    this.hasEnded = false;
    // Any message ends the capture: the samples so far are posted, and then null.
    this.port.onmessage = () => {
      if (this.count) this.postBlock();
      this.port.postMessage(null);
      this.hasEnded = true;
    };
  }

  newBlock() {
    this.samples = new Int16Array(Math.round(sampleRate / BLOCKS_PER_SECOND));
    this.count = 0;
    this.energy = 0;
  }

  process([channels]) {
    if (this.hasEnded) return false;
    for (let n = 0; channels.length && n < channels[0].length; n++) {
      let sum = 0;
      for (const channel of channels) sum += channel[n];
      this.add(sum / channels.length);
    }
    return true;
  }

  add(value) {
    this.energy += value * value;
    this.samples[this.count++] = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
    if (this.count === this.samples.length) this.postBlock();
  }

  postBlock() {
    const samples = this.samples.slice(0, this.count);
    const level = Math.sqrt(this.energy / this.count); // root mean square, 1 is full scale
    this.port.postMessage({samples, level}, [samples.buffer]);
    this.newBlock();
  }
}

registerProcessor("capture", Capture);
