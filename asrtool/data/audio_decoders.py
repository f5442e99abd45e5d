"""Decoders of recordings: blocks of samples out of arrays, of files that libsndfile reads, and of media containers.

libsndfile comes first, since it checks what it reads. Other files go to FFmpeg by PyAV, an extra, which may open the
formats of MEDIA_FORMATS only: playlists and scripts name further files and addresses, and a recording must not.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import soundfile

from asrtool.data.audio import AudioInfo, check_header, describe_unreadable, missing_bytes
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError

if TYPE_CHECKING:
    import av

BLOCK_SAMPLES = 1 << 12  # read at a time, of each channel: one frame of FLAC; of a block with an error, all is lost
MAX_CHANNELS = 64  # more are an array of shape (channels, samples), or a damaged header
MAX_GAP_SECONDS = 24 * 3600.0  # in the timestamps of a container: a longer one is damage
MIN_GAP_SECONDS = 0.05  # containers round timestamps to milliseconds; one lost packet is 20 ms or more of audio
MEDIA_FORMATS = (  # FFmpeg's demuxers of audio and video files, none of which opens further files
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "flac", "flv", "gsm", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "mxf", "nut", "ogg", "rm", "tta", "voc", "w64", "wav", "wv"),
)
EXACT_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"  # its header tells the length of the audio without the encoder's padding
FORMATS_WITH_LENGTH = ("asf", "avi", "caf", "matroska,webm", EXACT_FORMAT)  # FFmpeg estimates the others'
FORMATS_WITHOUT_TIMES = ("aac", "ac3", "amr", "gsm", "mp3")  # FFmpeg counts the frames, as if their rate never changed
HINT_PYAV = "for m4a, mp4 and video: pip install 'asrtool[audio]'"


class Decoder(Protocol):
    """Samples of a recording. `seconds` is the length that the header claims, None where it has none."""

    rate: int  # Hz
    channels: int
    seconds: float | None

    def read(self) -> Iterator[np.ndarray]:
        """Yields all blocks (n, channels) float32 from the beginning on; ends early where the file is damaged.

        Raises InvalidEntry if nothing can be read.
        """
        ...


def open_decoder(path: str) -> Decoder:
    """Returns the decoder for a regular file. Raises InvalidEntry for one that is not audio."""
    try:
        return SoundfileDecoder(path)
    except soundfile.LibsndfileError as error:
        reason = describe_unreadable(path, path, error.error_string)
        if "shorten" in reason:
            raise InvalidEntry(reason) from error
    try:
        return ContainerDecoder(path)
    except ImportError as error:
        raise InvalidEntry(f"{reason}; {HINT_PYAV}") from error


class ArrayDecoder:
    """Samples in memory: (n,) or (n, channels), floating-point within -1 and 1, or int16 or int32 of full scale."""

    def __init__(self, samples: np.ndarray, rate: int | None):
        if rate is None:
            raise UserError("an array of samples needs its sampling rate, in Hz")
        self._samples = np.asarray(samples)
        self._scale = _full_scale(self._samples)
        if self._samples.ndim == 1:
            self._samples = self._samples[:, None]  # (n, 1)
        length, self.channels = _require_shape(self._samples)
        self.rate = int(rate)
        self.seconds: float | None = length / self.rate if self.rate > 0 else None
        check_header(AudioInfo(self.rate, length, self.channels), "the array")

    def read(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self._samples), BLOCK_SAMPLES):
            block = self._samples[first : first + BLOCK_SAMPLES]
            yield (block / self._scale).astype(np.float32)


def _full_scale(samples: np.ndarray) -> float:
    if np.issubdtype(samples.dtype, np.floating):
        return 1.0
    if samples.dtype in (np.int16, np.int32):
        return float(-np.iinfo(samples.dtype).min)
    raise UserError(f"an array of {samples.dtype} is not audio; give floating-point numbers, int16 or int32")


def _require_shape(samples: np.ndarray) -> tuple[int, int]:
    if samples.ndim != 2:
        raise UserError(f"an array with {samples.ndim} dimensions is not audio; give (samples,) or (samples, channels)")
    length, channels = samples.shape
    if not 1 <= channels <= MAX_CHANNELS:
        raise UserError(f"an array of shape ({length}, {channels}) has {channels} channels; give (samples, channels)")
    return length, channels


class SoundfileDecoder:
    """A file that libsndfile reads: wav, flac, mp3, ogg, opus, aiff, au, caf, NIST sphere and others."""

    def __init__(self, path: str):
        self._path = path
        with _open_soundfile(path) as file:
            info = AudioInfo(file.samplerate, file.frames, file.channels)
        check_header(info, path, path)
        self.rate, self.channels = info.rate, info.channels
        bytes_per_sample = Path(path).stat().st_size / info.samples  # of all channels, and a share of the header
        self.seconds: float | None = (info.samples + missing_bytes(path) / bytes_per_sample) / info.rate

    def read(self) -> Iterator[np.ndarray]:
        position = 0
        with _open_soundfile(self._path) as file:
            while True:
                try:
                    block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)  # (n, channels)
                except soundfile.LibsndfileError as error:
                    if position == 0:
                        raise InvalidEntry(f"not readable as audio: {self._path} ({error.error_string})") from error
                    return
                if not len(block):
                    return
                position += len(block)
                yield block


class ForwardFile(soundfile.SoundFile):
    """A file that is read from its beginning to its end.

    soundfile seeks around each read of a file that it may seek in. A decoder of mp3 then starts again, and prints lines
    about bits that it lacks.
    """

    def seekable(self) -> bool:
        return False


def _open_soundfile(path: str) -> soundfile.SoundFile:
    """Opens `path`. Raises LibsndfileError, also for numbers in a header that soundfile cannot work with."""
    try:
        return ForwardFile(os.fsencode(path))  # bytes: names need not be UTF-8
    except soundfile.LibsndfileError:
        raise
    except Exception as error:  # such as TypeError for a raw format, ValueError for a name with a NUL
        raise InvalidEntry(f"not readable as audio: {path} ({error or type(error).__name__})") from error


class ContainerDecoder:
    """The first audio stream of a media file, such as m4a, mp4, mkv or webm, decoded by FFmpeg.

    Time 0 is the beginning of the file, as a player shows it: audio that begins after the video follows silence, and
    what is missing within the audio, by its timestamps, is replaced by silence.
    """

    def __init__(self, path: str):
        self._path = path
        with self._open() as container:
            stream = self._audio_stream(container)
            self.rate, self.channels = int(stream.rate or 0), int(stream.channels or 0)
            self.seconds = _claimed_seconds(container, stream)
            is_exact = container.format.name == EXACT_FORMAT and self.seconds is not None
        samples = 1 if self.seconds is None else int(self.seconds * self.rate)
        check_header(AudioInfo(self.rate, samples, self.channels), path)
        self._exact_length = round((self.seconds or 0.0) * self.rate) if is_exact else None

    def read(self) -> Iterator[np.ndarray]:
        return _without_padding(self._read_padded(), self._exact_length)

    def _read_padded(self) -> Iterator[np.ndarray]:
        import av

        position = 0  # samples that were yielded
        with self._open() as container:
            stream = self._audio_stream(container)
            begin = (container.start_time or 0) / av.time_base
            has_times = container.format.name not in FORMATS_WITHOUT_TIMES
            to_float = FrameConverter(stream.layout.name, self.rate)
            for frame in _decode(container, stream):
                gap = _gap_samples(frame, begin, position, self.rate) if has_times else 0
                for first in range(0, gap, BLOCK_SAMPLES):
                    yield np.zeros((min(BLOCK_SAMPLES, gap - first), self.channels), np.float32)
                position += max(0, gap)
                for converted in to_float(frame):
                    block = converted.to_ndarray().reshape(-1, self.channels)  # (n, channels)
                    position += len(block)
                    yield block

    def _open(self) -> "av.container.InputContainer":
        import av

        options = {"format_whitelist": ",".join(MEDIA_FORMATS), "protocol_whitelist": "file"}
        try:
            return av.open(f"file:{Path(self._path).resolve()}", options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidEntry(f"not readable as audio: {self._path} ({reason[:200]})") from error

    def _audio_stream(self, container: Any) -> Any:
        if not container.streams.audio:
            raise InvalidEntry(f"no audio in it: {self._path}")
        stream = container.streams.audio[0]
        if stream.codec_context is None:  # PyAV has no decoder for what the header names
            raise InvalidEntry(f"not readable as audio: {self._path} (unknown codec)")
        return stream


class FrameConverter:
    """Converts frames to float samples of one layout and rate, also where these change in the middle of a stream.

    Streams of broadcasts and joined files change them.
    """

    def __init__(self, layout: str, rate: int):
        self._layout = layout
        self._rate = rate
        self._source: tuple[str, str, int] | None = None  # format, layout and rate of the frames
        self._resampler: Any = None

    def __call__(self, frame: Any) -> list[Any]:
        """Returns the converted frames of a frame. Raises InvalidEntry for one that FFmpeg cannot convert."""
        import av

        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        try:
            before: list[Any] = []
            if source != self._source:
                before = self._resampler.resample(None) if self._resampler else []
                self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=self._rate)
                self._source = source
            return before + self._resampler.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            raise InvalidEntry(f"not readable as audio: its format changes ({str(error)[:200]})") from error


def _without_padding(blocks: Iterator[np.ndarray], length: int | None) -> Iterator[np.ndarray]:
    """Yields the blocks (n, channels), the last one without what exceeds `length` samples in all, if that is known.

    Encoders fill up their last frame. Only the last block is shortened: a header that claims too little loses no audio.
    """
    position = 0
    last: np.ndarray | None = None
    for block in blocks:
        if last is not None:
            yield last
            position += len(last)
        last = block
    if last is not None:
        padded = length is not None and position < length < position + len(last)
        yield last[: length - position] if padded and length is not None else last


def _claimed_seconds(container: Any, stream: Any) -> float | None:
    """Returns the duration by the header, None where it has none."""
    import av

    if container.format.name not in FORMATS_WITH_LENGTH:
        return None
    if stream.duration and stream.time_base:
        begin = (container.start_time or 0) / av.time_base
        first = float((stream.start_time or 0) * stream.time_base)
        return max(0.0, first - begin) + float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the audio frames. Packets that cannot be decoded are skipped, and the reading ends where the file does."""
    import av

    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:  # of this packet: its time remains a gap
                continue
    except av.FFmpegError:  # the container is damaged from here on
        return


def _gap_samples(frame: Any, begin: float, position: int, rate: int) -> int:
    """Returns how many samples are missing before a frame; 0 where none are, or its time is unknown."""
    if frame.time is None:
        return 0
    gap = frame.time - begin - position / rate
    return round(gap * rate) if MIN_GAP_SECONDS <= gap <= MAX_GAP_SECONDS else 0
