"""Raw PCM: interleaved little-endian samples without a header, out of bytes that arrive in pieces of any size."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from asrtool.data.audio import MAX_RATE, MAX_SAMPLE, MIN_RATE, describe_wrong_samples
from asrtool.data.audio_decoders import MAX_CHANNELS
from asrtool.errors import UserError

SAMPLE_TYPES: dict[str, np.dtype[Any]] = {  # by FFmpeg's names
    "s16le": np.dtype("<i2"),
    "s32le": np.dtype("<i4"),
    "f32le": np.dtype("<f4"),
}
# The first bytes of audio and video files; raw samples begin with one of them by chance once in 100 million streams
FILE_SIGNATURES = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b"ID3\3", b"ID3\4", b"\x1a\x45\xdf\xa3")
MP4_SIGNATURE = b"ftyp"  # after four bytes
SIGNATURE_BYTES = 8
FILE_PROBLEM = "the audio begins with the header of a file, and is not raw PCM; send the samples of the file alone"


@dataclass(frozen=True)
class PcmFormat:
    """Sampling rate in Hz, a name of SAMPLE_TYPES, and the number of channels. Raises UserError for other values."""

    rate: int
    sample_type: str = "s16le"
    channels: int = 1

    def __post_init__(self) -> None:
        if self.sample_type not in SAMPLE_TYPES:
            raise UserError(f"{self.sample_type!r} is not a PCM format; give one of {', '.join(SAMPLE_TYPES)}")
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise UserError(f"a sampling rate of {self.rate} Hz is not one of audio; give {MIN_RATE} to {MAX_RATE}")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UserError(f"{self.channels} channels are not possible; give 1 to {MAX_CHANNELS}")

    @property
    def frame_bytes(self) -> int:
        """The bytes of one sample of all channels."""
        return SAMPLE_TYPES[self.sample_type].itemsize * self.channels


def parse_pcm_format(text: str) -> PcmFormat:
    """Returns the format that RATE[:TYPE[:CHANNELS]] stands for, such as 16000 or 48000:f32le:2. Raises UserError."""
    rate, *rest = text.split(":")
    channels = rest[1] if len(rest) == 2 else "1"
    if len(rest) > 2 or not _is_number(rate) or not _is_number(channels):
        raise UserError(f"{text!r} is not a PCM format; give RATE[:TYPE[:CHANNELS]], such as 16000 or 48000:f32le:2")
    return PcmFormat(int(rate), rest[0] if rest else "s16le", int(channels))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


class PcmDecoder:
    """Turns the bytes of one stream into samples. A piece may end within a sample; the next one continues it."""

    def __init__(self, format: PcmFormat, file_problem: str = FILE_PROBLEM):
        """`file_problem` is the message for an audio file, which is not raw PCM."""
        self.format = format
        self._file_problem = file_problem
        self._rest = b""  # the beginning of a sample
        self._start = b""  # the first SIGNATURE_BYTES of the stream
        self._num_samples = 0  # of each channel

    def accept(self, data: bytes) -> np.ndarray:
        """Returns the samples (n, channels) that `data` completes, int16, int32 or float32, read-only; n may be 0.

        Raises UserError for an audio file, and for floats that are not audio: not finite, or far beyond -1 .. 1.
        """
        self._require_raw(data)
        data = self._rest + data
        count = len(data) // self.format.frame_bytes
        self._rest = data[count * self.format.frame_bytes :]
        stored = SAMPLE_TYPES[self.format.sample_type]
        samples = np.frombuffer(data, stored, count * self.format.channels).reshape(count, self.format.channels)
        self._require_audio(samples)
        self._num_samples += len(samples)
        return samples.astype(stored.newbyteorder("="), copy=False)

    def finish(self) -> None:
        """Ends the stream. Raises UserError if bytes remain that are less than one sample of all channels."""
        if self._rest:
            format = f"{self.format.sample_type}, {self.format.channels} channel{'s' * (self.format.channels > 1)}"
            rest = f"{len(self._rest)} of the {self.format.frame_bytes} bytes of a sample ({format})"
            raise UserError(f"raw PCM ends within a sample, after {rest}; is it of another format?")

    def _require_raw(self, data: bytes) -> None:
        """Raises UserError if the bytes so far are the first ones of an audio file, which would be read as noise."""
        if len(self._start) == SIGNATURE_BYTES:
            return
        self._start += data[: SIGNATURE_BYTES - len(self._start)]
        if self._start.startswith(FILE_SIGNATURES) or self._start[4:] == MP4_SIGNATURE:
            raise UserError(self._file_problem)

    def _require_audio(self, samples: np.ndarray) -> None:
        if samples.dtype.kind != "f":
            return
        wrong = np.flatnonzero(~(np.abs(samples) <= MAX_SAMPLE).all(axis=1))  # NaN counts as wrong
        if len(wrong):
            problem = describe_wrong_samples(samples[wrong], (self._num_samples + wrong[0]) / self.format.rate)
            raise UserError(f"raw PCM has {problem}; is it of another format than {self.format.sample_type}?")
