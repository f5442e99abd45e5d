"""Scores as readable text and as plain values for JSON."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

from asrtool.scoring.paired import PairedDifference
from asrtool.scoring.wer import Alignment, ErrorCounts, Interval, Score, align_words, count_word_errors, error_mark
from asrtool.text.display_width import display_width

GAP_TEXT = "***"
# Alignments are folded at this many columns: wide enough for most utterances, narrow enough for a terminal.
FOLD_COLUMNS = 116
RATE_NAMES = {"words": "WER", "phones": "PER"}


def format_interval(interval: Interval | None, number_format: str = "{:.2f}") -> str:
    """Returns an interval such as "[9.30, 11.15]", or "[-]" if there is none."""
    if interval is None:
        return "[-]"
    low, high = (number_format.format(limit) for limit in interval)
    return f"[{low}, {high}]"


def summary_line(name: str, score: Score) -> str:
    """Returns the result of one set in one line; rates are in percent, the interval is in brackets."""
    counts = score.words
    edits = f"{counts.insertions} ins, {counts.deletions} del, {counts.substitutions} sub"
    rate = f"{RATE_NAMES[score.token_type]} {score.wer:.2f} % {format_interval(score.interval)}"
    cer = f" CER {score.cer:.2f} %" if score.token_type == "words" else ""  # characters of phone names mean nothing
    total = f"{counts.length} {score.token_type}"
    return f"{name} {rate} ({edits} / {total}) SER {score.ser:.2f} %{cer} empty {score.empty_hypotheses}"


def speaker_interval_lines(score: Score) -> list[str]:
    """Returns a line with the bootstrap interval over speakers, to be shown below the summary line, if it is known."""
    if not score.speaker_interval:
        return []
    interval = format_interval(score.speaker_interval)
    return [f"    {interval} by bootstrap over the {len(score.speakers)} speakers"]


def difference_line(difference: PairedDifference) -> str:
    """Returns a line with the difference to another system's error rate on the same utterances, in percent."""
    interval = format_interval(difference.interval, "{:+.2f}")
    line = f"    {difference.difference:+.2f} {interval} against the other"
    if difference.percent_lower is None:
        return f"{line}, on a single utterance with a reference: its uncertainty is unknown"
    lower = f"lower in {difference.percent_lower:.1f} % of bootstrap replications"
    return f"{line}, {lower} of {difference.utterances} utterances"


def score_dict(score: Score) -> dict:
    """Returns the score in plain values for JSON; rates and intervals are in percent, infinite rates are None."""
    return {
        "token_type": score.token_type,
        "wer": score.wer,
        "wer_interval": score.interval and list(score.interval),
        "wer_interval_speakers": score.speaker_interval and list(score.speaker_interval),
        "cer": score.cer,
        "ser": score.ser,
        "utterances": score.utterances,
        "sentence_errors": score.sentence_errors,
        "empty_hypotheses": score.empty_hypotheses,
        "words": _counts_dict(score.words),
        "characters": _counts_dict(score.characters),
        "confusions": asdict(score.confusions),
        "speakers": {name: _rate_dict(counts) | _counts_dict(counts) for name, counts in score.speakers.items()},
    }


def _rate_dict(counts: ErrorCounts) -> dict:
    return {"rate": counts.rate if math.isfinite(counts.rate) else None}


def _counts_dict(counts: ErrorCounts) -> dict:
    return {"errors": counts.errors, **asdict(counts)}


def report_text(name: str, score: Score, more: Sequence[str] = ()) -> str:
    """Returns a readable report: the summary line, a table of totals, the most frequent confusions, every speaker.

    `more` are lines that follow the totals.
    """
    substitutions = [(f"{ref} -> {hyp}", count) for ref, hyp, count in score.confusions.substitutions]
    lines = [
        summary_line(name, score),
        "",
        *_totals(score),
        "",
        *more,
        *_confusion_lines("Substitutions (reference -> hypothesis)", substitutions),
        *_confusion_lines("Insertions", score.confusions.insertions),
        *_confusion_lines("Deletions", score.confusions.deletions),
        *_speaker_lines(score),
    ]
    return "\n".join(lines)


def _totals(score: Score) -> Iterator[str]:
    yield from _counts_table([(score.token_type, score.words), ("characters", score.characters)])
    yield f"{'sentences':<12}{score.utterances:>10}{score.sentence_errors:>10}{'':>24}{score.ser:>10.2f}"
    yield ""
    rate = RATE_NAMES[score.token_type]
    for drawn, interval in (("utterances", score.interval), ("speakers", score.speaker_interval)):
        if interval:
            low, high = interval
            yield f"95 % interval of the {rate} (bootstrap over {drawn}): {low:.2f} to {high:.2f}"
    yield f"empty hypotheses: {score.empty_hypotheses}"
    yield "characters are counted in the text with single spaces, the spaces included"


