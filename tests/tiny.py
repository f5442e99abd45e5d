"""Tiny inputs for tests: a corpus in which each word is a tone, its configuration and experiment; comparisons."""

import json
import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asrtool import checkpoint
from asrtool.config import Config
from asrtool.config_file import merge, save_config
from asrtool.data.batch import Batch
from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer

RATE = 16000  # Hz
WORDS = {"one": 400, "two": 900, "three": 1800, "four": 3500}  # Hz, the tone of each word
TINY = {  # trains on the tiny corpus in seconds
    "features": {"num_bins": 20},
    "data": {"batch_seconds": 10, "num_buckets": 3, "workers": 0},
    "model": {"subsampling": {"channels": 4}, "dim": 16, "layers": 2, "heads": 2, "ff_dim": 32, "dropout": 0.0},
    "training": {"lr": 3e-3, "warmup_steps": 2, "max_steps": 8, "validate_every": 4, "keep_best": 2, "log_every": 2},
}


NUMBERS = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX"]  # the words of `counting_sentences`


def counting_sentences() -> list[list[str]]:
    """Returns 300 sentences that count from somewhere to SIX: all words but the first are certain."""
    return [NUMBERS[start:] for start in np.random.default_rng(1).integers(len(NUMBERS), size=300)]


def tone(frequency: float, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Returns a tone with a little noise, float32, -14 dB: never digital silence, whose logarithm is -inf."""
    samples = round(seconds * rate)
    noise = np.random.default_rng(seed).normal(0, 0.01, samples)
    return (0.2 * np.sin(2 * np.pi * frequency * np.arange(samples) / rate) + noise).astype(np.float32)


def make_corpus(folder: Path) -> Path:
    """Writes 24 utterances, FLAC of 16 kHz, 0.5 to 3 s of 1 to 6 words, of 3 speakers; returns their manifest."""
    draw = np.random.default_rng(1)
    utterances = []
    for number in range(24):
        name = f"{'abc'[number % 3]}-{number:02d}"
        words = [str(word) for word in draw.choice(list(WORDS), 1 + number % 6)]
        seconds = [draw.uniform(0.4, 0.5) for _ in words]
        spoken = [tone(WORDS[w], s, 10 * number + i) for i, (w, s) in enumerate(zip(words, seconds, strict=True))]
        silence = draw.normal(0, 0.01, RATE // 10).astype(np.float32)
        soundfile.write(folder / f"{name}.flac", np.concatenate([silence, *spoken]), RATE)
        utterances.append(Utterance(name, str(folder / f"{name}.flac"), " ".join(words), speaker=name[0]))
    write_manifest(utterances, folder / "cuts.jsonl.gz", jobs=2)
    return folder / "cuts.jsonl.gz"


def make_manifest_without_audio(path: Path, cuts: int) -> Path:
    """Writes a manifest of `cuts` cuts of 1 to 20 s whose audio does not exist; returns its path."""
    seconds = np.random.default_rng(0).uniform(1, 20, cuts).round(2)

    def cut(number: int) -> MonoCut:
        source = AudioSource("file", [0], f"/none/{number}.flac")
        duration = float(seconds[number])
        recording = Recording(f"r{number}", [source], 16000, round(duration * 16000), duration)
        supervision = SupervisionSegment(f"u{number}", f"r{number}", 0, duration, text="one two")
        return MonoCut(f"u{number}", 0, duration, 0, [supervision], recording=recording)

    CutSet.from_cuts(map(cut, range(cuts))).to_file(path)
    return path


def cut_short(path: str, share: float) -> str:
    """Truncates a file to `share` of its bytes; returns its path."""
    os.truncate(path, int(os.path.getsize(path) * share))
    return path


def write_text_file(path: str) -> str:
    """Writes text instead of audio; returns the path."""
    Path(path).write_text("these are words, no samples")
    return path


def make_tokenizer(folder: Path) -> Path:
    """Writes a word tokenizer for the corpus, a blank and four words; returns its file."""
    save_tokenizer(train_tokenizer("word", WORDS), folder / "tokenizer.json")
    return folder / "tokenizer.json"


def make_config(corpus: Path, tokenizer: Path, **changes: dict) -> Config:
    """Returns the configuration TINY for the corpus, merged with `changes`."""
    paths = {"data": {"train": str(corpus), "dev": str(corpus), "tokenizer": str(tokenizer)}}
    return Config.model_validate(merge(merge(TINY, paths), changes))


def make_experiment(folder: Path, config: Config, tokenizer: Path, bias: float | None = None) -> Path:
    """Writes an experiment folder with random weights; `bias` is the blank's, which by default wins most frames."""
    save_config(config, folder / "config.yaml")
    save_tokenizer(load_tokenizer(tokenizer), folder / "tokenizer.json")
    torch.manual_seed(3)
    model = AcousticModel(config.model, config.features.num_bins, 5)
    model.normalise.set_statistics(torch.full((20,), -5.0), torch.full((20,), 3.0))
    torch.nn.init.normal_(model.output.weight)
    if bias is not None:
        model.output.bias.data[0] = bias
    state = {"model": model.state_dict(), "config": config.model_dump(mode="json")}
    checkpoint.save_checkpoint(folder / "checkpoints" / "best.pt", state)
    return folder


def write_other_weights(checkpoint_file: Path, out: Path) -> None:
    """Writes a checkpoint to `out` whose weights differ a little from those of `checkpoint_file`."""
    state = checkpoint.load_checkpoint(checkpoint_file)
    state["model"]["output.bias"] = state["model"]["output.bias"] + 0.01
    checkpoint.save_checkpoint(out, state)


def feature_batch(features: torch.Tensor, feature_lens: torch.Tensor, seconds: float) -> Batch:
    """Returns a batch of features (N, T, F) without transcripts."""
    none = torch.zeros(len(features), 0, dtype=torch.int64)
    ids = [str(number) for number in range(len(features))]
    texts = [""] * len(features)
    return Batch(
        ids=ids,
        texts=texts,
        features=features,
        feature_lens=feature_lens,
        targets=none,
        target_lens=none.sum(1),
        seconds=seconds,
    )


# The values of a log in which two equal trainings differ
CLOCK = {"time", "times_real_time", "hours_left", "peak_memory_gb", "device_hours"}


def log_rows(experiment: Path, *events: str) -> list[dict]:
    """Returns the rows of these events in an experiment's log.jsonl, without times."""
    found = map(json.loads, (experiment / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in found if row["event"] in events]


def equal(one: object, other: object) -> bool:
    """Returns True if two trees of plain types and tensors are equal bit by bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other
