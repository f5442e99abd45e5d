"""Decoding a manifest with an experiment: hypotheses as JSONL, and how long it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from asrtool.config import Config, load_config
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.loading import Batch, OrderedSampler, SpeechDataset, batches
from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.device import describe, pick_device
from asrtool.errors import UserError
from asrtool.files import write_json, write_jsonl
from asrtool.models.acoustic import AcousticModel
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer, load_tokenizer
from asrtool.training import checkpoint

Search = Callable[[torch.Tensor, torch.Tensor], list[Hypothesis]]


@dataclass
class Experiment:
    """A trained model and what decoding needs beside it."""

    config: Config
    tokenizer: Tokenizer
    model: AcousticModel
    checkpoint: Path
    device: torch.device

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs (N, T', V) and lengths (N,) of a batch."""
        return self.model(batch.features.to(self.device), batch.feature_lens.to(self.device))


def open_experiment(folder: Path, which: str = "averaged", device: str = "auto") -> Experiment:
    """The model of an experiment folder from its own config.yaml, tokenizer and a checkpoint; in evaluation mode.

    `which`: "averaged" (else "best"), "best", "last", or a path.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not an experiment: it has no config.yaml; give the folder of `asrtool train`")
    config = load_config(folder / "config.yaml")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    path = checkpoint.find(folder, which)
    state = checkpoint.load(path)
    model = AcousticModel(config, tokenizer.size)
    checkpoint.load_weights(model, state, path)
    place = pick_device(device)
    return Experiment(config, tokenizer, model.to(place).eval(), path, place)


def search(method: str, beam: int = 8) -> Search:
    """The search named "greedy" or "prefix"; one hypothesis an utterance."""
    if method == "greedy":
        return ctc_greedy
    return lambda log_probs, lens: [best[0] for best in ctc_prefix_beam(log_probs, lens, beam)]


@dataclass
class Clock:
    """Seconds spent in each part of decoding, without the wait for the first features."""

    audio: float = 0.0
    model: float = 0.0
    search: float = 0.0
    total: float = 0.0

    def facts(self, device: torch.device) -> dict:
        """Real-time factors (seconds of computing per second of audio), with what they were measured on."""
        parts = {"rtf": self.total, "rtf_model": self.model, "rtf_search": self.search}
        rates = {name: round(seconds / max(self.audio, 1e-9), 5) for name, seconds in parts.items()}
        return {"audio_seconds": round(self.audio, 2), **rates, "device": describe(device)}


def decode(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    name: str,
    method: str = "greedy",
    beam: int = 8,
    batch_seconds: float = 200.0,
    workers: int = 1,
) -> dict:
    """Decode every cut of the manifest `cuts` into `out`/hyps.jsonl; returns and writes the facts (`decode.json`).

    The real-time factor counts everything from audio to words: features, model and search.
    """
    find = search(method, beam)
    clock, rows = Clock(), []
    start = time.monotonic()
    dataset = SpeechDataset(experiment.config, None, training=False)
    loaded = batches(dataset, OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(loaded, f"decoding {name}", units="batches"):
        rows += _decode_batch(experiment, batch, find, clock)
    clock.total = time.monotonic() - start
    write_jsonl(out / "hyps.jsonl", sorted(rows, key=lambda row: row["id"]))
    facts = {"set": name, "method": method, "beam": beam if method == "prefix" else None, "utterances": len(rows)}
    facts |= {"checkpoint": experiment.checkpoint.name, "cuts": str(cuts), "batch_seconds": batch_seconds}
    facts |= clock.facts(experiment.device)
    write_json(out / "decode.json", facts)
    return facts


def _decode_batch(experiment: Experiment, batch: Batch, find: Search, clock: Clock) -> list[dict]:
    begin = time.monotonic()
    log_probs, lens = experiment.log_probs(batch)
    lens = lens.cpu()  # waits for the device
    middle = time.monotonic()
    hypotheses = find(log_probs, lens)
    clock.model += middle - begin
    clock.search += time.monotonic() - middle
    clock.audio += batch.seconds
    frame_seconds = FRAME_SHIFT * experiment.model.subsampling.factor
    return [
        _row(experiment.tokenizer, *item, frame_seconds)
        for item in zip(batch.ids, batch.texts, hypotheses, strict=True)
    ]


def _row(tokenizer: Tokenizer, name: str, ref: str, hypothesis: Hypothesis, frame_seconds: float) -> dict:
    """A line of hyps.jsonl; `units` are [symbol, seconds from the start of the cut]."""
    times = [round(frame * frame_seconds, 3) for frame in hypothesis.frames]
    units = [[tokenizer.symbols[unit], at] for unit, at in zip(hypothesis.tokens, times, strict=True)]
    text = tokenizer.decode(hypothesis.tokens)
    return {"id": name, "ref": ref, "hyp": text, "score": round(hypothesis.score, 4), "units": units}
