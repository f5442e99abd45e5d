"""Checks of audio files before anything relies on them."""

import io
import os
import re
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from asrtool.data.sources import InvalidEntry, require_plain_path

TAIL_SECONDS = 0.1  # read from the end of each file: enough to notice a truncated one, fast enough for 960 hours
UNKNOWN_LENGTH = 0x7FFFF000  # WAV headers written to a pipe claim about 2 or 4 GB of data: the length is not known
MIN_RATE, MAX_RATE = 1000, 384_000  # Hz, from telemetry to the fastest recorders; others are damaged headers
MAX_RECORDING_SECONDS = 24 * 3600.0  # a day; a header that claims more is damaged
FULL_SCALE = 0.999  # samples from here on are counted as clipped
MAX_SAMPLE = 2.0  # of full scale: peaks of float files go a little above 1, 16-bit integers stored there far above
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")  # those whose samples may be NaN, or of any scale
BLOCK = 1 << 18  # samples that are read at a time
MAX_CHUNKS = 1000  # of a WAV or AIFF file: the data comes after a dozen at most
MAX_TAGS = 4096  # bytes of the chunks that may follow the samples

ADDRESS_HINT = "addresses are not read; download the file first"
ARCHIVE_PLACE = re.compile(r"\.ark:[0-9]+$")  # what Kaldi and ESPnet call a recording in an archive, as in wav.ark:4

PathOrBytes = str | io.BytesIO  # the path of an audio file, or the output of a command


@dataclass(frozen=True)
class AudioInfo:
    """Sampling rate, length and number of channels of an audio file."""

    rate: int  # Hz
    samples: int  # of each channel
    channels: int


def is_command(audio: str) -> bool:
    """Returns True if `audio` is a shell command, as in Kaldi's wav.scp."""
    return audio.rstrip().endswith("|")


def open_audio(audio: str) -> PathOrBytes:
    """Returns what soundfile can open for a path, or for a Kaldi command that ends in "|". Raises InvalidEntry.

    Commands run only with --allow-commands.
    """
    if not is_command(audio):
        return regular_file(audio)
    require_plain_path(audio)  # unless commands are allowed
    command = subprocess.run(audio.rstrip().rstrip("|"), shell=True, capture_output=True, check=False)
    if command.returncode or not command.stdout:
        raise InvalidEntry(f"command failed: {audio}: {command.stderr.decode(errors='replace').strip()[:200]}")
    return io.BytesIO(command.stdout)