def _counts_table(rows: list[tuple[str, ErrorCounts]]) -> Iterator[str]:
    width = max(12, *(display_width(name) + 1 for name, _ in rows))
    yield f"{'':<{width}}{'reference':>10}{'errors':>10}{'ins':>8}{'del':>8}{'sub':>8}{'rate %':>10}"
    for name, counts in rows:
        edits = f"{counts.insertions:>8}{counts.deletions:>8}{counts.substitutions:>8}"
        yield f"{_pad(name, width)}{counts.length:>10}{counts.errors:>10}{edits}{counts.rate:>10.2f}"


def _speaker_lines(score: Score) -> list[str]:
    """Returns a table of the speakers, the highest error rate first: these are the recordings to listen to."""
    if not score.speakers:
        return []
    ranked = sorted(score.speakers.items(), key=lambda item: -item[1].rate)
    return [f"Speakers, the highest rate first, in {score.token_type}", *_counts_table(ranked), ""]


def _confusion_lines(title: str, rows: list[tuple[str, int]]) -> list[str]:
    lines = [f"{count:>8}  {text}" for text, count in rows] or ["    none"]
    return [f"{title}, the most frequent first", *lines, ""]


def align_rows(rows: Iterable[dict]) -> list[Alignment]:
    """Returns the alignment of every utterance; `rows` hold ref and hyp."""
    return [align_words(row["ref"], row["hyp"]) for row in rows]


def alignment_text(rows: Sequence[dict], alignments: Sequence[Alignment]) -> str:
    """Returns the alignment of every utterance in columns; `rows` hold the ids. Long utterances are folded.

    utt-7  4 words, 2 errors: 1 ins, 1 del, 0 sub
    REF  the  cat  sat  ***   down
    HYP  the  ***  sat  back  down
              D         I
    """
    pairs = zip(rows, alignments, strict=True)
    return "\n".join(line for row, alignment in pairs for line in _utterance_lines(row["id"], alignment))


def alignment_rows(rows: Sequence[dict], alignments: Sequence[Alignment]) -> Iterator[dict]:
    """Yields the alignment of every utterance for programs: id, counts, and pairs [ref, hyp] with "" for a gap."""
    for row, alignment in zip(rows, alignments, strict=True):
        counts = count_word_errors(alignment)
        pairs = [list(pair) for pair in alignment]
        yield {"id": row["id"], **vars(counts), "errors": counts.errors, "alignment": pairs}


def _utterance_lines(utterance_id: str, alignment: Alignment) -> Iterator[str]:
    counts = count_word_errors(alignment)
    edits = f"{counts.insertions} ins, {counts.deletions} del, {counts.substitutions} sub"
    yield f"{utterance_id}  {counts.length} words, {counts.errors} errors: {edits}"
    for part in _fold(_cells(alignment)):
        yield from _column_lines(part)
    yield ""


class _Cell(NamedTuple):
    """One column of an alignment, whose texts are padded to its width."""

    ref: str
    hyp: str
    mark: str
    width: int


def _cells(alignment: Alignment) -> Iterator[_Cell]:
    is_ascii = all(ref.isascii() and hyp.isascii() for ref, hyp in alignment)
    width_of, pad = (len, str.ljust) if is_ascii else (display_width, _pad)
    for ref, hyp in alignment:
        ref_text = ref or GAP_TEXT
        hyp_text = hyp or GAP_TEXT
        width = 2 + max(width_of(ref_text), width_of(hyp_text))
        yield _Cell(pad(ref_text, width), pad(hyp_text, width), error_mark(ref, hyp).ljust(width), width)


def _fold(cells: Iterable[_Cell]) -> Iterator[list[_Cell]]:
    """Cuts an alignment into parts of at most FOLD_COLUMNS (one word may be longer); yields at least one part."""
    part: list[_Cell] = []
    used = 0
    for cell in cells:
        if part and used + cell.width > FOLD_COLUMNS:
            yield part
            part = []
            used = 0
        part.append(cell)
        used += cell.width
    yield part


def _column_lines(part: list[_Cell]) -> Iterator[str]:
    """Yields the REF line, the HYP line and, if there are errors, the line of marks under them."""
    yield ("REF  " + "".join(cell.ref for cell in part)).rstrip()
    yield ("HYP  " + "".join(cell.hyp for cell in part)).rstrip()
    marks = "".join(cell.mark for cell in part)
    if marks.strip():
        yield ("     " + marks).rstrip()


def _pad(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))
