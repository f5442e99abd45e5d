// The microphone as blocks of 16-bit PCM, at the rate of the browser's audio output.

import {UNREACHABLE} from "./connection.js";

// The processing of telephone calls is off. Models are trained on recordings as they are, noise suppression takes soft
// words for noise, and nothing is played here that could echo.
const CONSTRAINTS = {channelCount: {ideal: 1}, echoCancellation: false, noiseSuppression: false, autoGainControl: false};

const OBSTACLES = {
  NotAllowedError: "The browser does not let this page use the microphone; allow it in the settings of this site and press Speak again.",
  SecurityError: "The browser does not let this page use the microphone; allow it in the settings of this site and press Speak again.",
  NotFoundError: "This device has no microphone; connect one and press Speak again.",
  NotReadableError: "Another program uses the microphone; close it there and press Speak again.",
};

// Why no microphone can be opened by this page at all; null if one can.
export function microphoneObstacle() {
  if (window.isSecureContext && navigator.mediaDevices) return null;
  return "Browsers give the microphone only to pages over https or from localhost; ask for this page in one of these ways.";
}

// Opens the microphone: onBlock(samples, level) gets Int16Arrays, onLost is called when it is unplugged or taken away.
// Resolves to {rate, stop}; stop() resolves when the last block was given. Rejects with an Error to show.
export async function openMicrophone(onBlock, onLost) {
  const media = await askForMicrophone();
  const context = new AudioContext();
  try {
    await loadCapture(context);
    const node = connectCapture(context, media);
    const hasEnded = new Promise((resolve) => {
      node.port.onmessage = ({data}) => (data ? onBlock(data.samples, data.level) : resolve());
    });
    media.getAudioTracks()[0].addEventListener("ended", onLost);
    await context.resume();
    return {rate: context.sampleRate, stop: () => closeMicrophone(context, media, node, hasEnded)};
  } catch (problem) {
    release(context, media);
    const message = problem.message === UNREACHABLE ? UNREACHABLE : `The browser cannot read the microphone: ${problem.message}`;
    throw new Error(message, {cause: problem});
  }
}

async function askForMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({audio: CONSTRAINTS});
  } catch (problem) {
    throw new Error(OBSTACLES[problem.name] ?? `The browser cannot open the microphone: ${problem.message}`, {cause: problem});
  }
}

// The one step that needs the server.
async function loadCapture(context) {
  try {
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
  } catch (problem) {
    throw new Error(UNREACHABLE, {cause: problem});
  }
}

function connectCapture(context, media) {
  const node = new AudioWorkletNode(context, "capture", {numberOfOutputs: 1});
  context.createMediaStreamSource(media).connect(node);
  node.connect(context.destination); // silence; some browsers run only what leads to an output
  return node;
}

async function closeMicrophone(context, media, node, hasEnded) {
  node.port.postMessage("end");
  const isLate = new Promise((resolve) => setTimeout(resolve, 500)); // a context that the system has stopped never answers
  await Promise.race([hasEnded, isLate]);
  release(context, media);
}

function release(context, media) {
  for (const track of media.getTracks()) track.stop();
  context.close();
}
