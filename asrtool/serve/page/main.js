// Connects the parts of the page: the model, speaking and files.

import {sentence} from "./connection.js";
import {clearDelay, say, setStatus, showFigures, showNotice} from "./display.js";
import {LevelMeter} from "./level.js";
import {microphoneObstacle} from "./microphone.js";
import {Recording} from "./recording.js";
import {Speech} from "./speech.js";
import {Uploads} from "./uploads.js";
import {clock} from "./words.js";

const at = (id) => document.getElementById(id);
const LABELS = {idle: "Speak", opening: "Stop", speaking: "Stop", finishing: "Finishing"};

const page = {
  model: null,
  isWanted: false, // Speak was pressed before the model was known
  token: "", // in memory only
  speech: null,
  recordings: [],
  meter: new LevelMeter(at("level")),
};

const addressOf = (path) => new URL(path, document.baseURI);

function streamAddress() {
  const url = addressOf("v1/stream");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

// ----- the model -----

async function loadModel() {
  const headers = page.token ? {Authorization: `Bearer ${page.token}`} : {};
  try {
    const answer = await fetch(addressOf("v1/model"), {headers, cache: "no-store"});
    if (answer.status === 401) return askForToken();
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    showModel(await answer.json());
  } catch (problem) {
    page.isWanted = false;
    at("model").textContent = "No model yet.";
    showNotice(`The server did not answer (${problem.message}).`, "Try again", loadModel);
  }
}

function askForToken() {
  at("model").textContent = "This server asks for a token.";
  if (page.token) showNotice("The server does not accept this token.");
  page.token = "";
  page.isWanted = false;
  at("token-form").hidden = false;
  at("token").focus();
  setReady();
}

function showModel(model) {
  page.model = model;
  const latency = model.streams ? `words after ${formatNumber(model.latency_seconds, 2)} s of sound at the latest` : "whole recordings only";
  at("model").textContent = [model.name, `${model.method} search`, latency].join(" \u00b7 ");
  at("token-form").hidden = true;
  at("drop").hidden = !model.uploads;
  at("hotwords-box").hidden = !model.hotwords || !model.streams;
  if (model.streams) at("delay-note").textContent = `and up to ${formatNumber(model.chunk_seconds, 2)} s until a chunk is full`;
  at("privacy").textContent = model.keeps_audio
    ? "The sound goes to this server only, which keeps it: whoever runs it has chosen so."
    : "The sound goes to this server only, which recognises it and keeps none of it.";
  showNotice(null);
  setReady();
  if (page.isWanted) toggleSpeech();
  page.isWanted = false;
}

function obstacle() {
  if (!page.model) return "";
  if (page.model.streams) return microphoneObstacle();
  return `This model needs whole recordings and cannot follow speech${page.model.uploads ? "; choose a file" : ""}.`;
}

function setReady() {
  const reason = obstacle();
  at("speak").setAttribute("aria-disabled", String(reason !== null));
  at("files").disabled = !page.model;
  if (!reason) return;
  at("speak-hint").textContent = reason;
  at("speak-hint").dataset.kind = "obstacle";
}

// ----- recordings -----

function addRecording(name) {
  const recording = new Recording(name, page.model.method, {say, status: setStatus, removed: forget});
  page.recordings.push(recording);
  at("recordings").append(recording.node);
  showResults();
  if (!page.speech) recording.scrollToEnd();
  return recording;
}

function forget(recording) {
  uploads.remove(recording);
  if (page.speech?.recording === recording) page.speech.stop();
  page.recordings = page.recordings.filter((other) => other !== recording);
  showResults();
  at("speak").focus();
}

function showResults() {
  const isEmpty = !page.recordings.length;
  document.body.classList.toggle("has-results", !isEmpty);
  at("empty").hidden = !isEmpty;
  at("legend").hidden = isEmpty;
  at("clear").hidden = isEmpty;
}

function clearAll() {
  for (const recording of [...page.recordings]) recording.remove();
  setStatus("All transcripts were removed.");
}

// ----- speaking -----

function toggleSpeech() {
  if (at("speak").getAttribute("aria-disabled") === "true") {
    page.isWanted = !page.model;
    return;
  }
  if (page.speech) page.speech.stop();
  else startSpeech(addRecording(`Speech, ${new Date().toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"})}`));
}

async function startSpeech(recording) {
  showNotice(null);
  recording.resume();
  recording.scrollToEnd();
  clearDelay();
  page.meter.clear();
  const hotwords = at("hotwords").value.split("\n").map((line) => line.trim()).filter(Boolean);
  page.speech = new Speech(recording, streamAddress(), {hotwords: page.model.hotwords ? hotwords : [], token: page.token}, {
    state: setSpeechState,
    block: (level, seconds) => {
      page.meter.add(level);
      at("clock").textContent = clock(seconds);
    },
    result: showFigures,
    silent: (isSilent) => showNotice(isSilent ? "The microphone gives no sound at all; is it muted?" : null),
    warned: (warning) => showNotice(sentence(warning)),
    ended: (problem) => endSpeech(recording, problem),
  });
  await page.speech.start();
}

function setSpeechState(state) {
  at("speak").dataset.state = state;
  at("speak-label").textContent = LABELS[state];
  page.speech?.recording.setState({opening: "connecting", speaking: "listening", finishing: "finishing"}[state] ?? "");
  setStatus({speaking: "Listening.", finishing: "Finishing."}[state] ?? "");
}

function endSpeech(recording, problem) {
  page.speech = null;
  at("speak").dataset.state = "idle";
  at("speak-label").textContent = LABELS.idle;
  setStatus(problem ? "" : "Stopped.");
  if (!recording.seconds && problem) recording.remove();
  if (problem?.code === "unauthorized") return refuseToken(problem.message);
  if (problem) showNotice(problem.message, recording.seconds ? "Go on" : "Try again", () => goOn(recording));
}

function goOn(recording) {
  const isShown = page.recordings.includes(recording);
  at("speak").focus();
  if (!page.speech) startSpeech(isShown ? recording : addRecording(recording.name));
}

function refuseToken(message) {
  page.token = "";
  at("token-form").hidden = false;
  showNotice(message);
  at("token").focus();
}

// ----- files -----

const uploads = new Uploads(addressOf("v1/transcribe"), () => page.token, {
  figures: (seconds, computeSeconds) => showFigures({delay: null, seconds, computeSeconds}),
  refused: () => refuseToken("The server does not accept this token."),
});

function addFiles(files) {
  if (!page.model) return;
  if (!page.model.uploads) return showNotice("This server takes no files.");
  const limit = page.model.limits?.max_upload_mb;
  for (const file of files) {
    const recording = addRecording(file.name);
    if (limit && file.size > (1 << 20) * limit) {
      recording.fail(`The file has ${formatNumber(file.size / (1 << 20), 0)} MB; this server takes up to ${limit} MB.`);
      recording.setState("not sent");
    } else uploads.add(file, recording);
  }
}

function acceptDrops() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    addFiles(event.dataTransfer.files);
  });
}

// ----- start -----

// Escape stops. Space and Enter belong to the element with the focus, and to Speak if there is none.
function pressKey(event) {
  if (event.key === "Escape") {
    if (page.speech) page.speech.stop();
    else uploads.cancel();
  } else if ([" ", "Enter"].includes(event.key) && document.activeElement === document.body && !event.repeat) {
    event.preventDefault();
    toggleSpeech();
  }
}

function start() {
  document.querySelector("header").append(themeButton());
  at("speak").addEventListener("click", toggleSpeech);
  at("clear").addEventListener("click", clearAll);
  at("files").addEventListener("change", ({target}) => {
    addFiles([...target.files]);
    target.value = "";
  });
  at("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    page.token = at("token").value.trim();
    at("token").value = "";
    loadModel();
  });
  addEventListener("keydown", pressKey);
  acceptDrops();
  setReady();
  at("speak").focus();
  loadModel();
}

start();