def is_address(path: str | Path) -> bool:
    """Returns True for a path that is not a file but an address, such as https://example.org/a.mp3.

    A `Path` has one slash of both.
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None and not os.path.lexists(path)


def regular_file(path: str) -> str:
    """Returns `path` if it is a regular file. Raises InvalidEntry."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        if is_address(path):
            raise InvalidEntry(f"{ADDRESS_HINT}: {path}") from error
        if ARCHIVE_PLACE.search(path):
            hint = "copy it to a file, for example with Kaldi's wav-copy"
            raise InvalidEntry(f"audio within an archive is not read: {path}; {hint}") from error
        raise InvalidEntry(f"no such audio file: {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidEntry(f"not readable as audio: {path} ({getattr(error, 'strerror', None) or error})") from error
    if not stat.S_ISREG(mode):
        raise InvalidEntry(f"not a regular file: {path}")
    return path


def inspect_mono_audio(audio: str) -> tuple[int, int]:
    """Returns sampling rate and number of samples of a mono file that passes `inspect_audio`. Raises InvalidEntry."""
    info = inspect_audio(audio)
    if info.channels != 1:
        raise InvalidEntry(f"{info.channels} channels, expected one: {audio}")
    return info.rate, info.samples


def inspect_audio(audio: str) -> AudioInfo:
    """Returns rate, length and channels of an audio file whose end can be read. Raises InvalidEntry for any fault.

    Files of floating-point numbers are read whole, since any of their samples may be NaN or of another scale.
    """
    source = open_audio(audio)
    try:
        with soundfile.SoundFile(source) as file:
            info = AudioInfo(file.samplerate, file.frames, file.channels)
            check_header(info, audio, source)
            tail = min(info.samples, int(TAIL_SECONDS * info.rate))
            first = 0 if file.subtype in FLOAT_SUBTYPES else info.samples - tail
            is_complete = _read_samples(file, first, info, audio) == info.samples
        is_complete = is_complete and not missing_bytes(source)
    except InvalidEntry:
        raise
    except Exception as error:  # libsndfile's, and what soundfile raises over numbers that its headers make up
        reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
        raise InvalidEntry(describe_unreadable(source, audio, reason)) from error
    if not is_complete:
        raise InvalidEntry(f"truncated: {audio} ends before its header says")
    return info


def check_header(info: AudioInfo, audio: str, source: PathOrBytes | None = None) -> None:
    """Raises InvalidEntry for a header whose rate or length is impossible. `source` is the file, if there is one."""
    if info.samples <= 0:
        raise InvalidEntry(f"no samples: {audio}{_describe_unclaimed(source) if source is not None else ''}")
    if not MIN_RATE <= info.rate <= MAX_RATE:
        raise InvalidEntry(f"a header that claims {info.rate} Hz: {audio}")
    if info.samples > MAX_RECORDING_SECONDS * info.rate:
        hours = info.samples / info.rate / 3600
        limit = MAX_RECORDING_SECONDS / 3600
        raise InvalidEntry(f"a header that claims {hours:.0f} hours, more than {limit:.0f}: {audio}")


def _read_samples(file: soundfile.SoundFile, first: int, info: AudioInfo, audio: str) -> int:
    """Reads from sample `first` to the end; returns the position of the end. Raises InvalidEntry for wrong samples."""
    position = file.seek(first)
    while len(
        block := file.read(max(1, BLOCK // info.channels), dtype="float32", always_2d=True)
    ):  # (samples, channels)
        wrong = np.flatnonzero(~(np.abs(block) <= MAX_SAMPLE).all(axis=1))  # NaN counts as wrong
        if len(wrong):
            seconds = (position + wrong[0]) / info.rate
            raise InvalidEntry(f"{describe_wrong_samples(block[wrong], seconds)}: {audio}")
        position += len(block)
    return position


def describe_wrong_samples(samples: np.ndarray, seconds: float | None = None) -> str:
    """Says what is wrong with samples of which the first is at `seconds`, if that is known."""
    if not np.isfinite(samples).all():
        return "samples that are not finite numbers" + ("" if seconds is None else f", first at {seconds:.3f} s")
    return f"samples up to {np.abs(samples).max():.0f}, not within -1 and 1 (divide by 32768, or store as 16 bit)"


def describe_unreadable(source: PathOrBytes, audio: str, reason: str) -> str:
    """Says why libsndfile cannot read `audio`; `reason` is the message of libsndfile."""
    try:
        with _open_bytes(source) as file:
            if b"shorten" in _nist_header(file):
                return f"compressed with shorten: {audio}; decompress it, e.g. with `sph2pipe -p -f wav`"
    except OSError as error:  # the system does not let it be read
        reason = error.strerror or reason
    return f"not readable as audio: {audio} ({reason[:200]})"


def _open_bytes(source: PathOrBytes) -> BinaryIO:
    return open(source, "rb") if isinstance(source, str) else io.BytesIO(source.getbuffer())


def missing_bytes(source: PathOrBytes) -> int:
    """Returns by how many bytes a file is shorter than its header claims, which libsndfile corrects silently."""
    end, size = _end_by_header(source)
    return max(0, end - size)


def _end_by_header(source: PathOrBytes) -> tuple[int, int]:
    """Returns where the samples end by the header, 0 if it does not say, and the size of the file, both in bytes."""
    with _open_bytes(source) as file:
        kind = file.read(12)
        if kind.startswith(b"RIFF"):
            claimed = _end_of_chunks(file, "<")
        elif kind.startswith(b"FORM"):
            claimed = _end_of_chunks(file, ">")
        elif kind.startswith(b".snd"):
            start, size = struct.unpack(">4xII", kind)
            claimed = start + size if size < UNKNOWN_LENGTH else 0
        elif kind.startswith(b"NIST"):
            claimed = _end_of_nist(file)
        else:
            claimed = 0
        return claimed, file.seek(0, io.SEEK_END)


def _describe_unclaimed(source: PathOrBytes) -> str:
    """Returns what is wrong with a file whose header claims no samples and which has some, or "" for another one."""
    end, size = _end_by_header(source)
    if not 0 < end < size - MAX_TAGS:
        return ""
    return (
        f" by its header, which {size - end} bytes follow: a recorder that was killed leaves it so; "
        "`ffmpeg -i FILE FIXED.wav` writes it again"
    )


def _end_of_chunks(file: BinaryIO, byte_order: str) -> int:
    """Returns where the samples of a WAV (little-endian) or AIFF file end by its header; 0 if it does not say."""
    for _ in range(MAX_CHUNKS):
        if len(header := file.read(8)) < 8:
            break
        name, size = struct.unpack(f"{byte_order}4sI", header)
        if name in (b"data", b"SSND"):
            return file.tell() + size if size < UNKNOWN_LENGTH else 0
        file.seek(size + size % 2, io.SEEK_CUR)
    return 0


def _nist_header(file: BinaryIO) -> bytes:
    """Returns the header of a NIST SPHERE file, which has lines "NAME -TYPE VALUE"; b"" for another file."""
    file.seek(0)
    header = file.read(16)
    if not header.startswith(b"NIST_1A"):
        return b""
    return header + file.read(1 << 16).partition(b"end_head")[0]


def _end_of_nist(file: BinaryIO) -> int:
    header = _nist_header(file)
    try:
        fields = {line.split()[0]: line.split()[2] for line in header.splitlines()[2:] if line.count(b" ") >= 2}
        size = int(fields[b"sample_count"]) * int(fields[b"channel_count"]) * int(fields[b"sample_n_bytes"])
        return int(header.splitlines()[1]) + size
    except (LookupError, ValueError):
        return 0
