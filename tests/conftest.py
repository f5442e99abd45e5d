"""What the tests share: a tiny corpus in which each word is a tone, its tokenizer, and a configuration for it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes in; child processes inherit it

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.config import Config, merge
from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from asrtool.text.tokenizer import save_tokenizer, train_tokenizer

RATE = 16000  # Hz
WORDS = {"one": 400, "two": 900, "three": 1800, "four": 3500}  # Hz, the tone of each word
TINY = {  # trains on the tiny corpus in seconds
    "features": {"num_bins": 20},
    "data": {"batch_seconds": 10, "buckets": 3, "workers": 0},
    "model": {"subsampling": {"channels": 4}, "dim": 16, "layers": 2, "heads": 2, "ff_dim": 32, "dropout": 0.0},
    "training": {"lr": 3e-3, "warmup_steps": 2, "max_steps": 8, "validate_every": 4, "keep_best": 2, "log_every": 2},
}


def tone(frequency: float, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A tone with a little noise, float32, -14 dB: never digital silence, whose logarithm is another matter."""
    samples = round(seconds * rate)
    noise = np.random.default_rng(seed).normal(0, 0.01, samples)
    return (0.2 * np.sin(2 * np.pi * frequency * np.arange(samples) / rate) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def write_audio() -> Callable[..., Path]:
    """write_audio(path, seconds=1.0, rate=16000, frequency=500, channels=1) -> path; the format is its suffix."""

    def write(path, seconds=1.0, rate=RATE, frequency=500.0, channels=1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = tone(frequency, seconds, seed=len(path.name), rate=rate)
        soundfile.write(path, samples if channels == 1 else np.stack([samples] * channels, 1), rate)
        return path

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A manifest of 24 utterances, FLAC of 16 kHz, 0.5 to 3 s of 1 to 6 words, from 3 speakers."""
    folder = tmp_path_factory.mktemp("corpus")
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


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> Path:
    """The file of a word tokenizer for the corpus: a blank and four words."""
    path = tmp_path_factory.mktemp("lang") / "tokenizer.json"
    save_tokenizer(train_tokenizer("word", WORDS), path)
    return path


@pytest.fixture(scope="session")
def tiny_config(corpus, tokenizer_file) -> Callable[..., Config]:
    """tiny_config(seed=2, training={"max_steps": 4}, data={"augment": {...}}) -> TINY for the corpus, so changed."""
    paths = {"data": {"train": str(corpus), "dev": str(corpus), "tokenizer": str(tokenizer_file)}}
    return lambda **changes: Config.model_validate(merge(merge(TINY, paths), changes))
