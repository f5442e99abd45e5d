"""Comparison of two or more systems on the same utterances: rates, differences, utterances won and lost, words.

The first system is the baseline: all others are compared with it, on utterances that both recognised. Differences have
95 % intervals by paired bootstrap (Bisani and Ney, ICASSP 2004): both systems are scored on the same draws, so that
what is hard for both does not count.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from asrtool.errors import DataError, UserError
from asrtool.progress import progress
from asrtool.scoring.bootstrap import bootstrap_rates, interval_half_width
from asrtool.scoring.groups import groups_of_equal_size
from asrtool.scoring.paired import difference_of_errors
from asrtool.scoring.wer import GAP, Alignment, ErrorCounts, Interval, align_words, count_word_errors, wer_interval

MIN_SPEAKERS = 3  # for an interval over speakers: draws of two speakers have three outcomes


@dataclass(frozen=True)
class ComparedUtterance:
    """An utterance that all systems recognised, with their hypotheses in the systems' order."""

    id: str
    ref: str
    hyps: tuple[str, ...]
    speaker: str | None = None
    seconds: float | None = None

    @cached_property
    def alignments(self) -> tuple[Alignment, ...]:
        """The alignment of each hypothesis with the reference."""
        return tuple(align_words(self.ref, hyp) for hyp in self.hyps)

    @cached_property
    def counts(self) -> tuple[ErrorCounts, ...]:
        """The errors of each hypothesis."""
        return tuple(map(count_word_errors, self.alignments))

    def more_errors(self, system: int) -> int:
        """Returns by how many errors a system is worse than the first one."""
        return self.counts[system].errors - self.counts[0].errors


@dataclass(frozen=True)
class Difference:
    """The error rate of a system minus the rate of the first one, in percent of the reference words.

    `interval` is over utterances, `speaker_interval` over speakers, None where there are too few. `percent_lower` is
    the share of replications with fewer errors than the first system, half of the ties included.
    """

    difference: float
    interval: Interval | None
    percent_lower: float | None
    speaker_interval: Interval | None = None


@dataclass(frozen=True)
class GroupComparison:
    """Utterances of one speaker, or of similar length: the rate of each system, and the difference of all but one."""

    name: str
    utterances: int
    words: int
    rates: list[float]
    differences: list[Difference]


@dataclass(frozen=True)
class ChangedWord:
    """A reference word that one of two systems recognised: how often only the first, and only the other one did."""

    word: str
    lost: int
    won: int


@dataclass(frozen=True)
class SystemDifference:
    """How a system differs from the first one."""

    name: str
    total: Difference
    won: list[ComparedUtterance]  # with fewer errors, the largest gain first
    lost: list[ComparedUtterance]  # with more errors, the largest loss first
    words: list[ChangedWord]  # the largest change first


@dataclass(frozen=True)
class Comparison:
    """The comparison of systems on one set."""

    set: str
    systems: list[str]
    token_type: str
    utterances: list[ComparedUtterance]
    rates: list[float]
    intervals: list[Interval | None]
    others: list[SystemDifference]
    speakers: list[GroupComparison]
    lengths: list[GroupComparison]
    notes: list[str] = field(default_factory=list)


def compare(set_name: str, systems: Sequence[str], rows: Sequence[Sequence[dict]], seconds: dict) -> Comparison:
    """Returns the comparison of systems, given the rows of their hyps.jsonl (asrtool/scoring/folder.py).

    `seconds` maps the ids of utterances to their length, as far as it is known. Utterances that not all systems have
    are left out, with a note. Raises UserError where no utterance or no reference word is left, and where some texts
    are words and some are phones; DataError where the references differ.
    """
    types = {row.get("token_type", "words") for own in rows for row in own}
    if len(types) > 1:
        raise UserError(f"{set_name}: some results are of words, others of phones; compare results of one type")
    utterances, notes = _common_utterances(set_name, systems, rows, seconds)
    if not any(utterance.ref.split() for utterance in utterances):
        raise UserError(f"{set_name}: no reference has a word in what all systems recognised")
    rates = _rates(utterances)
    token_type = types.pop()
    return Comparison(
        set=set_name,
        systems=list(systems),
        token_type=token_type,
        utterances=utterances,
        rates=rates,
        intervals=[
            wer_interval([(utterance.ref, utterance.hyps[system]) for utterance in utterances], rate)
            for system, rate in enumerate(rates)
        ],
        others=[_system_difference(name, number, utterances) for number, name in enumerate(systems) if number],
        speakers=_by_speaker(utterances),
        lengths=_by_length(utterances, token_type),
        notes=notes,
    )


def _common_utterances(
    set_name: str, systems: Sequence[str], rows: Sequence[Sequence[dict]], seconds: dict
) -> tuple[list[ComparedUtterance], list[str]]:
    """Returns the utterances that all systems have, in the order of the first, and notes about those left out."""
    by_id = [{row["id"]: row for row in own} for own in rows]
    ids = [row["id"] for row in rows[0] if all(row["id"] in own for own in by_id)]
    if not ids:
        raise UserError(
            f"{set_name}: {' and '.join(systems)} have no utterance in common; give results of the same set"
        )
    notes = [
        f"{len(own) - len(ids)} of {len(own)} utterances of {name} are left out: not all systems have them."
        for name, own in zip(systems, by_id, strict=True)
        if len(own) > len(ids)
    ]
    problems = [
        f"{name}: {systems[0]} and {system} have different references"
        for system, own in zip(systems, by_id, strict=True)
        for name in ids
        if own[name]["ref"].split() != by_id[0][name]["ref"].split()
    ]
    if problems:
        raise DataError(f"{len(problems)} references of {set_name} differ; decode the same manifest", problems)
    utterances = [
        ComparedUtterance(
            id=name,
            ref=by_id[0][name]["ref"],
            hyps=tuple(own[name]["hyp"] for own in by_id),
            speaker=_speaker(by_id[0][name]),
            seconds=seconds.get(name),
        )
        for name in ids
    ]
    return utterances, notes


