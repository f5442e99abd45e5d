"""A stand-in for the package sounddevice with one microphone, which plays a WAV file from a thread of its own.

The variable STAND_IN_MICROPHONE holds a JSON object. wav: the file. then: what happens after it, "interrupt" (Ctrl-C),
"terminate" (SIGTERM), "unplug", "nothing", or "silence" until the stream is closed, faster than it can be recognised.
overflows: numbers of callbacks that report an overflow. pause: seconds between callbacks. refuse: the message with
which the device cannot be opened.
"""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import soundfile

SIZES = (441, 17, 1024, 1, 333)  # samples of the callbacks, in turn
DEVICES = [
    {"index": 0, "name": "Speaker", "hostapi": 0, "max_input_channels": 0, "default_samplerate": 44100.0},
    {"index": 1, "name": "USB microphone", "hostapi": 0, "max_input_channels": 1, "default_samplerate": 44100.0},
    {"index": 2, "name": "USB camera", "hostapi": 0, "max_input_channels": 2, "default_samplerate": 44100.0},
]


class PortAudioError(Exception):
    """As in sounddevice."""


def _settings():
    return json.loads(os.environ["STAND_IN_MICROPHONE"])


def query_hostapis():
    return [{"name": "Stand-in"}]


def query_devices(device=None, kind=None):
    """Returns all devices, or one of them, as sounddevice does."""
    if device is None and kind is None:
        return DEVICES
    if isinstance(device, str):
        found = [one for one in DEVICES if device.lower() in one["name"].lower() and one["max_input_channels"]]
        if len(found) != 1:
            many = "Multiple input devices found for {!r}:\n[1] USB microphone\n[2] USB camera"
            raise ValueError((many if found else "No input device matching {!r}").format(device))
        return found[0]
    number = 1 if device is None else device
    if number >= len(DEVICES):
        raise PortAudioError(f"Error querying device {number}")
    if not DEVICES[number]["max_input_channels"]:
        raise ValueError(f"Not an input device: {DEVICES[number]['name']!r}")
    return DEVICES[number] | {"default_samplerate": float(soundfile.info(_settings()["wav"]).samplerate)}


class InputStream:
    """Calls `callback` with pieces of the file, in memory that is overwritten afterwards, as PortAudio's is."""

    def __init__(self, *, device, samplerate, channels, dtype, callback, finished_callback):
        self.settings = _settings()
        if "refuse" in self.settings:
            raise PortAudioError(self.settings["refuse"])
        self.samples, self.rate = soundfile.read(self.settings["wav"], dtype=dtype)
        assert (self.rate, channels, self.samples.ndim) == (samplerate, 1, 1)
        assert DEVICES[device]["max_input_channels"]
        self.callback, self.finished_callback = callback, finished_callback
        self.is_closed = threading.Event()
        self.thread = threading.Thread(target=self._play)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_closed.set()
        self.thread.join()
        self.finished_callback()

    def _play(self):
        first = number = 0
        while first < len(self.samples):
            size = SIZES[number % len(SIZES)]
            self._call(self.samples[first : first + size], number in self.settings.get("overflows", ()))
            first, number = first + size, number + 1
            time.sleep(self.settings.get("pause", 0))
        self._end(self.settings["then"])

    def _call(self, samples, has_overflow=False):
        memory = samples[:, None].copy()  # (n, 1)
        self.callback(memory, len(memory), None, SimpleNamespace(input_overflow=has_overflow))
        memory[:] = np.nan

    def _end(self, how):
        if how in ("interrupt", "terminate"):
            os.kill(os.getpid(), signal.SIGINT if how == "interrupt" else signal.SIGTERM)
        elif how == "unplug":
            self.finished_callback()
        while how == "silence" and not self.is_closed.wait(0.01):
            self._call(np.zeros(2 * self.rate, np.float32))
