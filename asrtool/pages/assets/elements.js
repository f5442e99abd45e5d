// The simple elements of asrtool/pages/elements.py. DRAW maps the kind of an element to the function that draws it.

const DRAW = {};

function drawElement(element) {
  return DRAW[element.kind](element);
}

DRAW.text = ({text, tone}) => make("p", {class: tone, role: tone === "warning" ? "note" : null, dir: "auto"}, text);

DRAW.code = ({text, caption}) =>
  make("div", {}, caption ? make("h3", {}, caption) : null,
    withScrollHint(make("pre", {tabindex: "0", role: "group", "aria-label": caption || "text"}, make("code", {}, text))));

DRAW.tiles = ({items}) =>
  make("dl", {class: "tiles"}, items.map(([label, value, note]) =>
    make("div", {}, make("dt", {}, label), make("dd", {}, value), note ? make("dd", {class: "soft"}, note) : null)));

DRAW.facts = ({rows}) =>
  make("dl", {class: "facts"}, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {dir: "auto"}, value)]));

DRAW.details = ({title, elements}) => {
  const node = make("details", {}, make("summary", {}, title));
  // What is inside is drawn when it is opened: charts need a width.
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(...elements.map(drawElement));
  });
  return node;
};

DRAW.choice = ({label, options}) => {
  if (options.length === 1) return make("div", {}, options[0].elements.map(drawElement));
  const body = make("div");
  const buttons = options.map((option, index) =>
    make("button", {type: "button", "aria-pressed": "false", onclick: () => choose(index)}, option.name));
  function choose(index) {
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === index)));
    body.replaceChildren(...options[index].elements.map(drawElement));
  }
  choose(0);
  return make("div", {}, make("div", {class: "buttons", role: "group", "aria-label": label}, make("span", {class: "soft"}, label), buttons), body);
};

// Bars from 0 to the largest value (or interval); signed ones from a zero line.
DRAW.bars = ({caption, value_name: valueName, items, signed}) => {
  const ends = items.flatMap(({value, interval}) => [value, ...(interval || [])]);
  const high = Math.max(...ends, 0);
  const low = signed ? Math.min(...ends, 0) : 0;
  const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 0);
  const rows = items.flatMap((item) => [
    make("div", {class: "name", role: "cell", dir: "auto"}, item.name),
    make("div", {role: "cell"}, barPicture(item, place, signed)),
    make("div", {class: "value", role: "cell"}, barText(item, signed)),
  ]);
  const table = [];
  for (let n = 0; n < rows.length; n += 3) table.push(make("div", {role: "row", class: "unboxed"}, rows.slice(n, n + 3)));
  return make("figure", {}, make("figcaption", {}, `${caption} (${valueName})`),
    make("div", {class: "bars", role: "table", "aria-label": caption}, table));
};

function barText({value, interval, note}, signed) {
  const sign = (number) => (signed && number > 0 ? "+" : "") + formatNumber(number, 2);
  const range = interval ? ` [${sign(interval[0])}, ${sign(interval[1])}]` : "";
  return sign(value) + range + (note ? ` \u00b7 ${note}` : "");
}

function barPicture({value, interval}, place, signed) {
  const [from, to] = [place(0), place(value)];
  const side = signed ? (value < 0 ? " below" : " above") : "";
  const svg = makeSvg("svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"});
  svg.append(makeSvg("rect", {class: `fill${side}`, x: Math.min(from, to), y: 1.5, width: Math.abs(to - from), height: 7}));
  if (signed) svg.append(makeSvg("line", {class: "zero", x1: from, x2: from, y1: 0, y2: 10}));
  if (interval) {
    const [low, high] = interval.map(place);
    svg.append(makeSvg("line", {class: "whisker", x1: low, x2: high, y1: 5, y2: 5}));
    for (const x of [low, high]) svg.append(makeSvg("line", {class: "whisker", x1: x, x2: x, y1: 3, y2: 7}));
  }
  return svg;
}
