"""A system that recognises tones as words, trained in seconds, and recordings of such words.

Each word is a tone of its own (tests/tiny.py), far from the others, so that another sampling rate, level or offset does
not change what is recognised.
"""

from pathlib import Path

import numpy as np
import soundfile

from asrtool.config import Config
from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from asrtool.training.train import train
from tests.tiny import RATE, WORDS, make_config, make_tokenizer, tone

SILENCE = 0.01  # standard deviation of the noise around the tones, which they have too
UTTERANCES = 160
CHANGES: dict[str, dict] = {
    "model": {
        **{"mask": "chunk", "chunk_size": 4, "memory": 8, "normalise": "global", "convolution": {"kind": "residual"}},
        **{"subsampling": {"channels": 8}, "dim": 48},
    },
    "training": {"lr": 5e-3, "warmup_steps": 20, "max_steps": 300, "validate_every": 100, "log_every": 100},
}


def spoken(words: list[str], seed: int, lead: float = 0.3, trail: float = 0.3, pause: float = 0.15) -> np.ndarray:
    """Returns samples (n,) float32 of 16 kHz: tones of 0.3 s with pauses, between `lead` and `trail` s of noise."""
    draw = np.random.default_rng(seed)

    def noise(seconds: float) -> np.ndarray:
        return draw.normal(0, SILENCE, round(seconds * RATE)).astype(np.float32)

    pieces = [noise(lead)]
    for number, word in enumerate(words):
        pieces += [tone(WORDS[word], 0.3, 1000 * seed + number), noise(pause)]
    return np.concatenate([*pieces, noise(trail)])


def make_tone_corpus(folder: Path) -> Path:
    """Writes UTTERANCES recordings of 1 to 3 words with pauses of 0.05 to 0.5 s; returns their manifest."""
    draw = np.random.default_rng(1)
    utterances = []
    for number in range(UTTERANCES):
        words = [str(word) for word in draw.choice(list(WORDS), draw.integers(1, 4))]
        lead, trail, pause = draw.uniform([0.1, 0.1, 0.05], [1, 1, 0.5])
        samples = spoken(words, number, lead, trail, pause) * draw.uniform(0.3, 1.5)
        path = folder / f"tones-{number:03d}.flac"
        soundfile.write(path, samples, RATE)
        utterances.append(Utterance(path.stem, str(path), " ".join(words), speaker="a"))
    write_manifest(utterances, folder / "cuts.jsonl.gz", jobs=1)
    return folder / "cuts.jsonl.gz"


def train_tone_system(folder: Path, **model: object) -> Path:
    """Trains a small streaming Transformer on the tones; returns the experiment folder. `model`: further settings."""
    (folder / "audio").mkdir(parents=True)
    corpus = make_tone_corpus(folder / "audio")
    changes = CHANGES | {"model": CHANGES["model"] | model}
    config: Config = make_config(corpus, make_tokenizer(folder), **changes)
    train(config, folder / "exp", device="cpu")
    return folder / "exp"
