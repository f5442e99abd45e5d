// A chart of lines. Dragging selects a range of x to zoom into; the keyboard and buttons do the same.

const MARGIN = {left: 76, right: 14, top: 10, bottom: 38};
const CHART_HEIGHT = 320;
const MOST_POINTS = 1500; // drawn of a line; of more, the lowest and the highest of each bin

DRAW.lines = (element) => {
  const chart = new Chart(element);
  return chart.node;
};

class Chart {
  constructor(element) {
    this.element = element;
    this.hidden = new Set();
    this.xs = [...new Set(element.series.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
    this.whole = element.diagonal ? [0, 1] : [this.xs[0] ?? 0, this.xs.at(-1) ?? 1];
    this.range = [...this.whole];
    this.cursor = null;
    this.svg = makeSvg("svg", {tabindex: "0", role: "img", "aria-label": this.description()});
    this.reading = make("output", {class: "reading soft", "aria-live": "polite"}, element.diagonal ? "" : "Drag to zoom; arrow keys read values, + and - zoom, 0 shows everything.");
    this.node = make("figure", {class: "chart"}, make("figcaption", {}, element.caption), this.svg, this.reading,
      make("div", {class: "buttons"}, this.legend(), element.diagonal ? null : this.zoomButtons()));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  description() {
    const {caption, x_name: x, y_name: y, series} = this.element;
    return `${caption}: ${y} by ${x}; lines: ${series.map((line) => line.name).join(", ")}`;
  }

  legend() {
    return this.element.series.map((line, index) => {
      const sample = makeSvg("svg", {viewBox: "0 0 32 12", "aria-hidden": "true"}, makeSvg("path", {class: `s${index % 6}`, d: "M0 6H32"}));
      const button = make("button", {type: "button", "aria-pressed": "true"}, sample, line.name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(index)) this.hidden.add(index);
        button.setAttribute("aria-pressed", String(!this.hidden.has(index)));
        this.draw();
      });
      return button;
    });
  }

  zoomButtons() {
    const button = (text, action) => make("button", {type: "button", onclick: action}, text);
    return [button("Zoom in", () => this.zoom(0.5)), button("Zoom out", () => this.zoom(2)), button("Show everything", () => this.reset())];
  }

  listen() {
    let start = null;
    const x = (event) => this.valueAt(event.clientX - this.svg.getBoundingClientRect().left);
    this.svg.addEventListener("pointerdown", (event) => { start = x(event); });
    this.svg.addEventListener("pointermove", (event) => {
      this.selection = start === null || this.element.diagonal ? null : [start, x(event)];
      this.moveTo(x(event));
    });
    this.svg.addEventListener("pointerup", (event) => { this.select(start, x(event)); start = null; });
    this.svg.addEventListener("pointerleave", () => { start = null; this.selection = null; this.cursor = null; this.draw(); });
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const actions = {ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), 0: () => this.reset(), Escape: () => this.reset()};
    if (!actions[event.key] || event.ctrlKey || event.metaKey || this.element.diagonal) return;
    event.preventDefault();
    actions[event.key]();
  }

  select(start, end) {
    this.selection = null;
    const [low, high] = [Math.min(start, end), Math.max(start, end)];
    if (start !== null && !this.element.diagonal && high - low > (this.range[1] - this.range[0]) / 50) this.range = [low, high];
    this.draw();
  }

  reset() {
    this.range = [...this.whole];
    this.draw();
  }

  zoom(factor) {
    const middle = this.cursor ?? (this.range[0] + this.range[1]) / 2;
    const half = (factor * (this.range[1] - this.range[0])) / 2;
    const smallest = (this.whole[1] - this.whole[0]) / 1e4;
    if (half > smallest) this.range = [Math.max(this.whole[0], middle - half), Math.min(this.whole[1], middle + half)];
    this.draw();
  }

  step(direction) {
    const inside = this.xs.filter((x) => x >= this.range[0] && x <= this.range[1]);
    if (!inside.length) return;
    const at = this.cursor === null ? (direction > 0 ? -1 : inside.length) : nearestIndex(inside, this.cursor);
    this.moveTo(inside[Math.min(inside.length - 1, Math.max(0, at + direction))]);
  }

  moveTo(x) {
    this.cursor = this.xs.length ? this.xs[nearestIndex(this.xs, x)] : null;
    const values = this.visible().map(({line}) => [line.name, line.points.find(([at]) => at === this.cursor)]).filter(([, point]) => point);
    const {x_name: name} = this.element;
    this.reading.value = [`${name} ${formatAny(this.cursor ?? 0)}`, ...values.map(([series, [, y]]) => `${series} ${formatAny(y)}`)].join(" \u00b7 ");
    this.draw();
  }

  visible() {
    return this.element.series.map((line, index) => ({line, index})).filter(({index}) => !this.hidden.has(index));
  }

  valueAt(pixel) {
    const share = (pixel - MARGIN.left) / Math.max(1, this.width - MARGIN.left - MARGIN.right);
    return this.range[0] + Math.min(1, Math.max(0, share)) * (this.range[1] - this.range[0]);
  }

