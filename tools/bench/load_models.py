"""What a load needs of a model: a folder to serve, speech to send, the words in it, and the folder for sherpa-onnx."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from load_delays import ChunkTiming, Words

import asrtool
from asrtool.checkpoint import save_checkpoint
from asrtool.config_file import load_config, save_config
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.samples import load_samples
from asrtool.errors import AsrtoolError
from asrtool.experiment import open_experiment
from asrtool.export.export import FACTS_FILE
from asrtool.files import file_hash
from asrtool.models.acoustic import BLANK, AcousticModel
from asrtool.streaming.latency import algorithmic_latency, read_aligned_words
from asrtool.text.tokenizer import BLANK_SYMBOL, SymbolTokenizer, save_tokenizer

RANDOM_UNITS = 500
UNIT_SHARE = 1 / 8  # of the frames of a model with random weights has a unit, the others blank: 3 units a second
CALIBRATION_SECONDS = 10
NOISE_SECONDS = 120.0


class Speech(NamedTuple):
    """Recordings one after the other: int16 samples (n,), their rate in Hz, and where each cut begins, in samples."""

    samples: np.ndarray
    rate: int
    cuts: list[str]
    starts: list[int]

    @property
    def seconds(self) -> float:
        """Their duration."""
        return len(self.samples) / self.rate


def join_recordings(manifest: Path | None, seconds: float, rate: int) -> Speech:
    """Returns the first `seconds` of recordings of a manifest, in whole cuts; noise without a manifest."""
    if manifest is None:
        noise = 0.1 * np.random.default_rng(1).standard_normal(round(NOISE_SECONDS * rate))
        return Speech(_int16(noise), rate, [], [])
    pieces: list[np.ndarray] = []
    cuts, starts, total = [], [], 0
    for cut in open_cuts(manifest):
        if total >= seconds * rate:
            break
        cuts.append(cut.id)
        starts.append(total)
        pieces.append(_int16(load_samples(cut if cut.sampling_rate == rate else cut.resample(rate)).numpy()))
        total += len(pieces[-1])
    return Speech(np.concatenate(pieces), rate, cuts, starts)


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.round(32767 * np.clip(samples, -1, 1)).astype(np.int16)


def random_system(path: Path, overrides: Sequence[str], folder: Path) -> Path:
    """Writes an experiment with random weights that emits a unit in UNIT_SHARE of its frames; returns its folder."""
    config = load_config(path, list(overrides))
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, *(f"w{number}" for number in range(1, RANDOM_UNITS))])
    torch.manual_seed(1)
    model = AcousticModel(config.model, config.features.num_bins, tokenizer.size)
    torch.nn.init.normal_(model.output.weight)  # by default it is so small that one unit is the best everywhere
    _set_blank_bias(model.eval(), config.features.num_bins)
    save_config(config, folder / "config.yaml")
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    state = {"model": model.state_dict(), "config": config.model_dump(mode="json")}
    save_checkpoint(folder / "checkpoints" / "averaged.pt", state)
    return folder


@torch.no_grad()
def _set_blank_bias(model: AcousticModel, bins: int) -> None:
    """Makes blank the best unit in all but UNIT_SHARE of the frames of random features."""
    frames = round(CALIBRATION_SECONDS / FRAME_SHIFT)
    log_probs = model(torch.randn(1, frames, bins), torch.tensor([frames]))[0][0]  # (T, V)
    lead = log_probs[:, BLANK + 1 :].amax(1) - log_probs[:, BLANK]
    model.output.bias[BLANK] += torch.quantile(lead, 1 - UNIT_SHARE)


def chunk_timing(model: asrtool.Model) -> ChunkTiming:
    """Returns the chunks of a model that streams."""
    experiment = model.experiment
    right, chunk = (FRAME_SHIFT * frames for frames in experiment.model.latency())
    ahead = algorithmic_latency(experiment)["max"] / 1000 - chunk
    return ChunkTiming(chunk, ahead, ahead - right)


def words_of_speech(model: asrtool.Model, speech: Speech, alignments: Path | None) -> tuple[Words, str]:
    """Returns the words of the recordings with their ends in seconds of the whole, and where the ends come from.

    Without a manifest of alignments they are those that the recogniser finds in each recording alone, with the times of
    its forced alignment.
    """
    if not speech.cuts:
        return [], "none: the audio is noise"
    known = read_aligned_words(alignments) if alignments else {}
    words: Words = []
    for cut, (begin, end) in zip(speech.cuts, pairwise([*speech.starts, len(speech.samples)]), strict=True):
        ends = known.get(cut, []) if alignments else _recognised(model, speech.samples[begin:end], speech.rate)
        words += [(word, begin / speech.rate + seconds) for word, seconds in ends]
    return words, f"alignments of {alignments}" if alignments else "the recogniser's own forced alignment"


def _recognised(model: asrtool.Model, samples: np.ndarray, rate: int) -> Words:
    stream = model.stream(rate, endpoint=())
    results = [*stream.accept(samples), *stream.finish()]
    return [(word.text, word.end) for result in results if result.is_final for word in result.words]


def words_of_stream(words: Words, speech: Speech, first: int, seconds: float) -> Words:
    """Returns the words of `seconds` of the looped recordings from sample `first` on, counted from there."""
    begin = first / speech.rate
    laps = range(int(seconds / speech.seconds) + 2)
    looped = [(word, end - begin + lap * speech.seconds) for lap in laps for word, end in words]
    return [(word, end) for word, end in looped if 0 < end < seconds]


def export_for_sherpa(folder: Path, out: Path, graph: Path | None) -> dict:
    """Runs `asrtool export --runtime sherpa-onnx`, unless `out` is that of the same weights; returns its facts.

    Raises AsrtoolError with the last line of a command that fails.
    """
    if (out / FACTS_FILE).exists():
        facts = _facts(out)
        same_graph = bool(facts["sherpa_onnx"]["decoding_graph"]) == bool(graph)
        if same_graph and facts["source"]["sha256"] == file_hash(open_experiment(folder, device="cpu").checkpoint):
            return facts
    command = [sys.executable, "-m", "asrtool", "export", str(folder), str(out), "--runtime", "sherpa-onnx"]
    command += ["--graph", str(graph)] if graph else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AsrtoolError(f"asrtool export: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return _facts(out)


def _facts(out: Path) -> dict:
    facts: dict = json.loads((out / FACTS_FILE).read_text(encoding="utf-8"))
    return facts
