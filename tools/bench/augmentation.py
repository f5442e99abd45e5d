"""Time of each augmentation of the samples, compared with reading a file and computing its features.

    python3 tools/bench/augmentation.py

Each row is the time of one change alone, of noise-like audio at 16 kHz on one thread.
"""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
import torch
from common import Report, Run, parse, parser
from lhotse import MonoCut, Recording

from asrtool.config_data import AugmentConfig
from asrtool.data.augment_audio import perturb_audio
from asrtool.data.corpora import Utterance
from asrtool.data.features import compute_features
from asrtool.data.manifest import write_manifest

RATE = 16000  # Hz
CODECS = ("gsm", "mulaw", "mp3", "opus", "vorbis")


def changes(noise: Path) -> dict[str, dict]:
    """Returns the values of `data.augment` for each row; `noise` is a manifest."""
    rows: dict[str, dict] = {
        "volume": {"volume": (0.5, 2.0)},
        "noise": {"noise": [{"manifest": noise, "probability": 1.0}]},
        "babble of 3 to 7 voices": {"noise": [{"manifest": noise, "probability": 1.0, "voices": (3, 7)}]},
        "simulated room": {"reverb": {"probability": 1.0}},
        "telephone band": {"telephone_probability": 1.0},
        "low-pass filter": {"lowpass": {"probability": 1.0}},
    }
    return rows | {f"codec {name}": {"codec": {"probability": 1.0, "codecs": (name,)}} for name in CODECS}


def write_recordings(folder: Path, seconds: float) -> tuple[MonoCut, Path]:
    """Writes an utterance of `seconds` and a minute of noise; returns the cut of the one, the manifest of the other."""
    draw = np.random.default_rng(1)
    soundfile.write(folder / "speech.flac", draw.normal(0, 0.1, round(seconds * RATE)), RATE)
    soundfile.write(folder / "noise.flac", draw.normal(0, 0.1, 60 * RATE), RATE)
    write_manifest([Utterance("noise", str(folder / "noise.flac"), "noise")], folder / "noise.jsonl.gz")
    return Recording.from_file(folder / "speech.flac").to_cut(), folder / "noise.jsonl.gz"


def measure(report: Report, seconds: float) -> None:
    """Times each change of an utterance of `seconds`, with its features as the baseline."""
    with tempfile.TemporaryDirectory() as folder:
        cut, noise = write_recordings(Path(folder), seconds)
        samples = torch.from_numpy(cut.load_audio()[0])
        epochs = count()
        augments = {name: AugmentConfig(**values) for name, values in changes(noise).items()}
        runs = [
            Run(name, lambda augment=augment: change(samples, augment, next(epochs)), seconds)
            for name, augment in augments.items()
        ]
        runs.append(Run("reading FLAC, features", lambda: compute_features(cut, 80), seconds))
        report.compare("augmentation", runs)


def change(samples: torch.Tensor, augment: AugmentConfig, epoch: int) -> torch.Tensor:
    """Returns the samples, augmented with what is drawn for `epoch`."""
    return perturb_audio(samples, "x", RATE, augment, seed=1, epoch=epoch)


def main() -> None:
    """Measures and reports."""
    command_line = parser(__doc__, repeats=9)
    command_line.add_argument(
        "--seconds", type=float, default=10.0, help="length of the utterance [default: %(default)g]"
    )
    arguments = parse(command_line, seconds=1.0)
    torch.set_num_threads(1)
    report = Report("augmentation", arguments, "audio s")
    measure(report, arguments.seconds)
    report.finish()


if __name__ == "__main__":
    main()
