"""A clean corpus of a synthetic voice, in memory, so that a test can plant faults before it is written."""

import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from tests.data.voice import RATE, vowels

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS_PER_SECOND = 8
NOISE = 10 ** (-50 / 20)


@dataclass
class Item:
    """One utterance: its line of the manifest, and its file."""

    cut: dict
    samples: np.ndarray  # (n,) or (n, channels)
    rate: int = RATE
    name: str = ""  # of the file
    subtype: str = "PCM_16"
    file_bytes: bytes | None = None  # instead of the samples

    @property
    def id(self) -> str:
        return self.cut["id"]

    @property
    def supervision(self) -> dict:
        return self.cut["supervisions"][0]

    @property
    def recording(self) -> dict:
        return self.cut["recording"]

    @property
    def text(self) -> str:
        return self.supervision["text"]

    @text.setter
    def text(self, value: str) -> None:
        self.supervision["text"] = value

    def set_samples(self, samples: np.ndarray, rate: int = RATE) -> None:
        """Replaces the audio, and makes the manifest agree with it."""
        self.samples, self.rate = samples, rate
        seconds = len(samples) / rate
        channels = list(range(1 if samples.ndim == 1 else samples.shape[1]))
        self.cut["duration"] = self.supervision["duration"] = seconds
        self.recording.update(sampling_rate=rate, num_samples=len(samples), duration=seconds, channel_ids=channels)
        self.recording["sources"][0]["channels"] = channels


@dataclass
class Corpus:
    """A set of utterances; `extra_lines` follow the utterances in the manifest."""

    items: list[Item] = field(default_factory=list)
    extra_lines: list[str] = field(default_factory=list)

    def write(self, folder: Path, name: str) -> Path:
        """Writes the audio and the manifest; returns the manifest's path."""
        folder.mkdir(parents=True, exist_ok=True)
        for item in self.items:
            path = folder / (item.name or f"{item.id}.wav")
            if item.file_bytes is not None:
                path.write_bytes(item.file_bytes)
            else:
                soundfile.write(path, item.samples, item.rate, subtype=item.subtype)
        manifest = folder / name
        lines = [_line(item, folder) for item in self.items] + self.extra_lines
        manifest.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return manifest


def _line(item: Item, folder: Path) -> str:
    """Returns the line of the manifest, with the path of the audio unless a test has set it."""
    cut = deepcopy(item.cut)
    cut["recording"]["sources"][0].setdefault("source", str(folder / (item.name or f"{item.id}.wav")))
    return json.dumps(cut, ensure_ascii=False)


def clean_corpus(size: int, speakers: str, seed: int) -> Corpus:
    """Returns utterances of 2.0 to 3.4 s, with words in proportion to the speech, of the speakers in turn."""
    draw = np.random.default_rng(seed)
    vocabulary = _vocabulary(np.random.default_rng(0))
    items = [
        _item(f"{speakers[k % len(speakers)]}-{k:03d}", speakers[k % len(speakers)], draw, vocabulary)
        for k in range(size)
    ]
    return Corpus(items)


def _vocabulary(draw: np.random.Generator) -> list[str]:
    return ["".join(draw.choice(list(LETTERS), draw.integers(2, 8))) for _ in range(300)]


def _item(name: str, speaker: str, draw: np.random.Generator, vocabulary: list[str]) -> Item:
    seconds = float(draw.uniform(1.6, 3.0))
    pause = np.zeros(round(0.2 * RATE))
    samples = np.concatenate([pause, vowels(draw, seconds), pause])
    samples = (samples + NOISE * draw.normal(size=len(samples))).astype(np.float32)
    words: list[str] = []
    while len("".join(words)) < CHARACTERS_PER_SECOND * seconds:
        words.append(str(draw.choice(vocabulary)))
    duration = len(samples) / RATE
    supervision = {"id": name, "recording_id": name, "start": 0.0, "duration": duration, "channel": 0}
    supervision |= {"text": " ".join(words), "speaker": speaker}
    source = {"type": "file", "channels": [0]}
    recording = {"id": name, "sources": [source], "sampling_rate": RATE, "num_samples": len(samples)}
    recording |= {"duration": duration, "channel_ids": [0]}
    cut = {"id": name, "start": 0.0, "duration": duration, "channel": 0, "supervisions": [supervision]}
    return Item({**cut, "recording": recording, "type": "MonoCut"}, samples)
