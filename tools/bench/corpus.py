"""Audio for benchmarks: speech-like noise as FLAC files, or the beginning of a given manifest.

The time of a filterbank does not depend on the values, but the time of decoders and compressors does: white noise would
make FLAC and lilcom slower than speech. So the noise has the spectral tilt and the rhythm of speech.
"""

import argparse
from collections.abc import Iterator
from itertools import accumulate, takewhile
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet

from asrtool.config import Config
from asrtool.data.corpora import Utterance
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import write_manifest

RATE = 16000
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SYLLABLES = 4.0  # Hz, the rate of syllables, which the loudness of speech follows


def add_options(command_line: argparse.ArgumentParser, minutes: float) -> None:
    """Adds the options --cuts and --minutes."""
    command_line.add_argument(
        "--cuts", type=Path, metavar="MANIFEST", help="manifest of audio (16 kHz) to use instead of noise"
    )
    command_line.add_argument("--minutes", type=float, default=minutes, help="minutes of audio [default: %(default)s]")


def manifest(arguments: argparse.Namespace, folder: Path) -> Path:
    """Returns a manifest of about --minutes of audio, from --cuts or written into `folder`."""
    out = folder / "train.jsonl.gz"
    if arguments.cuts:
        ends = accumulate(cut.duration for cut in open_cuts(arguments.cuts))
        count = sum(1 for _ in takewhile(lambda end: end < 60 * arguments.minutes, ends)) + 1
        CutSet.from_cuts(list(open_cuts(arguments.cuts).subset(first=count))).to_file(out)
    else:
        write_manifest(_utterances(folder / "audio", 60 * arguments.minutes), out, RATE, jobs=1)
    return out


def config(train: Path, **sections) -> Config:
    """Returns the default configuration for the manifest `train`, with `sections` changed."""
    data = {"train": train, "dev": train} | sections.pop("data", {})
    return Config.model_validate({"data": data, **sections})


def _utterances(folder: Path, seconds: float) -> Iterator[Utterance]:
    """Writes files of `seconds` in all. Their lengths are skewed like LibriSpeech's: 1 to 16.5 s, most above 12 s."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    total = 0.0
    while total < seconds:
        length = 1 + 15.5 * draw.beta(4, 1.3)
        path = folder / f"{total:09.2f}.flac"
        soundfile.write(path, speech_like(length, draw), RATE, subtype="PCM_16")
        letters = draw.choice(LETTERS, size=int(15 * length))  # readers speak about 15 letters per second
        text = " ".join("".join(letters[at : at + 5]) for at in range(0, len(letters), 5))
        yield Utterance(path.stem, str(path), text)
        total += length


def speech_like(seconds: float, draw: np.random.Generator) -> np.ndarray:
    """Returns noise that falls 6 dB per octave above 500 Hz, with a loudness at the rate of syllables; (samples,)."""
    samples = int(seconds * RATE)
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    noise = np.fft.irfft(spectrum / np.maximum(1, frequencies / 500), samples)
    swing = 0.55 + 0.45 * np.sin(2 * np.pi * SYLLABLES * np.arange(samples) / RATE + draw.uniform(0, 6))
    noise *= swing
    return (0.3 * noise / np.abs(noise).max()).astype(np.float32)
