"""Error rates of groups of utterances: by speaker, gender, length, speaking rate and SNR, each with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asrtool.pages.elements import Element, bar, bars, column, counted, details, table
from asrtool.pages.results import DecodedUtterance, total_counts
from asrtool.scoring.bootstrap import bootstrap_rates, interval_half_width
from asrtool.scoring.groups import groups_of_equal_size
from asrtool.scoring.report import RATE_NAMES
from asrtool.scoring.wer import Interval

MAX_BARS = 20  # speakers that are drawn; the table has all


@dataclass(frozen=True)
class Group:
    """Utterances that have something in common, such as a speaker."""

    name: str
    utterances: list[DecodedUtterance]

    @cached_property
    def rate(self) -> float | None:
        """The error rate in percent; None without reference words."""
        rate = total_counts(self.utterances).rate
        return rate if math.isfinite(rate) else None

    @cached_property
    def interval(self) -> Interval | None:
        """The 95 % bootstrap interval of the rate over utterances, in percent; None for a single one."""
        return rate_interval(self.utterances)


def rate_interval(utterances: Sequence[DecodedUtterance]) -> Interval | None:
    """Returns the 95 % bootstrap interval of the error rate over utterances, in percent; see `bootstrap_interval`."""
    errors = np.array([utterance.counts.errors for utterance in utterances])
    words = np.array([utterance.counts.length for utterance in utterances])
    return bootstrap_interval(errors, words)


def bootstrap_interval(errors: np.ndarray, words: np.ndarray) -> Interval | None:
    """Returns the 95 % interval of 100 * errors / words of utterances (N,), which are drawn with replacement.

    It is None for one utterance, without words, and where all utterances have the same rate, such as 0: the drawn ones
    have it, too, which says nothing about other utterances.
    """
    if len(words) < 2 or not words.sum():
        return None
    rate = float(100 * errors.sum() / words.sum())
    half = interval_half_width(bootstrap_rates(errors, words))
    return (max(0.0, rate - half), rate + half) if half else None


def groups_by_name(
    utterances: Sequence[DecodedUtterance], name_of: Callable[[DecodedUtterance], str | None]
) -> list[Group]:
    """Returns a group for each name, sorted by name, without the utterances that have none."""
    groups: dict[str, list[DecodedUtterance]] = {}
    for utterance in utterances:
        if (name := name_of(utterance)) is not None:
            groups.setdefault(name, []).append(utterance)
    return [Group(name, groups[name]) for name in sorted(groups)]


def groups_by_measure(
    utterances: Sequence[DecodedUtterance], measure: Callable[[DecodedUtterance], float | None], unit: str
) -> list[Group]:
    """Returns the groups of `groups_of_equal_size`, without the utterances that have no value."""
    measured = [(value, utterance) for utterance in utterances if (value := measure(utterance)) is not None]
    groups = []
    digits = 2 if unit.endswith("/s") else 1  # all speaking rates are within a few words a second
    for indices in groups_of_equal_size([value for value, _ in measured]):
        inside = [measured[index] for index in indices]
        name = f"{inside[0][0]:.{digits}f} to {inside[-1][0]:.{digits}f} {unit}"
        groups.append(Group(name, [utterance for _, utterance in inside]))
    return groups


def group_bars(caption: str, groups: Sequence[Group], token_type: str) -> Element | None:
    """Returns the error rates of groups as bars with intervals; None for fewer than two groups."""
    known = [(group, group.rate) for group in groups]
    items = [bar(g.name, rate, g.interval, _size_note(g, token_type)) for g, rate in known if rate is not None]
    return bars(caption, f"{RATE_NAMES[token_type]} in %, with 95 % interval", items) if len(items) > 1 else None


def _size_note(group: Group, token_type: str) -> str:
    tokens = counted(total_counts(group.utterances).length, token_type.removesuffix("s"))
    return f"{tokens}, {counted(len(group.utterances), 'utterance')}"


def group_table(caption: str, first: str, groups: Sequence[Group], token_type: str) -> Element:
    """Returns the error counts of groups as a table, the highest rate first; `first` heads the column of names."""
    columns = [
        *(column(first), column("utterances", "number"), column(token_type, "number")),
        *(column(f"{RATE_NAMES[token_type]} %", "number", 2), column("95 % interval", "interval", 2)),
        *(column("ins", "number"), column("del", "number"), column("sub", "number")),
    ]
    rows = []
    for group in sorted(groups, key=lambda one: -(one.rate or 0)):
        c = total_counts(group.utterances)
        figures = (len(group.utterances), c.length, group.rate, group.interval)
        rows.append((group.name, *figures, c.insertions, c.deletions, c.substitutions))
    return table(caption, columns, rows)


def breakdown_elements(utterances: Sequence[DecodedUtterance], token_type: str) -> list[Element | None]:
    """Returns the error rates by gender, length, speaking rate, SNR and speaker, as far as these are known."""
    unit = f"{token_type}/s"
    speakers = groups_by_name(utterances, lambda u: u.speaker)
    return [
        group_bars("By length", groups_by_measure(utterances, lambda u: u.seconds, "s"), token_type),
        group_bars("By speaking rate", groups_by_measure(utterances, lambda u: u.words_per_second, unit), token_type),
        group_bars("By estimated SNR", groups_by_measure(utterances, lambda u: u.snr, "dB"), token_type),
        group_bars("By gender", groups_by_name(utterances, lambda u: u.gender), token_type),
        *speaker_elements(speakers, token_type),
    ]


def speaker_elements(speakers: Sequence[Group], token_type: str) -> list[Element | None]:
    """Returns bars of the speakers with the highest error rates, and a table of all; nothing for fewer than two."""
    if len(speakers) < 2:
        return []
    worst = sorted(speakers, key=lambda group: -(group.rate or 0))[:MAX_BARS]
    some = (
        f", the {MAX_BARS} with the highest {RATE_NAMES[token_type]} of {len(speakers)}"
        if len(speakers) > MAX_BARS
        else ""
    )
    all_speakers = group_table("Speakers", "speaker", speakers, token_type)
    return [
        group_bars(f"By speaker{some}", worst, token_type),
        details(f"Table of {len(speakers)} speakers", [all_speakers]),
    ]
