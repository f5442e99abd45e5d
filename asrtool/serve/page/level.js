// The loudness of the last seconds as bars, or as one bar for who wants less motion.

const SILENCE = -60; // dB of full scale, a bar of no height
const BAR = 5; // pixels, with the gap to the next one

export class LevelMeter {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = [];
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // level: root mean square, 1 is full scale.
  add(level) {
    const decibels = 20 * Math.log10(Math.max(level, 1e-6));
    this.levels.push(Math.max(0, Math.min(1, 1 - (decibels + 6) / (SILENCE + 6))));
    this.levels = this.levels.slice(-500);
    this.draw();
  }

  clear() {
    this.levels = [];
    this.draw();
  }

  draw() {
    const {canvas} = this;
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.fillStyle = getComputedStyle(canvas).color;
    if (this.isStill.matches) this.drawOne(context);
    else this.drawHistory(context);
  }

  drawOne(context) {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    context.globalAlpha = 0.25;
    context.fillRect(0, height / 2 - 4, width, 8);
    context.globalAlpha = 1;
    context.fillRect(0, height / 2 - 4, width * (this.levels.at(-1) ?? 0), 8);
  }

  drawHistory(context) {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    const count = Math.floor(width / BAR);
    for (let n = 0; n < count; n++) {
      const level = this.levels[this.levels.length - count + n];
      const size = Math.max(2, (level ?? 0) * height);
      context.globalAlpha = level === undefined ? 0.25 : 1;
      context.beginPath();
      context.roundRect(n * BAR, (height - size) / 2, BAR - 2, size, 1.5);
      context.fill();
    }
  }
}
