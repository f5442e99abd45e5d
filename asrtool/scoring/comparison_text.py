"""The comparison of systems as text for a terminal, and as plain values for JSON."""

import math
from collections.abc import Iterator, Sequence

from asrtool.scoring.comparison import ComparedUtterance, Comparison, Difference, GroupComparison, SystemDifference
from asrtool.scoring.report import RATE_NAMES, format_interval
from asrtool.scoring.wer import error_mark

MAX_SPEAKERS = 20
MAX_WORDS = 15
MAX_UTTERANCES = 3


def comparison_text(comparison: Comparison) -> str:
    """Returns the rates and differences, the groups, and the utterances and words that changed most."""
    rate = RATE_NAMES[comparison.token_type]
    lines = [totals_text(comparison)]
    lines += _groups(f"{rate} by speaker, the largest difference first", comparison.speakers[:MAX_SPEAKERS], comparison)
    lines += _groups(f"{rate} by length", comparison.lengths, comparison)
    for number, other in enumerate(comparison.others, 1):
        lines += _changes(other, number, comparison)
    return "\n".join(lines)


def totals_text(comparison: Comparison) -> str:
    """Returns the rates of the systems, and their differences to the first one."""
    words = sum(utterance.counts[0].length for utterance in comparison.utterances)
    lines = [f"{comparison.set}: {len(comparison.utterances)} utterances, {words} {comparison.token_type}", ""]
    lines += _totals(comparison, RATE_NAMES[comparison.token_type])
    return "\n".join(lines + comparison.notes)


def _totals(comparison: Comparison, rate: str) -> Iterator[str]:
    width = max(8, *map(len, comparison.systems)) + 2
    yield f"{'':<{width}}{rate + ' %':>8}  {'95 % interval':<16} {'difference':<26}{'fewer / more errors'}"
    for number, name in enumerate(comparison.systems):
        line = f"{name:<{width}}{comparison.rates[number]:>8.2f}  {format_interval(comparison.intervals[number]):<16}"
        if number:
            other = comparison.others[number - 1]
            line += f" {difference_text(other.total):<26}{len(other.won)} / {len(other.lost)} utterances"
        yield line.rstrip()
    yield ""
    yield from uncertainty_lines(comparison)


def difference_text(difference: Difference) -> str:
    """Returns "-1.20 [-2.00, -0.40]"."""
    return f"{difference.difference:+.2f} {format_interval(difference.interval, '{:+.2f}')}"


def uncertainty_lines(comparison: Comparison) -> list[str]:
    """Returns for each system whether it has fewer or more errors than the first one, and how sure that is."""
    return [_uncertainty(other, comparison.systems[0]) for other in comparison.others]


def _uncertainty(other: SystemDifference, first: str) -> str:
    total = other.total
    if total.percent_lower is None:
        return f"{other.name}: a single utterance says nothing about others."
    sign = (total.difference > 0) - (total.difference < 0)
    than = {-1: "fewer errors than", 0: "as many errors as", 1: "more errors than"}[sign]
    text = f"{other.name} has {than} {first}: difference {difference_text(total)}"
    if total.speaker_interval:
        text += f", over speakers {format_interval(total.speaker_interval, '{:+.2f}')}"
    return f"{text}; it has fewer errors in {total.percent_lower:.1f} % of the bootstrap replications."


def _groups(title: str, groups: Sequence[GroupComparison], comparison: Comparison) -> Iterator[str]:
    if not groups:
        return
    width = max(12, *(len(group.name) for group in groups)) + 2
    heads = [name[-12:] for name in comparison.systems]
    yield from ("", title)
    names = "".join(f"{name:>14}" for name in heads)
    yield f"{'':<{width}}{'utterances':>10}{comparison.token_type:>8}{names}  {'difference of the last':<26}"
    for group in groups:
        rates = "".join(f"{rate:>14.2f}" for rate in group.rates)
        last = difference_text(group.differences[-1])
        yield f"{group.name:<{width}}{group.utterances:>10}{group.words:>8}{rates}  {last}"


def _changes(other: SystemDifference, number: int, comparison: Comparison) -> Iterator[str]:
    systems = comparison.systems
    if other.words:
        tokens = comparison.token_type.capitalize()
        yield from ("", f"{tokens} that only one of {systems[0]} and {other.name} recognised, the largest change first")
        shown = other.words[:MAX_WORDS]
        width = max(len(word.word) for word in shown) + 2
        yield from (f"    {word.word:<{width}}{word.won:>4} won {word.lost:>4} lost" for word in shown)
    for title, utterances in (("gains", other.won), ("losses", other.lost)):
        if utterances:
            yield from ("", f"Largest {title} of {other.name}")
            for utterance in utterances[:MAX_UTTERANCES]:
                yield from _utterance_lines(utterance, number, systems)


def _utterance_lines(utterance: ComparedUtterance, system: int, systems: Sequence[str]) -> Iterator[str]:
    width = max(len(name) for name in ("REF", systems[0], systems[system])) + 2
    first, own = utterance.counts[0].errors, utterance.counts[system].errors
    yield f"{utterance.id}  errors: {first} -> {own}"
    yield f"    {'REF':<{width}}{utterance.ref}"
    for number in (0, system):
        yield f"    {systems[number]:<{width}}{_marked(utterance, number)}"


def _marked(utterance: ComparedUtterance, system: int) -> str:
    """Returns a hypothesis with its errors in brackets: [wrong], [+inserted], [-deleted]."""
    shown = {
        "": lambda _, hyp: hyp,
        "S": lambda _, hyp: f"[{hyp}]",
        "I": lambda _, hyp: f"[+{hyp}]",
        "D": lambda ref, _: f"[-{ref}]",
    }
    return " ".join(shown[error_mark(ref, hyp)](ref, hyp) for ref, hyp in utterance.alignments[system])


def comparison_dict(comparison: Comparison) -> dict:
    """Returns the comparison in plain values for JSON; rates and differences are in percent, infinite ones None."""
    return {
        "set": comparison.set,
        "token_type": comparison.token_type,
        "utterances": len(comparison.utterances),
        "systems": [
            {"name": name, "rate": _finite(rate), "interval": interval}
            for name, rate, interval in zip(comparison.systems, comparison.rates, comparison.intervals, strict=True)
        ],
        "differences": [_system_dict(other, number) for number, other in enumerate(comparison.others, 1)],
        "speakers": [_group_dict(group) for group in comparison.speakers],
        "lengths": [_group_dict(group) for group in comparison.lengths],
        "notes": comparison.notes,
    }


def _system_dict(other: SystemDifference, number: int) -> dict:
    return {
        "name": other.name,
        **_difference_dict(other.total),
        "won": {utterance.id: -utterance.more_errors(number) for utterance in other.won},
        "lost": {utterance.id: utterance.more_errors(number) for utterance in other.lost},
        "words": [{"word": word.word, "won": word.won, "lost": word.lost} for word in other.words],
    }


def _difference_dict(difference: Difference) -> dict:
    return {
        "difference": difference.difference,
        "interval": difference.interval,
        "percent_lower": difference.percent_lower,
        "speaker_interval": difference.speaker_interval,
    }


def _group_dict(group: GroupComparison) -> dict:
    return {
        "name": group.name,
        "utterances": group.utterances,
        "words": group.words,
        "rates": [_finite(rate) for rate in group.rates],
        "differences": [_difference_dict(difference) for difference in group.differences],
    }


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None
