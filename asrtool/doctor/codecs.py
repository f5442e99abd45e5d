"""Checks of the audio libraries: libsndfile by a round trip of each format, FFmpeg, and the voices of espeak-ng."""

import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from asrtool.doctor.findings import Finding, Severity

FORMATS = {  # of the files that corpora have: (libsndfile's format, subtype)
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "sph": ("NIST", "PCM_16"),
}
FFMPEG_CODECS = ("aac", "alac", "ac3", "wmav2", "amrnb")  # of m4a, mp4, wma and amr files
RATE = 16000  # Hz
SOUNDFILE_COMMAND = "pip install --force-reinstall soundfile"


def round_trip(name: str) -> None:
    """Writes a second of a tone in a format of FORMATS, and reads it. Raises an error if a part of it fails."""
    import soundfile

    file_format, subtype = FORMATS[name]
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone, RATE, format=file_format, subtype=subtype)
    buffer.seek(0)
    samples, rate = soundfile.read(buffer)
    level = float(np.sqrt(np.mean(samples**2)))
    if rate != RATE or abs(len(samples) - RATE) > RATE // 4 or not 0.3 < level < 0.4:  # the tone has 0.354
        raise ValueError(f"{len(samples)} samples at {rate} Hz with a level of {level:.2f} came back")


def check_soundfile(try_format: Callable[[str], None] = round_trip) -> Iterator[Finding]:
    """Yields an error for each audio format that libsndfile cannot write and read here."""
    for name in FORMATS:
        try:
            try_format(name)
        except Exception as error:  # any: a broken library raises what it likes
            cause = f"libsndfile cannot write and read .{name} files here ({error})"
            yield Finding("audio-format", Severity.ERROR, f".{name}", cause, SOUNDFILE_COMMAND)


def check_ffmpeg(available: set[str] | None) -> Iterator[Finding]:
    """Yields a warning for the codecs that the FFmpeg in PyAV lacks; None: PyAV is not installed."""
    lacking = [name for name in FFMPEG_CODECS if name not in available] if available is not None else []
    if lacking:
        cause = f"FFmpeg has no decoder for {', '.join(lacking)}"
        remedy = "pip install --force-reinstall --only-binary :all: av"
        yield Finding("ffmpeg-codec", Severity.WARNING, "av", cause, remedy, len(lacking), tuple(lacking))


def ffmpeg_codecs() -> set[str] | None:
    """Returns the names of FFmpeg's codecs; None if PyAV is not installed. Raises ImportError if it is broken."""
    if importlib.util.find_spec("av") is None:
        return None
    import av

    return set(av.codecs_available)


def check_espeak(library: Path, data: Path) -> Iterator[Finding]:
    """Yields an error if espeak-ng's library cannot be loaded, or its voices are missing."""
    import ctypes

    remedy = "pip install --force-reinstall espeakng-loader"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        yield Finding("espeak", Severity.ERROR, "espeak-ng", f"its library cannot be loaded ({error})", remedy)
    if not any(data.glob("lang/**/*")):
        yield Finding("espeak", Severity.ERROR, "espeak-ng", f"there are no voices in {data}", remedy)


def check_codecs() -> Iterator[Finding]:
    """Yields the findings of all checks above."""
    yield from check_soundfile()
    try:
        yield from check_ffmpeg(ffmpeg_codecs())
    except ImportError as error:
        remedy = "pip install --force-reinstall av"
        yield Finding("ffmpeg-codec", Severity.ERROR, "av", f"FFmpeg cannot be loaded ({error})", remedy)
    if importlib.util.find_spec("espeakng_loader"):
        import espeakng_loader

        yield from check_espeak(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))


def codec_facts() -> dict[str, str]:
    """Returns the versions of the audio libraries for the report."""
    import soundfile

    facts = {"libsndfile": str(soundfile.__libsndfile_version__)}
    if importlib.util.find_spec("av"):
        import av

        facts["FFmpeg"] = str(av.ffmpeg_version_info)
    return facts
