"""Forced alignment: when each unit and word of a known transcript is said."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, MonoCut
from lhotse.supervision import AlignmentItem

from asrtool.data.batch import Batch
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.manifest import open_cuts
from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.checks import check_cuts, check_recordings, recording_name
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment
from asrtool.files import atomic_path, require_output
from asrtool.graphs.training_graphs import FrameGraph, Topology, UnitGraph, expand_topology, numerator_graph
from asrtool.objectives.viterbi import viterbi
from asrtool.progress import progress
from asrtool.text.tokenizer import BLANK, Tokenizer

# Of the mean time of a unit: so many blanks on either side are the unit's; pauses are longer, and nobody's. On speech
# with known boundaries (egs/digits) this is best for phones and for whole words as units.
SHARE = 0.2


@dataclass(frozen=True)
class Span:
    """A unit or a word."""

    number: int  # of the unit in the tokenizer; of the word in the transcript
    begin: int  # output frame
    end: int  # the frame behind the last
    score: float  # mean log-probability of the frames that read it


Found = tuple[list[Span], list[Span]] | str  # units and words, or why there are none


def spans_of_path(path: list[int], graph: FrameGraph, emitted: np.ndarray, share: float) -> list[tuple[int, Span]]:
    """The units of a best path (T,), each with its state of the graph over units; emitted (T, V) log-probabilities.

    CTC says a unit in few of its frames and blanks in the rest. The blanks between two units are shared between them,
    at most `share` of the utterance's mean time of a unit to each; what is left over is a pause.
    """
    units, time = [], 0
    for state, frames in groupby(path):
        end = time + len(list(frames))
        label = int(graph.label[state])
        if label != BLANK:
            units.append((int(graph.unit_state[state]), Span(label, time, end, float(emitted[time:end, label].mean()))))
        time = end
    most = math.ceil(share * len(path) / max(1, len(units)))
    begins, ends = [span.begin for _, span in units], [span.end for _, span in units]
    gaps = [b - e for b, e in zip([*begins, len(path)], [0, *ends], strict=True)]  # before each, and after the last
    before = [min(gaps[0], most), *(min(gap // 2, most) for gap in gaps[1:-1])]
    after = [*(min(gap - gap // 2, most) for gap in gaps[1:-1]), min(gaps[-1], most)]
    grown = zip(units, before, after, strict=True) if units else ()
    return [(place, Span(s.number, s.begin - b, s.end + a, s.score)) for (place, s), b, a in grown]


def align_batch(
    log_probs: torch.Tensor,
    lens: torch.Tensor,
    texts: list[str],
    tokenizer: Tokenizer,
    topology: Topology,
    share: float = SHARE,
) -> list[tuple[list[Span], list[Span]] | None]:
    """For each utterance its units and its words; None where the audio is too short for any path of its text.

    log_probs (N, T', V) and lens (N,) on the CPU. A text that the tokenizer cannot spell raises KeyError.
    """
    found: list[tuple[list[Span], list[Span]] | None] = []
    for frames, length, text in zip(log_probs.float().numpy(), lens.tolist(), texts, strict=True):
        numerator = numerator_graph(tokenizer.alternatives(text))
        graph = expand_topology(numerator, topology)
        score, path = viterbi(frames[:length], graph)
        if not np.isfinite(score):
            found.append(None)
            continue
        units = spans_of_path(path.tolist(), graph, frames, share)
        found.append(([span for _, span in units], _words(units, numerator)))
    return found


def _words(units: list[tuple[int, Span]], graph: UnitGraph) -> list[Span]:
    of_words = [(graph.word[place], span) for place, span in units if place in graph.word]
    words = []
    for number, group in groupby(of_words, key=lambda pair: pair[0]):
        spans = [span for _, span in group]
        words.append(Span(number, spans[0].begin, spans[-1].end, float(np.mean([span.score for span in spans]))))
    return words


def align(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    ctm: Path | None = None,
    batch_seconds: float = 200.0,
    workers: int = 1,
    max_minutes: float = 5.0,
) -> str:
    """Write the manifest `cuts` with alignments "word" and "unit" to `out`, and words as CTM; returns what there is.

    Raises DataError, with all of them, when there are cuts that cannot be aligned: no path, or words without units.
    They are left out of `out`, which is written before. Raises, before anything is aligned, what `check_cuts` does and,
    with `ctm`, `check_recordings`, and UserError for outputs that cannot be written or are inputs.
    """
    _check_outputs(cuts, out, ctm)
    check_cuts(cuts, max_minutes, experiment.config.data.max_seconds)
    experiment.max_seconds = 60 * max_minutes
    if ctm:
        check_recordings(cuts)
    problems, written = [], 0
    with ExitStack() as files:
        manifest = files.enter_context(CutSet.open_writer(files.enter_context(atomic_path(out))))
        lines = files.enter_context(files.enter_context(atomic_path(ctm)).open("w", encoding="utf-8")) if ctm else None
        for cut, spans in _aligned(experiment, cuts, batch_seconds, workers):
            if isinstance(spans, str):
                problems.append(f"{cut.id}: {spans}")
                continue
            manifest.write(with_alignment(cut, *spans, experiment))
            written += 1
            if lines:
                lines.writelines(_ctm(cut))
    if problems:
        raise DataError(f"{len(problems)} cuts of {cuts} could not be aligned; {out} has the other {written}", problems)
    return f"{written} cuts aligned"


def _aligned(experiment: Experiment, cuts: Path, batch_seconds: float, workers: int) -> Iterator[tuple[MonoCut, Found]]:
    """Each cut of the manifest in its order, with what `align_cuts` finds. UserError when the manifest changes."""
    waiting, found = iter(open_cuts(cuts)), {}
    cut = next(waiting, None)
    loaded = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(loaded, f"aligning {cuts.name}", units="batches"):
        found |= align_cuts(batch, experiment)
        while cut is not None and cut.id in found:
            yield cut, found.pop(cut.id)
            cut = next(waiting, None)
    if cut is not None:
        raise UserError(f"{cuts} changed while it was read, at cut {cut.id}; align it again")


def _check_outputs(cuts: Path, out: Path, ctm: Path | None) -> None:
    require_output(out, (".jsonl.gz", ".jsonl"), [cuts])
    if ctm:
        require_output(ctm, (".ctm",), [cuts])


def align_cuts(batch: Batch, experiment: Experiment) -> dict[str, Found]:
    """Units and words of each cut, by its id, or why there are none."""
    tokenizer, topology = experiment.tokenizer, experiment.config.objective.topology
    found: dict[str, Found] = {
        name: "words without units" if text.split() else "no transcript"
        for name, text in zip(batch.ids, batch.texts, strict=True)
    } | {cut.id: cut.reason for cut in batch.skipped}
    keep = [n for n, text in enumerate(batch.texts) if text.split() and not tokenizer.unknown(text)]
    if not keep:
        return found
    log_probs, lens = (values.cpu()[keep] for values in experiment.log_probs(batch))
    aligned = align_batch(log_probs, lens, [batch.texts[n] for n in keep], tokenizer, topology)
    return found | {batch.ids[n]: spans or "too short for its text" for n, spans in zip(keep, aligned, strict=True)}


def _frame_seconds(experiment: Experiment) -> float:
    return FRAME_SHIFT * experiment.model.subsampling.factor


def with_alignment(cut: MonoCut, units: list[Span], words: list[Span], experiment: Experiment) -> MonoCut:
    """The cut with alignments "unit" and "word"."""
    frame, said_words = _frame_seconds(experiment), cut.supervisions[0].text.split()

    def items(spans: list[Span], symbols: list[str]) -> list[AlignmentItem]:
        ends = [min(span.end * frame, cut.duration) for span in spans]
        times = (
            (round(s.begin * frame, 4), round(end - s.begin * frame, 4)) for s, end in zip(spans, ends, strict=True)
        )
        scores = (round(span.score, 4) for span in spans)
        return [AlignmentItem(symbols[s.number], *t, score) for s, t, score in zip(spans, times, scores, strict=True)]

    found = {"unit": items(units, experiment.tokenizer.symbols), "word": items(words, said_words)}
    cut.supervisions[0].alignment = (cut.supervisions[0].alignment or {}) | found
    return cut


def _ctm(cut: MonoCut) -> Iterator[str]:
    """Lines of NIST's CTM: recording, channel, start and length in seconds of the recording, word, confidence."""
    for item in cut.supervisions[0].alignment["word"]:
        name, start = recording_name(cut), cut.start + item.start
        confidence = min(1.0, float(np.exp(item.score)))
        yield f"{name} {cut.channel + 1} {start:.3f} {item.duration:.3f} {item.symbol} {confidence:.3f}\n"
