"""Scores as text for people and as plain types for JSON."""

import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from asrtool.scoring.paired import Difference
from asrtool.scoring.wer import GAP, Alignment, ErrorCounts, Interval, Score, align_words, count_words, error_mark

GAP_TEXT = "***"
# Alignments are folded at this many columns: wide enough for most utterances, narrow enough for a terminal.
FOLD = 116


RATE = {"words": "WER", "phones": "PER"}


def interval_text(interval: Interval | None, form: str = "{:.2f}") -> str:
    """ "[9.30, 11.15]", or "[-]" where there is no interval."""
    return f"[{', '.join(map(form.format, interval))}]" if interval else "[-]"


def summary_line(name: str, score: Score) -> str:
    """The result of one set on one line; rates in percent, the interval in brackets."""
    counts = score.words
    cer = f" CER {score.cer:.2f} %" if score.of == "words" else ""  # names of phones are no spelling
    return (
        f"{name} {RATE[score.of]} {score.wer:.2f} % {interval_text(score.interval)} "
        f"({counts.insertions} ins, {counts.deletions} del, {counts.substitutions} sub / {counts.length} {score.of}) "
        f"SER {score.ser:.2f} %{cer} empty {score.empty_hypotheses}"
    )


def speakers_lines(score: Score) -> list[str]:
    """Below the summary line: the interval that holds for other speakers, too, where it is known."""
    if not score.speaker_interval:
        return []
    low, high = score.speaker_interval
    return [f"    [{low:.2f}, {high:.2f}] by bootstrap over the {len(score.speakers)} speakers"]


def difference_line(found: Difference) -> str:
    """How an error rate differs from another system's on the same utterances, in points of percent."""
    line = f"    {found.rate:+.2f} {interval_text(found.interval, '{:+.2f}')} against the other"
    if found.lower is None:
        return f"{line}, on a single utterance: nothing says how sure that is"
    return f"{line}, lower in {found.lower:.1f} % of draws of {found.utterances} utterances"


def score_dict(score: Score) -> dict:
    """`score` in plain types for JSON; rates and the interval in percent, None where infinite, which JSON has not."""
    return {
        "of": score.of,
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


def report_text(name: str, score: Score) -> str:
    """A report to read: the summary line, a table of totals, the most frequent confusions, and every speaker."""
    lines = [summary_line(name, score), "", *_totals(score), ""]
    lines += _confusion_table("Substitutions (reference -> hypothesis)", _arrows(score.confusions.substitutions))
    lines += _confusion_table("Insertions", score.confusions.insertions)
    lines += _confusion_table("Deletions", score.confusions.deletions)
    lines += _speakers(score)
    return "\n".join(lines)


def _totals(score: Score) -> Iterator[str]:
    yield from _counts_table([(score.of, score.words), ("characters", score.characters)])
    yield f"{'sentences':<12}{score.utterances:>10}{score.sentence_errors:>10}{'':>24}{score.ser:>10.2f}"
    yield ""
    for drawn, interval in (("utterances", score.interval), ("speakers", score.speaker_interval)):
        if interval:
            low, high = interval
            yield f"95 % interval of the {RATE[score.of]} (bootstrap over {drawn}): {low:.2f} to {high:.2f}"
    yield f"empty hypotheses: {score.empty_hypotheses}"
    yield "characters are counted in the text with single spaces, the spaces included"


def _counts_table(rows: list[tuple[str, ErrorCounts]]) -> Iterator[str]:
    width = max(12, *(_display_width(name) + 1 for name, _ in rows))
    yield f"{'':<{width}}{'reference':>10}{'errors':>10}{'ins':>8}{'del':>8}{'sub':>8}{'rate %':>10}"
    for name, counts in rows:
        edits = f"{counts.insertions:>8}{counts.deletions:>8}{counts.substitutions:>8}"
        yield f"{_pad(name, width)}{counts.length:>10}{counts.errors:>10}{edits}{counts.rate:>10.2f}"


def _speakers(score: Score) -> list[str]:
    """Those whose errors are the most come first, as they are who to listen to."""
    if not score.speakers:
        return []
    ranked = sorted(score.speakers.items(), key=lambda item: -item[1].rate)
    return [f"Speakers, the highest rate first, in {score.of}", *_counts_table(ranked), ""]


def _arrows(substitutions: list[tuple[str, str, int]]) -> list[tuple[str, int]]:
    return [(f"{ref} -> {hyp}", count) for ref, hyp, count in substitutions]


def _confusion_table(title: str, rows: list[tuple[str, int]]) -> list[str]:
    lines = [f"{count:>8}  {text}" for text, count in rows] or ["    none"]
    return [f"{title}, the most frequent first", *lines, ""]


def alignment_text(rows: Iterable[dict]) -> str:
    """Every utterance's alignment, words under words; `rows` hold id, ref and hyp. Long utterances are folded.

    utt-7  4 words, 2 errors: 1 ins, 1 del, 0 sub
    REF  the  cat  sat  ***   down
    HYP  the  ***  sat  back  down
              D         I
    """
    return "\n".join(line for row in rows for line in _utterance(row))


def alignment_rows(rows: Iterable[dict]) -> Iterator[dict]:
    """The same for programs, one object an utterance: id, the counts, and pairs [ref, hyp] with "" for a gap."""
    for row in rows:
        alignment = align_words(row["ref"], row["hyp"])
        counts = count_words(alignment)
        yield {"id": row["id"], **vars(counts), "errors": counts.errors, "alignment": [list(p) for p in alignment]}


def _utterance(row: dict) -> Iterator[str]:
    alignment = align_words(row["ref"], row["hyp"])
    counts = count_words(alignment)
    edits = f"{counts.insertions} ins, {counts.deletions} del, {counts.substitutions} sub"
    yield f"{row['id']}  {counts.length} words, {counts.errors} errors: {edits}"
    for part in _fold(alignment):
        yield from _columns(part)
    yield ""


def _fold(alignment: Alignment) -> Iterator[Alignment]:
    """Cut an alignment into parts of at most FOLD columns (one word may be longer); at least one part."""
    part, used = [], 0
    for pair in alignment:
        width = _cell_width(pair)
        if part and used + width > FOLD:
            yield part
            part, used = [], 0
        part.append(pair)
        used += width
    yield part


def _columns(part: Alignment) -> Iterator[str]:
    """The REF line, the HYP line and, when there are errors, the line of marks under them."""
    widths = [_cell_width(pair) for pair in part]
    texts = {
        "REF": [ref or GAP_TEXT for ref, _ in part],
        "HYP": [hyp or GAP_TEXT for _, hyp in part],
        "": [error_mark(*pair) for pair in part],
    }
    for label, cells in texts.items():
        line = f"{label:<5}" + "".join(_pad(cell, width) for cell, width in zip(cells, widths, strict=True))
        if label or line.strip():
            yield line.rstrip()


def _cell_width(pair: tuple[str, str]) -> int:
    return 2 + max(_display_width(word if word != GAP else GAP_TEXT) for word in pair)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _display_width(text))


def _display_width(text: str) -> int:
    """Terminal columns of `text`: East Asian wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
