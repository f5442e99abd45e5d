"""Any recording as mono blocks at the rate of a model: files, pipes, file objects and arrays, in bounded memory."""

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import numpy as np

from asrtool.data.audio import FULL_SCALE, MAX_SAMPLE, describe_wrong_samples, regular_file
from asrtool.data.audio_decoders import ArrayDecoder, Decoder, open_decoder
from asrtool.data.audio_spool import is_pipe, spool, spool_pipe
from asrtool.data.resampling import StreamResampler
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.files import utf8_path

logger = logging.getLogger(__name__)

Channel = int | Literal["mix"]

MIN_MISSING_SECONDS = 0.1  # headers of compressed files count whole packets; less is not worth a warning
SILENT_PEAK = 10 ** (-80 / 20)  # of full scale: below the noise of 16-bit microphones; no speech is that quiet
CLIPPED_SHARE = 1e-3  # of the samples; speech that is only loud reaches full scale far more rarely


def open_recording(
    source: str | Path | BinaryIO | np.ndarray, rate_of_array: int | None = None, name: str | None = None
) -> "AudioRecording":
    """Returns a recording from a file, a named pipe, a binary file object or an array.

    source: a path; a file object, which is read to its end; or samples (n,) or (n, channels), floating-point within -1
    and 1, int16 or int32, with their rate in `rate_of_array`, in Hz. name: what messages call it.

    Raises InvalidEntry for audio that cannot be read, and UserError for an array that is not audio.
    """
    spooled: IO[bytes] | None = None
    if isinstance(source, str | os.PathLike):
        name = name or str(source)
        if is_pipe(source):
            spooled = spool_pipe(source)
    elif not isinstance(source, np.ndarray) and hasattr(source, "read"):
        name = name or str(getattr(source, "name", "the file object"))
        spooled = spool(source, name)
    else:
        return AudioRecording(ArrayDecoder(np.asarray(source), rate_of_array), name or "array")
    return _open_file(spooled.name if spooled else str(source), name, spooled)


def _open_file(path: str, name: str, spooled: IO[bytes] | None) -> "AudioRecording":
    try:
        _require_content(path)
        return AudioRecording(open_decoder(path), name, spooled)
    except InvalidEntry as problem:
        if spooled:
            spooled.close()
        raise InvalidEntry(str(problem).replace(path, name)) from problem


def _require_content(path: str) -> None:
    if os.path.isdir(path):
        raise InvalidEntry(f"a folder, not an audio file: {path}")
    regular_file(path)
    try:
        with open(path, "rb") as file:
            if file.seek(0, io.SEEK_END) == 0:
                raise InvalidEntry(f"empty, 0 bytes: {path}")
    except OSError as error:
        raise InvalidEntry(f"not readable: {path} ({error.strerror})") from error


class AudioRecording:
    """A recording that can be read as often as needed, in blocks.

    sampling_rate: Hz. channels: their number. seconds: the length by the header, None where it has none (some media
    containers). missing_seconds: how much of that length could not be read, known after `blocks` has ended.
    """

    def __init__(self, decoder: Decoder, name: str, spooled: IO[bytes] | None = None):
        self.name = name
        self.sampling_rate = decoder.rate
        self.channels = decoder.channels
        self.seconds = decoder.seconds
        self.missing_seconds = 0.0
        self._decoder = decoder
        self._spooled = spooled  # the temporary file is removed with this object

    def blocks(self, target_rate: int, channel: Channel = "mix") -> Iterator[np.ndarray]:
        """Yields mono blocks (n,) float32 at `target_rate`, in Hz: sample n is at n / target_rate seconds.

        channel: one channel, counted from 0, or "mix" for the mean of all. The sum of all n is the length of the
        recording in samples at `target_rate`, rounded.

        Raises InvalidEntry for a channel that is not there and for samples that are not audio. A recording that ends
        early, is silent or clipped is read as it is, with a warning at its end.
        """
        self._require_channel(channel)
        resampler = StreamResampler(self.sampling_rate, target_rate)
        meter = _LevelMeter()
        for block in self._read_checked():
            mono = block.mean(axis=1) if channel == "mix" else block[:, channel]  # (n, channels) -> (n,)
            meter.accept(mono)
            if len(output := resampler.accept(mono)):
                yield output
        if len(output := resampler.finish()):
            yield output
        self._warn_of_the_end(meter)

    def _require_channel(self, channel: Any) -> None:
        if channel == "mix":
            return
        if not isinstance(channel, int) or channel < 0:
            raise UserError(f"channel {channel} is neither mix nor a number from 0 on")
        if channel >= self.channels:
            available = "one channel, 0" if self.channels == 1 else f"channels 0 to {self.channels - 1}"
            raise InvalidEntry(f"no channel {channel}: {self.name} has {available}")

    def _read_checked(self) -> Iterator[np.ndarray]:
        """Yields the decoder's blocks (n, channels). Raises InvalidEntry for samples that are not audio."""
        position = 0
        try:
            for block in self._decoder.read():
                wrong = np.flatnonzero(~(np.abs(block) <= MAX_SAMPLE).all(axis=1))  # NaN counts as wrong
                if len(wrong):
                    seconds = (position + wrong[0]) / self.sampling_rate
                    raise InvalidEntry(f"{describe_wrong_samples(block[wrong], seconds)}: {self.name}")
                position += len(block)
                yield block
        except InvalidEntry as problem:
            path = self._spooled.name if self._spooled else self.name
            raise InvalidEntry(str(problem).replace(path, self.name)) from problem
        if position == 0:
            raise InvalidEntry(f"no samples: {self.name}")
        seconds = position / self.sampling_rate
        self.missing_seconds = max(0.0, (self.seconds or 0.0) - seconds)

    def _warn_of_the_end(self, meter: "_LevelMeter") -> None:
        name = utf8_path(self.name)
        if self.missing_seconds > MIN_MISSING_SECONDS:
            end = (self.seconds or 0.0) - self.missing_seconds
            logger.warning(
                f"truncated: {name} ends at {end:.1f} s, {self.missing_seconds:.1f} s before its header says"
            )
        if meter.peak < SILENT_PEAK:
            hint = "; if channels cancel each other, choose one with --channel" if self.channels > 1 else ""
            logger.warning(f"silent: {name} has no sample above {SILENT_PEAK:g} of full scale{hint}")
        elif meter.clipped_share > CLIPPED_SHARE:
            share = 100 * meter.clipped_share
            logger.warning(f"clipped: {share:.1f} % of the samples of {name} are at full scale; more errors are likely")


class _LevelMeter:
    """Peak and clipped samples of a recording."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._clipped = 0
        self._samples = 0

    def accept(self, samples: np.ndarray) -> None:
        magnitude = np.abs(samples)
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(magnitude >= FULL_SCALE))
        self._samples += len(samples)

    @property
    def clipped_share(self) -> float:
        return self._clipped / max(1, self._samples)
