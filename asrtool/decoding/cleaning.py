"""Utterances whose transcript the audio contradicts, as by Kaldi's find_bad_utts and cleanup (`asrtool clean`).

Each utterance is aligned with its transcript, words and audio of which may be skipped at a cost (a graph biased to the
transcript with a loop over units: asrtool/decoding/edit_graph.py). What this costs for each unit is compared with the
rest of the set by a robust z-score, since models and recordings differ in how well they fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asrtool.data.batch import Batch
from asrtool.data.manifest import transcripts
from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.edit_alignment import EditAlignment, align_with_edits
from asrtool.decoding.edit_graph import edit_graph
from asrtool.decoding.long_alignment import greedy_units
from asrtool.decoding.recording_log_probs import phone_log_probs, topology_with_blank
from asrtool.experiment import Experiment
from asrtool.graphs.training_graphs import Topology
from asrtool.progress import progress
from asrtool.scoring.wer import GAP, Alignment, count_word_errors
from asrtool.text.spoken_text import pronounce_texts
from asrtool.text.tokenizer import Tokenizer

MAD_TO_STD = 1.4826  # of a normal distribution: its standard deviation, divided by its median absolute deviation
# Smallest spread of costs for each unit, in nats: in a set without errors nearly all are 0, and any error would stand
# out. 0.1 is one misrecognised unit in 50.
MIN_SPREAD = 0.1


@dataclass(frozen=True)
class UtteranceScore:
    """How well an utterance and its transcript fit.

    cost: of the best alignment with edits compared with the greedy hypothesis, in nats for each unit of the longer of
    transcript and hypothesis; 0 is best. missing: share of the transcript's units whose words are not in the audio.
    extra: share of the heard units that the transcript does not have. text: the transcript, its missing words in
    brackets. problem: why it could not be aligned, "" otherwise.
    """

    id: str
    seconds: float
    cost: float
    missing: float
    extra: float
    text: str
    heard: str
    problem: str = ""


@dataclass(frozen=True)
class Limits:
    """What an utterance may have at most: a z-score of its cost, and shares of missing and extra units.

    Of 772 utterances with right transcripts, by three systems, none has a share above 0.05; where three words of an
    utterance are others, it is 0.1 to 0.3 (docs/alignment.md).
    """

    z: float = 5.0
    share: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """An utterance with the z-score of its cost within its set, and the reasons why it is bad, if it is.

    word_pairs: the transcript aligned with what was recognised, in words; None where this was not done.
    """

    score: UtteranceScore
    z: float
    reasons: Sequence[str]
    word_pairs: Alignment | None = None

    def as_row(self) -> dict:
        """Returns plain values for a JSON file."""
        row = {**asdict(self.score), "z": self.z, "reasons": list(self.reasons)}
        if self.word_pairs is None:
            return row
        heard = " ".join(word for _, word in self.word_pairs if word != GAP)
        return row | {"heard_words": heard, "word_errors": count_word_errors(self.word_pairs).errors}


def tokenizer_for(cuts: Path, tokenizer: Tokenizer) -> Tokenizer:
    """Returns the tokenizer, without context, with pronunciations by g2p for the words of a manifest that it lacks."""
    tokenizer = tokenizer.without_context
    if tokenizer.output_type != "phones":
        return tokenizer
    return pronounce_texts(transcripts([cuts]), tokenizer)[0]


def score_cuts(experiment: Experiment, cuts: Path, batch_seconds: float, workers: int) -> Iterator[UtteranceScore]:
    """Yields the score of each cut of a manifest, the short ones first. Check the manifest with `check_cuts` before."""
    tokenizer = tokenizer_for(cuts, experiment.tokenizer)
    batches = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(batches, f"scoring {cuts.name}", units="batches"):
        yield from (UtteranceScore(c.id, 0.0, np.inf, 1.0, 0.0, c.text, "", c.reason) for c in batch.skipped)
        yield from _score_batch(experiment, batch, tokenizer)


def _score_batch(experiment: Experiment, batch: Batch, tokenizer: Tokenizer) -> Iterator[UtteranceScore]:
    if not batch.ids:
        return
    rows, lens = experiment.log_probs(batch)
    for name, text, row, length in zip(batch.ids, batch.texts, rows.float().cpu().numpy(), lens.tolist(), strict=True):
        log_probs = phone_log_probs(row[:length], experiment)
        seconds = length * experiment.frame_seconds
        yield score_utterance(name, seconds, text, log_probs, tokenizer, topology_with_blank(experiment))


def score_utterance(
    name: str, seconds: float, text: str, log_probs: np.ndarray, tokenizer: Tokenizer, topology: Topology
) -> UtteranceScore:
    """Returns the score of an utterance with log_probs (T, V)."""
    heard, _, _ = greedy_units(log_probs)
    heard_text = tokenizer.decode(heard.tolist())
    if not text.split():
        return UtteranceScore(name, seconds, np.inf, 0.0, 1.0, text, heard_text, "no transcript")
    if unknown := tokenizer.unknown(text):
        listed = " ".join(dict.fromkeys(unknown))[:100]
        return UtteranceScore(
            name, seconds, np.nan, 0.0, 0.0, text, heard_text, f"cannot be checked: no unit for {listed}"
        )
    words = tokenizer.pronunciation_units(text)
    edits = align_with_edits(log_probs, edit_graph(words, log_probs.shape[1], topology))
    num_units = np.array([len(pronunciations[0]) for pronunciations in words])
    lost = float(log_probs.max(axis=1).sum(dtype=np.float64)) - edits.score
    return UtteranceScore(
        id=name,
        seconds=seconds,
        cost=lost / max(int(num_units.sum()), len(heard)),
        missing=float(num_units[~edits.present].sum() / num_units.sum()),
        extra=_num_extra(log_probs, edits) / max(1, len(heard)),
        text=_marked(text.split(), edits.present),
        heard=heard_text,
    )


def _num_extra(log_probs: np.ndarray, edits: EditAlignment) -> int:
    return sum(len(greedy_units(log_probs[filler.begin : filler.end])[0]) for filler in edits.fillers)


def _marked(words: Sequence[str], present: np.ndarray) -> str:
    return " ".join(word if is_present else f"[{word}]" for word, is_present in zip(words, present, strict=True))


def judge(scores: Sequence[UtteranceScore], limits: Limits) -> list[Verdict]:
    """Returns a verdict on each utterance, in the same order."""
    costs = np.array([score.cost for score in scores])
    finite = costs[np.isfinite(costs)]
    median = float(np.median(finite)) if len(finite) else 0.0
    spread = MAD_TO_STD * float(np.median(np.abs(finite - median))) if len(finite) else 0.0
    z_scores = (costs - median) / max(spread, MIN_SPREAD)
    return [Verdict(s, float(z), _reasons(s, float(z), limits)) for s, z in zip(scores, z_scores, strict=True)]


def _reasons(score: UtteranceScore, z: float, limits: Limits) -> list[str]:
    if score.problem:
        return [score.problem]
    reasons = []
    if score.missing > limits.share:
        reasons.append(f"{100 * score.missing:.0f} % of the transcript is not in the audio")
    if score.extra > limits.share:
        reasons.append(f"{100 * score.extra:.0f} % of the speech is not in the transcript")
    if z > limits.z:
        reasons.append(f"it fits worse than the rest of the set (z-score {z:.1f})")
    return reasons
