"""The speech detectors that can be chosen by name."""

import numpy as np

from asrtool.data.speech_detection import SpeechDetector, create_detector, energy_detector, silero_detector
from asrtool.errors import UserError

VAD_NAMES = ("auto", "silero", "energy", "none")


def open_detector(name: str) -> SpeechDetector:
    """Returns a detector: "silero", "energy", "none" (all audio is speech), or "auto" for the best one installed.

    Raises UserError for another name, and for "silero" where it is not installed.
    """
    if name == "auto":
        return create_detector()
    if name == "energy":
        return energy_detector()
    if name == "none":
        return SpeechDetector("none", _EverythingIsSpeech)
    if name != "silero":
        raise UserError(f"{name!r} is not a speech detector; give one of {', '.join(VAD_NAMES)}")
    try:
        return silero_detector()
    except ImportError as error:
        raise UserError("silero-vad is not installed; pip install 'asrtool[audio]', or choose energy") from error


class _EverythingIsSpeech:
    """A stream in which every window is speech."""

    def accept(self, windows: np.ndarray) -> np.ndarray:
        """Returns probabilities of one (n,) for windows (n, samples)."""
        return np.ones(len(windows), np.float32)

    def finish(self) -> np.ndarray:
        """Returns no further probabilities."""
        return np.zeros(0, np.float32)
