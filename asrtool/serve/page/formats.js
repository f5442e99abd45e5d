// Transcripts as files. A recording has a name, seconds, a method, and utterances of words with times in seconds.

const MAX_COLUMNS = 42; // of a line of a subtitle, which has two; asrtool/inference/subtitles.py
const MAX_SECONDS = 7;
const PAUSE = 0.5; // seconds between two words that no subtitle goes over
const MIN_SECONDS = 1;

export const FORMATS = {
  txt: {label: "Text", media: "text/plain", write: plainText},
  srt: {label: "SRT", media: "application/x-subrip", write: subRip},
  vtt: {label: "VTT", media: "text/vtt", write: webVtt},
  json: {label: "JSON", media: "application/json", write: jsonText},
};

export function joined(words) {
  return words.map((word) => word.text).join(" ");
}

export function plainText(recording) {
  return recording.utterances.map(({words}) => `${joined(words)}\n`).join("");
}

// The keys of `asrtool transcribe --format json`.
function jsonText({name, seconds, method, utterances}) {
  const segments = utterances.map(({start, end, confidence, words}) => ({start, end, text: joined(words), confidence: confidence ?? null, words}));
  const text = segments.map((segment) => segment.text).join(" ");
  return `${JSON.stringify({recording: name, seconds, channel: null, method, text, segments}, null, 2)}\n`;
}

function subRip(recording) {
  return cues(recording).map(({start, end, lines}, n) => `${n + 1}\n${stamp(start, ",")} --> ${stamp(end, ",")}\n${lines.join("\n")}\n\n`).join("");
}

function webVtt(recording) {
  const escaped = (line) => line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `WEBVTT\n\n${cues(recording).map(({start, end, lines}) => `${stamp(start, ".")} --> ${stamp(end, ".")}\n${lines.map(escaped).join("\n")}\n\n`).join("")}`;
}

// hh:mm:ss,mmm
export function stamp(seconds, mark) {
  const total = Math.round(1000 * seconds);
  const part = (size, count, digits) => String(Math.floor(total / size) % count).padStart(digits, "0");
  return `${part(3600000, 1e6, 2)}:${part(60000, 60, 2)}:${part(1000, 60, 2)}${mark}${part(1, 1000, 3)}`;
}

// Subtitles of at most two lines, each of which ends at a pause, at the end of an utterance, or when it is full.
export function cues({utterances}) {
  const groups = [];
  for (const {words} of utterances) {
    let group = null;
    for (const word of words) {
      if (!group || !fits(group, word)) groups.push((group = []));
      group.push(word);
    }
  }
  return groups.map((words, n) => cue(words, groups[n + 1]?.[0].start ?? Infinity));
}

function fits(group, word) {
  return word.start - group.at(-1).end < PAUSE && word.end - group[0].start <= MAX_SECONDS && lines([...group, word]).length <= 2;
}

function cue(words, following) {
  const start = words[0].start;
  const end = Math.max(words.at(-1).end, start + MIN_SECONDS);
  return {start, end: Math.max(start, Math.min(end, following)), lines: lines(words)};
}

function lines(words) {
  const result = [""];
  for (const {text} of words) {
    const line = result.at(-1);
    if (line && columns(line) + 1 + columns(text) > MAX_COLUMNS) result.push(text);
    else result[result.length - 1] = line ? `${line} ${text}` : text;
  }
  return result;
}

const WITHOUT_WIDTH = /[\p{Mn}\p{Me}\p{Cf}]/u; // marks over, under and around a letter, and what is not shown
const HALFWIDTH = /[\uff61-\uffdc]/;
const WIDE = /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\u3000-\u303e\uff01-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;

// The columns of a text, about as asrtool/text/display_width.py counts them.
export function columns(text) {
  let sum = 0;
  for (const character of text) {
    if (!WITHOUT_WIDTH.test(character)) sum += WIDE.test(character) && !HALFWIDTH.test(character) ? 2 : 1;
  }
  return sum;
}

// Lets the browser save a text as a file.
export function download(name, text, media) {
  const url = URL.createObjectURL(new Blob([text], {type: `${media};charset=utf-8`}));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
