// Draws the page from the data in the element #data.

function drawSection({name, title, intro, elements}) {
  const heading = make("h2", {id: `${name}-title`}, title);
  return make("section", {id: name, "aria-labelledby": `${name}-title`}, heading, intro ? make("p", {class: "note"}, intro) : null, elements.map(drawElement));
}

function drawPage({title, subtitle, sections, footer}) {
  const links = sections.map((section) => make("li", {}, make("a", {href: `#${section.name}`}, section.title)));
  document.body.append(
    make("header", {}, make("div", {}, make("h1", {}, title), make("p", {class: "note"}, subtitle)), themeButton()),
    make("nav", {"aria-label": "Sections"}, withScrollHint(make("ul", {}, links))),
    make("main", {}, sections.map(drawSection)),
    make("footer", {}, footer),
  );
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

drawPage(JSON.parse(document.getElementById("data").textContent));
