"""Forced alignment of a manifest with an experiment: `asrtool align`."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from lhotse import CutSet, MonoCut
from lhotse.supervision import AlignmentItem

from asrtool.data.batch import Batch
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import transcripts
from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.alignment import Alignment, Span, align_texts
from asrtool.decoding.checks import check_cuts, check_recordings, recording_name
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment
from asrtool.files import atomic_path, require_output
from asrtool.progress import progress
from asrtool.text.spoken_text import pronounce_texts, some_of

AlignmentResult = Alignment | str  # or the reason why there is no alignment


def align(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    ctm: Path | None = None,
    batch_seconds: float = 200.0,
    workers: int = 1,
    max_minutes: float = 5.0,
    g2p: bool = True,
) -> str:
    """Writes the manifest `cuts` with alignments "word" and "unit" to `out`, and words as CTM; returns a summary.

    With `g2p`, words that the lexicon of a phone system lacks get predicted pronunciations, and are named. Cuts that
    cannot be aligned (without a path, or with words without units) are left out of `out`, and a DataError with all of
    them is raised after it was written; nothing is written unless other cuts remain. Before anything is aligned it
    raises the errors of `check_cuts` and, with `ctm`, of `check_recordings`, and UserError for outputs that cannot be
    written or are inputs.
    """
    require_output(out, (".jsonl.gz", ".jsonl"), [cuts])
    if ctm:
        require_output(ctm, (".ctm",), [cuts])
    check_cuts(cuts, max_minutes, experiment.config.data.max_seconds)
    experiment.max_seconds = 60 * max_minutes
    if ctm:
        check_recordings(cuts)
    guessed: tuple[str, ...] = ()
    if g2p and experiment.tokenizer.output_type == "phones":
        tokenizer, guessed = pronounce_texts(transcripts([cuts]), experiment.tokenizer)
        experiment = replace(experiment, tokenizer=tokenizer)
    note = f"; {len(guessed)} words pronounced by g2p: {some_of(guessed)}" if guessed else ""
    results = _align_in_order(experiment, cuts, batch_seconds, workers)
    num_written, problems = _write_alignments(results, experiment, out, ctm)
    if problems:
        summary = f"{len(problems)} cuts of {cuts} could not be aligned; {out} has the other {num_written}{note}"
        raise DataError(summary, problems)
    return f"{num_written} cuts aligned{note}"


def _write_alignments(
    results: Iterable[tuple[MonoCut, AlignmentResult]], experiment: Experiment, out: Path, ctm: Path | None
) -> tuple[int, list[str]]:
    """Writes the aligned cuts; returns their number, and the problems of the others.

    Raises DataError, and writes nothing, if there are only problems.
    """
    problems = []
    num_written = 0
    with ExitStack() as files:
        manifest = files.enter_context(CutSet.open_writer(files.enter_context(atomic_path(out))))
        ctm_file = None
        if ctm:
            ctm_file = files.enter_context(files.enter_context(atomic_path(ctm)).open("w", encoding="utf-8"))
        for cut, result in results:
            if isinstance(result, str):
                problems.append(f"{cut.id}: {result}")
                continue
            manifest.write(with_alignment(cut, result.units, result.words, experiment))
            num_written += 1
            if ctm_file:
                ctm_file.writelines(_ctm_lines(cut))
        if problems and not num_written:
            raise DataError(f"none of the {len(problems)} cuts could be aligned; nothing written", problems)
    return num_written, problems


def _align_in_order(
    experiment: Experiment, cuts: Path, batch_seconds: float, workers: int
) -> Iterator[tuple[MonoCut, AlignmentResult]]:
    """Yields each cut of the manifest, in order, with its alignment. Raises UserError when the manifest changes."""
    remaining = iter(open_cuts(cuts))
    results: dict[str, AlignmentResult] = {}  # of cuts behind the next one
    cut = next(remaining, None)
    batches = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(batches, f"aligning {cuts.name}", units="batches"):
        results |= align_cuts(batch, experiment)
        while cut is not None and cut.id in results:
            yield cut, results.pop(cut.id)
            cut = next(remaining, None)
    if cut is not None:
        raise UserError(f"{cuts} changed while it was read, at cut {cut.id}; align it again")


def align_cuts(batch: Batch, experiment: Experiment) -> dict[str, AlignmentResult]:
    """Returns the alignment of each cut, by its id, or the reason why there is none."""
    tokenizer = experiment.tokenizer
    results: dict[str, AlignmentResult] = {cut.id: cut.reason for cut in batch.skipped}
    for name, text in zip(batch.ids, batch.texts, strict=True):
        results[name] = "words without units" if text.split() else "no transcript"
    chosen = [n for n, text in enumerate(batch.texts) if text.split() and not tokenizer.unknown(text)]
    if not chosen:
        return results
    log_probs, lens = (values.cpu()[chosen] for values in experiment.log_probs(batch))
    texts = [batch.texts[n] for n in chosen]
    objective = experiment.config.objective
    silence = objective.optional_silence > 0
    alignments = align_texts(log_probs, lens, texts, tokenizer, objective.topology, silence=silence)
    for n, alignment in zip(chosen, alignments, strict=True):
        results[batch.ids[n]] = alignment or "too short for its text"
    return results


def with_alignment(cut: MonoCut, units: list[Span], words: list[Span], experiment: Experiment) -> MonoCut:
    """Returns the cut, with alignments "unit" and "word" in its supervision."""
    supervision = cut.supervisions[0]
    frame = experiment.frame_seconds
    supervision.alignment = (supervision.alignment or {}) | {
        "unit": _alignment_items(units, experiment.tokenizer.symbols, frame, cut.duration),
        "word": _alignment_items(words, supervision.text.split(), frame, cut.duration),
    }
    return cut


def _alignment_items(spans: list[Span], symbols: list[str], frame: float, duration: float) -> list[AlignmentItem]:
    """Returns lhotse's items of the spans, in seconds, for frames of `frame` seconds."""
    items = []
    for span in spans:
        begin, end = span.begin * frame, min(span.end * frame, duration)
        items.append(
            AlignmentItem(
                symbol=symbols[span.index],
                start=round(begin, 4),
                duration=round(end - begin, 4),
                score=round(span.score, 4),
            )
        )
    return items


def _ctm_lines(cut: MonoCut) -> Iterator[str]:
    """Yields lines of NIST's CTM: recording, channel, start and duration in the recording, word, confidence."""
    for item in cut.supervisions[0].alignment["word"]:
        name, start = recording_name(cut), cut.start + item.start
        confidence = min(1.0, float(np.exp(item.score)))
        yield f"{name} {cut.channel + 1} {start:.3f} {item.duration:.3f} {item.symbol} {confidence:.3f}\n"
