"""Speech probabilities of a recording, window by window: by silero-vad, or by energy where it is not installed.

A detector is created once; `stream` begins a recording. Both work at RATE on windows of WINDOW samples.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

logger = logging.getLogger(__name__)

# Hz. Audio of 8 kHz is resampled for it: of the windows that have more than 0.5 at 16 kHz, 0.10 % then have less than
# 0.1, and 0.03 % with the network of silero-vad for 8 kHz (11 minutes of read speech), too few for a second network.
RATE = 16_000
WINDOW = 512  # samples, 32 ms: what silero-vad was trained on
CONTEXT = 64  # samples before each window that its network sees as well

NOISE_SECONDS = 10.0  # the noise floor is the minimum over this past: speakers pause within it
LOOK_AHEAD_SECONDS = 3.0  # and over this future, since a recording may begin with speech
SMOOTHING_WINDOWS = 3  # 96 ms: single windows of noise may be quiet by chance, and the floor is a minimum
MIN_POWER = 1e-9  # -90 dB of full scale: digital silence is not a noise floor
SPEECH_DB = 10.0  # above the floor: a probability of 1/2; the averages of steady noise stay far below it
SLOPE_DB = 2.0  # of the logistic function


class SpeechStream(Protocol):
    """The speech probabilities of one recording. They may come later than their windows, but in order."""

    def accept(self, windows: np.ndarray) -> np.ndarray:
        """Returns further probabilities (m,) after further windows (n, WINDOW) float32 at RATE."""
        ...

    def finish(self) -> np.ndarray:
        """Returns the probabilities (m,) of all windows that were accepted and not returned."""
        ...


class SpeechDetector:
    """Creates streams of speech probabilities. name: "silero-vad" or "energy"."""

    def __init__(self, name: str, stream: Callable[[], SpeechStream]):
        self.name = name
        self.stream = stream


def create_detector() -> SpeechDetector:
    """Returns silero-vad, or the energy detector, with a log line, where the package is not installed."""
    try:
        return silero_detector()
    except ImportError:
        logger.warning("silero-vad is not installed: pauses are detected by energy; pip install 'asrtool[audio]'")
        return energy_detector()


def energy_detector() -> SpeechDetector:
    """Returns the detector that compares the energy with an adaptive noise floor. It needs a quiet background."""
    return SpeechDetector("energy", EnergyStream)


def silero_detector() -> SpeechDetector:
    """Returns the detector of silero-vad, by ONNX Runtime where it is installed (five times as fast), else by torch.

    Raises ImportError without silero-vad.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        import silero_vad  # at import, it sets the threads of torch to one, for the whole process
    finally:
        torch.set_num_threads(threads)
    try:
        model = silero_vad.load_silero_vad(sequence=True, sampling_rate=RATE)
    except (ImportError, TypeError):  # without onnxruntime, or a version before 6.2
        return SpeechDetector("silero-vad", lambda: _TorchStream(silero_vad.load_silero_vad()))
    return SpeechDetector("silero-vad", lambda: _OnnxStream(model.session))


class _OnnxStream:
    """The network of silero-vad on many windows in one call; the state of its LSTM is kept between calls."""

    def __init__(self, session: Any):
        self._session = session
        self._context = np.zeros((1, CONTEXT), np.float32)
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = np.zeros((1, 1, 128), np.float32)

    def accept(self, windows: np.ndarray) -> np.ndarray:
        if not len(windows):
            return np.zeros(0, np.float32)
        contexts = np.concatenate([self._context, windows[:, -CONTEXT:]])  # (n + 1, CONTEXT)
        self._context = contexts[-1:]
        inputs = {"input": np.concatenate([contexts[:-1], windows], axis=1), "h": self._hidden, "c": self._cell}
        outputs = ["speech_probs", "hn", "cn"]
        probabilities, self._hidden, self._cell = self._session.run(outputs, inputs)
        return probabilities.reshape(-1)

    def finish(self) -> np.ndarray:
        return np.zeros(0, np.float32)


class _TorchStream:
    """The same network as a TorchScript module, which keeps its state itself and takes one window a call."""

    def __init__(self, model: Any):
        self._model = model
        self._model.reset_states()

    def accept(self, windows: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            outputs = [self._model(window, RATE).item() for window in torch.from_numpy(windows).split(1)]
        return np.array(outputs, np.float32)

    def finish(self) -> np.ndarray:
        return np.zeros(0, np.float32)


class EnergyStream:
    """The logistic function of the energy above the noise floor, in dB.

    The floor is the minimum of the smoothed energy over NOISE_SECONDS of the past and LOOK_AHEAD_SECONDS of the future
    (minimum statistics: Martin, IEEE Transactions on Speech and Audio Processing 9(5), 2001, without its bias
    correction): it follows a changing background. Loud steady noise is taken for speech until the past has it, and a
    whisper far below the noise for a pause.
    """

    def __init__(self) -> None:
        self._past = round(NOISE_SECONDS * RATE / WINDOW)
        self._future = round(LOOK_AHEAD_SECONDS * RATE / WINDOW)
        self._levels = np.zeros(0)  # dB, of the past and of windows without a probability yet
        self._pending = 0  # of these, how many have none yet
        self._powers = np.zeros(0)  # of the last windows, for the smoothing

    def accept(self, windows: np.ndarray) -> np.ndarray:
        self._levels = np.concatenate([self._levels, self._smoothed_levels(windows)])
        self._pending += len(windows)
        return self._probabilities(self._pending - self._future)

    def finish(self) -> np.ndarray:
        return self._probabilities(self._pending)

    def _smoothed_levels(self, windows: np.ndarray) -> np.ndarray:
        """Returns the mean power of each window and those before it, in dB (n,)."""
        powers = np.concatenate([self._powers, np.mean(windows.astype(np.float64) ** 2, axis=1)])
        first = len(self._powers)
        self._powers = powers[max(0, len(powers) - SMOOTHING_WINDOWS + 1) :]
        sums = np.concatenate([[0.0], np.cumsum(powers)])
        ends = np.arange(first + 1, len(powers) + 1)
        begins = np.maximum(0, ends - SMOOTHING_WINDOWS)
        return 10 * np.log10(np.maximum((sums[ends] - sums[begins]) / (ends - begins), MIN_POWER))

    def _probabilities(self, count: int) -> np.ndarray:
        """Returns the probabilities of the next `count` windows, and forgets levels that no later window needs."""
        if count <= 0:
            return np.zeros(0, np.float32)
        first = len(self._levels) - self._pending
        floors = [
            self._levels[max(0, window - self._past) : window + self._future + 1].min()
            for window in range(first, first + count)
        ]
        above = self._levels[first : first + count] - np.array(floors)
        self._pending -= count
        self._levels = self._levels[max(0, first + count - self._past) :]
        return (1 / (1 + np.exp((SPEECH_DB - above) / SLOPE_DB))).astype(np.float32)