  // The range of y of what is visible, on the scale of the axis.
  yRange(scale) {
    if (this.element.diagonal) return [0, 1];
    const inside = this.visible().flatMap(({line}) => line.points.filter(([x]) => x >= this.range[0] && x <= this.range[1]).map(([, y]) => scale(y))).filter(Number.isFinite);
    if (!inside.length) return [0, 1];
    const low = inside.reduce((a, b) => Math.min(a, b));
    const high = inside.reduce((a, b) => Math.max(a, b));
    const margin = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - margin, high + margin];
  }

  draw() {
    this.width = this.svg.clientWidth;
    if (!this.width) return;
    const scale = this.element.log_scale ? Math.log10 : (y) => y;
    const [low, high] = this.yRange(scale);
    const [left, right, top, bottom] = [MARGIN.left, this.width - MARGIN.right, MARGIN.top, CHART_HEIGHT - MARGIN.bottom];
    const px = (x) => left + ((x - this.range[0]) / (this.range[1] - this.range[0] || 1)) * (right - left);
    const py = (y) => bottom - ((scale(y) - low) / (high - low)) * (bottom - top);
    const clip = makeSvg("svg", {x: left, y: 0, width: Math.max(1, right - left), height: bottom, viewBox: `${left} 0 ${Math.max(1, right - left)} ${bottom}`});
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${CHART_HEIGHT}`);
    this.svg.replaceChildren(...this.axes(px, py, scale, low, high, {left, right, top, bottom}), clip);
    if (this.element.diagonal) clip.append(makeSvg("line", {class: "diagonal", x1: px(0), y1: py(0), x2: px(1), y2: py(1)}));
    for (const {line, index} of this.visible()) clip.append(...this.drawLine(line, index, px, py));
    if (this.selection) {
      const [from, to] = this.selection.map(px).sort((a, b) => a - b);
      clip.append(makeSvg("rect", {class: "selection", x: from, y: top, width: to - from, height: bottom - top}));
    }
    if (this.cursor !== null) clip.append(makeSvg("line", {class: "cursor", x1: px(this.cursor), x2: px(this.cursor), y1: top, y2: bottom}));
  }

  axes(px, py, scale, low, high, {left, right, top, bottom}) {
    const nodes = [];
    const yTicks = this.element.log_scale ? logTicks(low, high) : ticks(low, high, 6);
    for (const y of yTicks) {
      nodes.push(makeSvg("line", {class: "grid", x1: left, x2: right, y1: py(y), y2: py(y)}));
      nodes.push(makeSvg("text", {x: left - 6, y: py(y) + 4, "text-anchor": "end"}, formatAny(y)));
    }
    for (const x of ticks(...this.range, Math.max(2, Math.floor((right - left) / 90)))) {
      nodes.push(makeSvg("line", {class: "grid", x1: px(x), x2: px(x), y1: top, y2: bottom}));
      nodes.push(makeSvg("text", {x: px(x), y: bottom + 16, "text-anchor": "middle"}, formatAny(x)));
    }
    nodes.push(makeSvg("text", {x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle"}, this.element.x_name));
    nodes.push(makeSvg("text", {transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}, this.element.y_name));
    return nodes;
  }

  drawLine(line, index, px, py) {
    const style = `s${index % 6}`;
    const points = thin(neighbourhood(line.points, this.range), MOST_POINTS).map(([x, y]) => [px(x), py(y)]).filter(([, y]) => Number.isFinite(y));
    const path = points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    const marks = line.marks ? points.map(([x, y]) => makeSvg("circle", {class: style, cx: x, cy: y, r: 3})) : [];
    return [makeSvg("path", {class: style, d: path || "M0 0"}), ...marks];
  }
}

// The points within a range, and the next one on each side, so that lines reach the edge.
function neighbourhood(points, [low, high]) {
  const first = points.findIndex(([x]) => x >= low);
  const last = points.findLastIndex(([x]) => x <= high);
  return first < 0 || last < 0 ? points.slice(-2) : points.slice(Math.max(0, first - 1), last + 2);
}

function thin(points, most) {
  if (points.length <= most) return points;
  const size = Math.ceil((2 * points.length) / most);
  const kept = [];
  for (let n = 0; n < points.length; n += size) {
    const bin = points.slice(n, n + size);
    const lowest = bin.reduce((a, b) => (b[1] < a[1] ? b : a));
    const highest = bin.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...[lowest, highest].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}

function nearestIndex(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - value) <= Math.abs(sorted[high] - value) ? low : high;
}

// About `count` round values from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const values = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) values.push(Number((n * step).toPrecision(12)));
  return values;
}

// Round values of a logarithmic axis, whose ends are logarithms.
function logTicks(low, high) {
  const factors = high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const values = [];
  for (let power = Math.floor(low); power <= high; power++) values.push(...factors.map((factor) => factor * 10 ** power));
  const inside = values.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
  return inside.length >= 2 ? inside : ticks(10 ** low, 10 ** high, 5);
}