def _speaker(row: dict) -> str | None:
    return None if row.get("speaker") is None else str(row["speaker"])


def _rates(utterances: Sequence[ComparedUtterance]) -> list[float]:
    """Returns the error rate of each system in percent, infinite without reference words."""
    words = sum(utterance.counts[0].length for utterance in utterances)
    errors = [sum(counts.errors for counts in own) for own in zip(*(u.counts for u in utterances), strict=True)]
    return [ErrorCounts(0, 0, count, words).rate for count in errors]


def _lengths(utterances: Sequence[ComparedUtterance]) -> np.ndarray:
    return np.array([utterance.counts[0].length for utterance in utterances])


def difference(utterances: Sequence[ComparedUtterance], system: int, with_speakers: bool = False) -> Difference:
    """Returns by how much a system is worse than the first one on these utterances."""
    more_errors = np.array([utterance.more_errors(system) for utterance in utterances])
    lengths = _lengths(utterances)
    paired = difference_of_errors(more_errors, lengths)
    over_speakers = None
    if with_speakers and paired.interval:
        over_speakers = _speaker_interval(utterances, more_errors, lengths, paired.difference)
    return Difference(paired.difference, paired.interval, paired.percent_lower, over_speakers)


def _speaker_interval(
    utterances: Sequence[ComparedUtterance], more_errors: np.ndarray, lengths: np.ndarray, value: float
) -> Interval | None:
    """Returns the interval over speakers, drawn with all their utterances: it holds for other speakers, too."""
    speakers = [utterance.speaker for utterance in utterances]
    names = sorted({speaker for speaker in speakers if speaker is not None})
    if None in speakers or len(names) < MIN_SPEAKERS:
        return None
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.array([number_of[speaker] for speaker in speakers if speaker is not None])
    half = interval_half_width(bootstrap_rates(np.bincount(numbers, more_errors), np.bincount(numbers, lengths)))
    return value - half, value + half


def _system_difference(name: str, system: int, utterances: Sequence[ComparedUtterance]) -> SystemDifference:
    def gain(utterance: ComparedUtterance) -> tuple[int, str]:
        return utterance.more_errors(system), utterance.id

    return SystemDifference(
        name=name,
        total=difference(utterances, system, with_speakers=True),
        won=sorted((u for u in utterances if u.more_errors(system) < 0), key=gain),
        lost=sorted((u for u in utterances if u.more_errors(system) > 0), key=lambda u: (-u.more_errors(system), u.id)),
        words=changed_words(utterances, system),
    )


def changed_words(utterances: Sequence[ComparedUtterance], system: int) -> list[ChangedWord]:
    """Returns the reference words that only one of two systems recognised: the largest change of the count first."""
    lost: Counter[str] = Counter()
    won: Counter[str] = Counter()
    for utterance in utterances:
        own = _recognised(utterance.alignments[system])
        first = _recognised(utterance.alignments[0])
        for word, is_right, was_right in zip(utterance.ref.split(), own, first, strict=True):
            won[word] += is_right and not was_right
            lost[word] += was_right and not is_right
    changed = [ChangedWord(word, lost[word], won[word]) for word in won if won[word] or lost[word]]
    return sorted(changed, key=lambda item: (-abs(item.won - item.lost), -(item.won + item.lost), item.word))


def _recognised(alignment: Alignment) -> list[bool]:
    """Returns for each reference word whether the hypothesis has it."""
    return [ref == hyp for ref, hyp in alignment if ref != GAP]


def _by_speaker(utterances: Sequence[ComparedUtterance]) -> list[GroupComparison]:
    """Returns the comparison of each known speaker with reference words, the largest difference of the last first."""
    groups: defaultdict[str, list[ComparedUtterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.speaker is not None:
            groups[utterance.speaker].append(utterance)
    speakers = progress(sorted(groups.items()), "comparing speakers", len(groups), "speakers")
    compared = [_group(name, own) for name, own in speakers if _lengths(own).any()]
    return sorted(compared, key=lambda group: -abs(group.differences[-1].difference))


def _by_length(utterances: Sequence[ComparedUtterance], token_type: str) -> list[GroupComparison]:
    """Returns the comparison of utterances of similar length: seconds, or tokens of the reference where not known."""
    if all(utterance.seconds is not None for utterance in utterances):
        return _by_measure(utterances, lambda utterance: utterance.seconds or 0.0, "s")
    return _by_measure(utterances, lambda utterance: float(utterance.counts[0].length), token_type)


def _by_measure(
    utterances: Sequence[ComparedUtterance], measure: Callable[[ComparedUtterance], float], unit: str
) -> list[GroupComparison]:
    """Returns the comparison of groups by a measure; groups without reference words have no rate, and are left out."""
    indices = groups_of_equal_size([measure(utterance) for utterance in utterances])
    parts = [[utterances[index] for index in group] for group in indices]
    digits = ".1f" if unit == "s" else ".0f"
    return [
        _group(f"{measure(part[0]):{digits}} to {measure(part[-1]):{digits}} {unit}", part)
        for part in parts
        if _lengths(part).any()
    ]


def _group(name: str, utterances: Sequence[ComparedUtterance]) -> GroupComparison:
    systems = len(utterances[0].hyps)
    return GroupComparison(
        name=name,
        utterances=len(utterances),
        words=int(_lengths(utterances).sum()),
        rates=_rates(utterances),
        differences=[difference(utterances, system) for system in range(1, systems)],
    )
