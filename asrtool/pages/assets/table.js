// A table that is sorted by a click on the head of a column.

DRAW.table = ({caption, columns, rows, shown}) => {
  const container = make("div");
  const order = {column: -1, ascending: true};
  const heads = columns.map((column, index) => {
    const button = make("button", {type: "button", title: column.meaning || null, onclick: () => sortBy(index)}, column.name);
    return make("th", {scope: "col", class: column.type === "text" ? null : "number"}, button);
  });
  const body = make("tbody");
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, heads)), body);
  container.append(scrollable(caption, table));
  let button = null;
  function draw(sorted) {
    button?.remove();
    body.replaceChildren();
    button = fold(body, sorted.length, shown, (n) => tableRow(columns, sorted[n]), "rows");
    if (button) container.append(button);
  }
  function sortBy(index) {
    const first = columns[index].type === "text"; // texts begin with A, numbers with the largest
    order.ascending = order.column === index ? !order.ascending : first;
    order.column = index;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", order.ascending ? "ascending" : "descending");
    draw([...rows].sort((one, other) => compareCells(one[index], other[index], order.ascending)));
  }
  draw(rows);
  return container;
};

function tableRow(columns, row) {
  return make("tr", {}, columns.map((column, n) =>
    make("td", {class: column.type === "text" ? "text" : "number", dir: column.type === "text" ? "auto" : null}, cellText(column, row[n]))));
}

function cellText(column, value) {
  if (value === null || value === undefined) return "-";
  if (column.type === "number") return formatNumber(value, column.digits);
  if (column.type === "interval") return `[${value.map((end) => formatNumber(end, column.digits)).join(", ")}]`;
  return value;
}

// Missing values come last in both directions.
function compareCells(one, other, ascending) {
  if (one === null || other === null) return (one === null) - (other === null);
  const [a, b] = [one, other].map((value) => (Array.isArray(value) ? value[0] : value));
  const result = typeof a === "string" ? a.localeCompare(b) : a - b;
  return ascending ? result : -result;
}
