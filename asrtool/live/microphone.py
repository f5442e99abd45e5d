"""The microphone as a source of live audio: a thread of PortAudio records, recognition follows."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from asrtool.data.audio_blocks import SILENT_PEAK
from asrtool.errors import UserError
from asrtool.live.input_devices import find_device, open_sounddevice

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2  # between two looks whether Ctrl-C was pressed
DEAD_SECONDS = 5.0  # without audio: devices deliver some every few milliseconds, Bluetooth begins after seconds
SILENT_SECONDS = 3.0  # of digital silence at the beginning before a warning; a room is never that quiet
BEHIND_SECONDS = 2.0  # of audio that waits for recognition before a warning; live text that late is of little use
MAX_BEHIND_SECONDS = 600.0  # recognition that slow never catches up; the audio takes 115 MB at 48 kHz

HINT_SPEED = "try --method greedy, a smaller --beam or more --threads"

Warn = Callable[[str], None]


class Microphone:
    """An input device, recorded at its own sampling rate, on its first channel, while `pieces` is read.

    No audio is lost while recognition takes longer: it waits in a queue. device: a number, a part of a name, or None
    for the system's default. Raises UserError if it cannot be used.
    """

    ends_by_itself = False

    def __init__(self, device: str | None = None):
        self._sounddevice = open_sounddevice()
        found = find_device(self._sounddevice, device)
        self.name: str = found["name"]
        self.rate = round(found["default_samplerate"])
        self.problem: UserError | None = None
        self._index: int = found["index"]
        self._arrived: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._num_recorded = 0  # samples; PortAudio's thread counts them, and those of `_arrived` that were taken
        self._num_taken = 0
        self._num_overflows = 0
        self._has_ended = threading.Event()  # the device, by itself

    def pieces(self, is_stopped: Callable[[], bool], warn: Warn) -> Iterator[np.ndarray]:
        """Records and yields samples (n,) float32; sets `problem` if the device fails, or recognition is too slow."""
        watch = _Watch(self.name, self.rate, warn)
        try:
            stream = self._open()
        except self._sounddevice.PortAudioError as error:
            self.problem = UserError(f"the microphone {self.name!r} cannot record at {self.rate} Hz: {error}")
            return
        with stream:
            logger.info(f"listening to {self.name!r} at {self.rate} Hz; Ctrl-C ends the recording")
            for recorded in self._while_recording(is_stopped):
                watch.check(recorded, self.seconds_behind, self._num_overflows)
                yield recorded
        watch.check_rest(self.seconds_behind)
        while (piece := self._next()) is not None:
            watch.check(piece, self.seconds_behind, self._num_overflows)
            yield piece
        watch.finish(self._num_overflows)

    @property
    def seconds_behind(self) -> float:
        """The recorded audio that waits for recognition, in seconds."""
        return (self._num_recorded - self._num_taken) / self.rate

    def _open(self) -> Any:
        return self._sounddevice.InputStream(
            device=self._index,
            samplerate=self.rate,
            channels=1,
            dtype="float32",
            callback=self._record,
            finished_callback=self._has_ended.set,
        )

    def _record(self, samples: np.ndarray, _count: int, _time: Any, status: Any) -> None:
        """Takes samples (n, 1) in PortAudio's thread, which may not wait; their memory is PortAudio's."""
        if status.input_overflow:
            self._num_overflows += 1
        self._num_recorded += len(samples)
        self._arrived.put(samples[:, 0].copy())

    def _while_recording(self, is_stopped: Callable[[], bool]) -> Iterator[np.ndarray]:
        """Yields what arrives until `is_stopped` returns True; sets `problem` if it must end before."""
        last_time = time.monotonic()
        while not is_stopped():
            if self.seconds_behind > MAX_BEHIND_SECONDS:
                self.problem = UserError(self._describe_overload())
                return
            piece = self._next(POLL_SECONDS)
            if piece is not None:
                yield piece
                last_time = time.monotonic()
            elif self._has_ended.is_set() or time.monotonic() - last_time > DEAD_SECONDS:
                after = f"after {self._num_recorded / self.rate:.1f} s"
                self.problem = UserError(f"the microphone {self.name!r} stopped {after}; is it unplugged?")
                return

    def _describe_overload(self) -> str:
        late = f"recognition was more than {MAX_BEHIND_SECONDS:.0f} s behind the microphone"
        return f"recording stopped at {self._num_recorded / self.rate:.1f} s, since {late}; {HINT_SPEED}"

    def _next(self, wait_seconds: float = 0.0) -> np.ndarray | None:
        """Returns samples (n,) that have arrived, or None."""
        try:
            piece = self._arrived.get(timeout=wait_seconds) if wait_seconds else self._arrived.get_nowait()
        except queue.Empty:
            return None
        self._num_taken += len(piece)
        return piece


class _Watch:
    """Warnings about a microphone, each once."""

    def __init__(self, name: str, rate: int, warn: Warn):
        self.name = name
        self.rate = rate
        self.warn = warn
        self.num_samples = 0
        self.is_silent = True  # until now
        self.is_behind = False
        self.has_overflow = False

    def check(self, piece: np.ndarray, seconds_behind: float, num_overflows: int) -> None:
        """Warns of silence, of recognition that is too slow, and of audio that the device has lost."""
        self._check_silence(piece)
        if seconds_behind > BEHIND_SECONDS and not self.is_behind:
            self.is_behind = True
            effect = "results come late, but no audio is lost"
            self.warn(f"recognition is {seconds_behind:.1f} s behind the microphone; {effect}; {HINT_SPEED}")
        if num_overflows and not self.has_overflow:
            self.has_overflow = True
            seconds = self.num_samples / self.rate
            self.warn(f"input overflow near {seconds:.1f} s: the machine is so busy that the device has lost audio")

    def _check_silence(self, piece: np.ndarray) -> None:
        before = self.num_samples
        self.num_samples += len(piece)
        self.is_silent &= bool(np.abs(piece).max(initial=0.0) < SILENT_PEAK)
        if self.is_silent and before < SILENT_SECONDS * self.rate <= self.num_samples:
            reason = "is it muted, or may this program not use it?"
            self.warn(f"the microphone {self.name!r} gives nothing but silence: {reason}")

    def check_rest(self, seconds_behind: float) -> None:
        """Says how much audio is recognised after the recording, if that takes a while."""
        if seconds_behind > BEHIND_SECONDS:
            self.is_behind = True
            self.warn(f"{seconds_behind:.1f} s of recorded audio are still to recognise (Ctrl-C leaves them out)")

    def finish(self, num_overflows: int) -> None:
        """Says how often the device has lost audio, if more than once."""
        if num_overflows > 1:
            self.warn(f"input overflow: the device lost audio {num_overflows} times in all")
