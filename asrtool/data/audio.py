"""Looking at audio files before anything relies on them."""

import io
import struct
import subprocess
from pathlib import Path

import soundfile

from asrtool.data.sources import Bad

TAIL_SECONDS = 0.1  # read from the end of each file: enough to notice a truncated one, cheap enough for 960 hours
UNKNOWN_LENGTH = 0x7FFFF000  # WAV headers written to a pipe claim about 2 or 4 GB of data: no claim at all


def open_audio(audio: str) -> "io.BytesIO | str":
    """What soundfile can open for a path, or for a Kaldi command that ends in "|"."""
    if not audio.rstrip().endswith("|"):
        if not Path(audio).is_file():
            raise Bad(f"no such audio file: {audio}")
        return audio
    command = subprocess.run(audio.rstrip().rstrip("|"), shell=True, capture_output=True, check=False)
    if command.returncode or not command.stdout:
        raise Bad(f"command failed: {audio}: {command.stderr.decode(errors='replace').strip()[:200]}")
    return io.BytesIO(command.stdout)


def probe(audio: str) -> tuple[int, int]:
    """Sampling rate and number of samples of a mono file whose end can be read too. Raises Bad."""
    try:
        source = open_audio(audio)
        with soundfile.SoundFile(source) as file:
            rate, samples = file.samplerate, file.frames
            file.seek(max(0, samples - int(TAIL_SECONDS * rate)))
            tail = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise Bad(f"not readable as audio: {audio} ({getattr(error, 'error_string', error)})") from error
    if tail.shape[1] != 1:
        raise Bad(f"{tail.shape[1]} channels, expected one: {audio}")
    if samples == 0:
        raise Bad(f"no samples: {audio}")
    if len(tail) != min(samples, int(TAIL_SECONDS * rate)) or _ends_early(source):
        raise Bad(f"truncated: {audio} ends before its header says")
    return rate, samples


def _ends_early(source: "io.BytesIO | str") -> bool:
    """Whether a WAV file is shorter than its header claims, which libsndfile corrects in silence."""
    with open(source, "rb") if isinstance(source, str) else io.BytesIO(source.getbuffer()) as file:
        riff = file.read(12).startswith(b"RIFF")
        while riff and len(header := file.read(8)) == 8:
            (name, size), start = struct.unpack("<4sI", header), file.tell()
            if name == b"data":
                return size < UNKNOWN_LENGTH and file.seek(0, io.SEEK_END) - start < size
            file.seek(size + size % 2, io.SEEK_CUR)
    return False
