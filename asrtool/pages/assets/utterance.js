// Utterances: the words of the reference above the words of each hypothesis, the audio, and a spectrogram with labels.

const PIXELS_PER_SECOND = 180;

DRAW.utterances = ({caption, items, shown}) => {
  const list = make("div");
  const button = fold(list, items.length, shown, (n) => drawUtterance(items[n]), "utterances");
  return make("div", {}, make("h3", {}, caption), list, button);
};

function drawUtterance(item) {
  const node = make("article", {class: "utterance", "aria-label": `Utterance ${item.id}`}, make("h4", {}, item.id), make("div", {class: "soft"}, item.note));
  for (const hypothesis of item.hypotheses) node.append(...drawHypothesis(hypothesis));
  const audio = item.audio ? make("audio", {controls: true, preload: "none", src: item.audio, "aria-label": `Audio of ${item.id}`}) : null;
  if (audio) node.append(audio);
  if (item.spectrogram) node.append(drawStrip(item, audio));
  return node;
}

const MARK_NAMES = {S: "substitution", I: "insertion", D: "deletion"};

function errorMark([ref, hyp]) {
  if (ref === hyp) return "";
  return ref === "" ? "I" : hyp === "" ? "D" : "S";
}

function drawHypothesis({name, pairs, note}) {
  const join = (index) => pairs.map((pair) => pair[index]).filter(Boolean).join(" ");
  const spoken = make("p", {class: "unseen"}, `Reference: ${join(0)}. ${name || "Hypothesis"}: ${join(1)}.`);
  const cells = pairs.map((pair) => {
    const mark = errorMark(pair);
    return make("span", {class: `pair ${mark}`, title: MARK_NAMES[mark] || null},
      make("span", {class: "ref"}, pair[0] || "\u00a0"), make("span", {class: "hyp"}, pair[1] || "\u00a0"), make("span", {class: "mark"}, mark));
  });
  const head = name || note ? make("div", {class: "soft"}, [name, note].filter(Boolean).join(" \u00b7 ")) : null;
  return [head, spoken, make("div", {class: "words", dir: "auto", "aria-hidden": "true"}, cells)].filter(Boolean);
}

// The spectrogram, as wide as its time, above rows of labels at their times. A click plays from there.
function drawStrip({id, spectrogram}, audio) {
  const {image, seconds, tracks, top_hertz: top} = spectrogram;
  const share = (time) => `${((100 * time) / seconds).toFixed(3)}%`;
  const picture = make("img", {src: image, alt: `Spectrogram of ${id}, ${formatNumber(seconds, 2)} s, 0 to ${formatAny(top / 1000)} kHz`, draggable: "false"});
  const inside = make("div", {class: "inside"}, picture);
  inside.style.width = `max(100%, ${Math.round(seconds * PIXELS_PER_SECOND)}px)`;
  for (const {name, spans} of tracks) inside.append(drawTrack(name, spans, share));
  for (const [, begin] of tracks[0]?.spans ?? []) {
    const edge = make("div", {class: "edge"});
    edge.style.left = share(begin);
    inside.append(edge);
  }
  if (audio) followAudio(inside, picture, audio, seconds, share);
  const strip = make("div", {class: "strip", tabindex: "0", role: "group", "aria-label": `Spectrogram and units of ${id}`}, inside);
  const legend = tracks.length ? `Rows below it, from the top: ${tracks.map(({name}) => name).join("; ")}.` : "";
  return make("div", {}, withScrollHint(strip), make("div", {class: "soft"}, `${legend}${audio ? " A click on the spectrogram plays from there." : ""}`));
}

function drawTrack(name, spans, share) {
  const row = make("div", {class: "track", role: "group", "aria-label": name});
  for (const [label, begin, end] of spans) {
    const span = make("span", {title: `${label}: ${formatNumber(begin, 2)} to ${formatNumber(end, 2)} s (${name})`}, label);
    span.style.left = share(begin);
    span.style.width = share(end - begin);
    row.append(span);
  }
  return row;
}

function followAudio(inside, picture, audio, seconds, share) {
  const playhead = make("div", {class: "playhead", hidden: true});
  inside.append(playhead);
  const show = () => {
    playhead.hidden = false;
    playhead.style.left = share(Math.min(audio.currentTime, seconds));
    if (!audio.paused) requestAnimationFrame(show);
  };
  audio.addEventListener("play", show);
  audio.addEventListener("seeked", show);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const time = ((event.clientX - box.left) / box.width) * seconds;
    const play = () => { audio.currentTime = time; };
    if (audio.readyState > 0) play();
    else audio.addEventListener("loadedmetadata", play, {once: true});
    audio.play().catch(() => {}); // a browser that cannot decode it says so in its own player
  });
}
