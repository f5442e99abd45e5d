"""Error rates of hypotheses against references: pure functions over (ref, hyp) pairs of strings.

Words are separated by white space. Case and punctuation are not normalised here: manifests and hypotheses have the
same form already. Alignments and bootstrap come from kaldialign; insertions, deletions and substitutions each cost 1.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import kaldialign
import numpy as np

from asrtool.errors import UserError
from asrtool.scoring.bootstrap import MAX_ITEMS, REPLICATIONS, SEED, bootstrap_rates, has_spread, interval_half_width

# The word of a gap in an alignment. str.split never returns it, so that no word of a text can be mistaken for a gap.
GAP = ""

# Confusions beyond the 30th rarely occur more than a few times, and a longer report would not be read.
MAX_CONFUSIONS = 30

Alignment = list[tuple[str, str]]
Interval = tuple[float, float]


@dataclass(frozen=True)
class ErrorCounts:
    """The numbers of edit operations that turn the reference into the hypothesis, and the length of the reference."""

    insertions: int
    deletions: int
    substitutions: int
    length: int

    @property
    def errors(self) -> int:
        """Insertions + deletions + substitutions."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors in percent of the reference's length, possibly over 100; for an empty reference 0 or infinity."""
        if self.length == 0:
            return math.inf if self.errors else 0.0
        return 100 * self.errors / self.length


@dataclass(frozen=True)
class Confusions:
    """The most frequent word errors with their counts, the most frequent first, ties in alphabetical order."""

    substitutions: list[tuple[str, str, int]]  # reference word, hypothesis word, count
    insertions: list[tuple[str, int]]
    deletions: list[tuple[str, int]]


@dataclass(frozen=True)
class Score:
    """The error counts and rates of a set of hypotheses. Rates and intervals are in percent."""

    words: ErrorCounts  # word errors
    characters: ErrorCounts  # character errors, over the words joined by single spaces; a space counts as a character
    # 95 % bootstrap interval of the WER over utterances: how much it varies with what the same speakers say
    interval: Interval | None
    utterances: int
    sentence_errors: int  # utterances with at least one word error
    empty_hypotheses: int  # hypotheses without a word, whatever the reference
    confusions: Confusions
    token_type: str = "words"  # or "phones": then each word here is a phone, and the WER is a phone error rate
    speakers: dict[str, ErrorCounts] = field(default_factory=dict)  # word errors of each known speaker
    # 95 % bootstrap interval of the WER over speakers; None unless there are several, and all utterances have one
    speaker_interval: Interval | None = None

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate in percent, over the text with single spaces."""
        return self.characters.rate

    @property
    def ser(self) -> float:
        """Sentence error rate: the percentage of utterances with at least one word error."""
        return 100 * self.sentence_errors / self.utterances


def align_words(ref: str, hyp: str) -> Alignment:
    """Returns the pairs (reference word, hypothesis word) of one minimal alignment, with GAP for an absent word."""
    return kaldialign.align(ref.split(), hyp.split(), GAP)


def error_mark(ref_word: str, hyp_word: str) -> str:
    """Returns "I", "D" or "S" for an insertion, deletion or substitution; "" for a match."""
    if ref_word == hyp_word:
        return ""
    if ref_word == GAP:
        return "I"
    return "D" if hyp_word == GAP else "S"


def count_word_errors(alignment: Alignment) -> ErrorCounts:
    """Returns the word errors of an alignment.

    They are counted in the alignment itself, not by `kaldialign.edit_distance`: several alignments may be minimal
    (2 substitutions, or 1 insertion + 1 deletion), and the totals must match the alignment that is shown.
    """
    errors = [(ref, hyp) for ref, hyp in alignment if ref != hyp]
    insertions = sum(ref == GAP for ref, _ in errors)
    deletions = sum(hyp == GAP for _, hyp in errors)
    substitutions = len(errors) - insertions - deletions
    return ErrorCounts(insertions, deletions, substitutions, length=len(alignment) - insertions)


def count_character_errors(pairs: Iterable[tuple[str, str]]) -> ErrorCounts:
    """Returns the character errors over all pairs, each text with single spaces between its words.

    Words that both texts begin or end with are not aligned: they have no errors in some minimal alignment.
    """
    words = [(ref.split(), hyp.split()) for ref, hyp in pairs]
    middles = [_different_middles(ref, hyp) for ref, hyp in words if ref != hyp]
    refs, hyps = [" ".join(ref) for ref, _ in middles], [" ".join(hyp) for _, hyp in middles]
    counts = kaldialign.batch_error_rate(refs, hyps)
    length = sum(len(" ".join(ref)) for ref, _ in words)
    return ErrorCounts(counts["ins"], counts["del"], counts["sub"], length)


def _different_middles(ref: list[str], hyp: list[str]) -> tuple[list[str], list[str]]:
    """Returns both texts without the words that they begin or end with alike, but for one word on each side.

    The remaining words keep the spaces around the words that differ.
    """
    shorter = min(len(ref), len(hyp))
    start = next((i for i in range(shorter) if ref[i] != hyp[i]), shorter)
    end = next((i for i in range(shorter - start) if ref[-1 - i] != hyp[-1 - i]), shorter - start)
    start, end = max(0, start - 1), max(0, end - 1)
    return ref[start : len(ref) - end], hyp[start : len(hyp) - end]


def wer_interval(
    pairs: Sequence[tuple[str, str]], wer: float, counts: Sequence[ErrorCounts] | None = None
) -> Interval | None:
    """Returns the 95 % interval (low, high) around `wer`, in percent: +-1.96 standard deviations of the resampled WER.

    Utterances are drawn with replacement, 10,000 times with a fixed seed (Bisani and Ney, ICASSP 2004). The interval is
    centred on `wer` itself, not on the mean of the replications, which differs a little by chance. Its lower end is at
    least 0. `counts` are the word errors of each pair, if they are known.

    Returns None for a single utterance with reference words, which has no spread from which other utterances could be
    predicted.
    """
    if not has_spread(np.array([len(ref.split()) for ref, _ in pairs])):
        return None
    half = _half_width(pairs) if len(pairs) <= MAX_ITEMS else math.inf  # a fraction, not percent
    if not math.isfinite(half):
        half = _half_width_of_many(counts or [count_word_errors(align_words(ref, hyp)) for ref, hyp in pairs])
    return max(0.0, wer - 100 * half), wer + 100 * half


def _half_width(pairs: Sequence[tuple[str, str]]) -> float:
    """Returns half of the width of the interval as a fraction; infinity if a replication has no reference words."""
    refs, hyps = [ref.split() for ref, _ in pairs], [hyp.split() for _, hyp in pairs]
    bootstrap = kaldialign.bootstrap_wer_ci(refs, hyps, replications=REPLICATIONS, seed=SEED)
    # kaldialign returns an interval of 0 if the mean is infinite.
    return bootstrap["ci95"] if math.isfinite(bootstrap["wer"]) else math.inf


def _half_width_of_many(counts: Sequence[ErrorCounts]) -> float:
    """Returns what `_half_width` does, by `bootstrap_rates`, which is faster for many utterances.

    It leaves out replications that hold only utterances without reference words, as happens in small sets.
    """
    errors = np.array([one.errors for one in counts])
    lengths = np.array([one.length for one in counts])
    return interval_half_width(bootstrap_rates(errors, lengths)) / 100


def speaker_interval(speakers: dict[str, ErrorCounts], words: ErrorCounts) -> Interval | None:
    """Returns the interval like `wer_interval`, but whole speakers are drawn.

    It shows how much the WER varies with the speakers, and is rough if there are few speakers. Returns None
    for a single speaker with reference words, and if some of `words` have no speaker.
    """
    errors = np.array([counts.errors for counts in speakers.values()])
    lengths = np.array([counts.length for counts in speakers.values()])
    has_unknown_speakers = errors.sum() != words.errors or lengths.sum() != words.length
    if has_unknown_speakers or not has_spread(lengths):
        return None
    half = interval_half_width(bootstrap_rates(errors, lengths))  # percent
    return max(0.0, words.rate - half), words.rate + half


def require_reference_words(refs: Sequence[str]) -> None:
    """Raises UserError when no reference holds a word: an error rate is undefined."""
    if not any(ref.split() for ref in refs):
        raise UserError(f"no reference words in {len(refs)} utterances: a WER is undefined; it needs transcripts")


def score_pairs(
    pairs: Sequence[tuple[str, str]],
    token_type: str = "words",
    speakers: Sequence[str | None] | None = None,
    alignments: Sequence[Alignment] | None = None,
) -> Score:
    """Returns the score of (ref, hyp) pairs, one per utterance.

    `token_type` is "words" or "phones". `speakers` has the speaker of each utterance, or None if it is unknown;
    `alignments` are the results of `align_words`, if they are known. Raises UserError when no reference holds
    a word: the WER is undefined.
    """
    require_reference_words([ref for ref, _ in pairs])
    alignments = alignments or [align_words(ref, hyp) for ref, hyp in pairs]
    counts = [count_word_errors(alignment) for alignment in alignments]
    words = sum_counts(counts)
    by_speaker = sum_by_speaker(counts, speakers) if speakers else {}
    return Score(
        words=words,
        characters=count_character_errors(pairs),
        interval=wer_interval(pairs, words.rate, counts),
        utterances=len(pairs),
        sentence_errors=sum(ref.split() != hyp.split() for ref, hyp in pairs),
        empty_hypotheses=sum(not hyp.split() for _, hyp in pairs),
        confusions=most_frequent_errors(alignments),
        token_type=token_type,
        speakers=by_speaker,
        speaker_interval=speaker_interval(by_speaker, words),
    )


def sum_counts(counts: Sequence[ErrorCounts]) -> ErrorCounts:
    """Returns the counts of several utterances together."""
    return ErrorCounts(
        insertions=sum(one.insertions for one in counts),
        deletions=sum(one.deletions for one in counts),
        substitutions=sum(one.substitutions for one in counts),
        length=sum(one.length for one in counts),
    )


def sum_by_speaker(counts: Sequence[ErrorCounts], speakers: Sequence[str | None]) -> dict[str, ErrorCounts]:
    """Returns the word errors of each speaker, sorted by name, without the utterances of unknown speakers."""
    by_speaker: defaultdict[str, list[ErrorCounts]] = defaultdict(list)
    for speaker, one in zip(speakers, counts, strict=True):
        if speaker is not None:
            by_speaker[speaker].append(one)
    return {speaker: sum_counts(by_speaker[speaker]) for speaker in sorted(by_speaker)}


def most_frequent_errors(alignments: Iterable[Alignment], limit: int = MAX_CONFUSIONS) -> Confusions:
    """Returns the `limit` most frequent substitutions, insertions and deletions."""
    counts = Counter(pair for alignment in alignments for pair in alignment if pair[0] != pair[1])
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds: dict[str, list[tuple[str, str, int]]] = {"S": [], "I": [], "D": []}
    for (ref, hyp), count in ranked:
        kinds[error_mark(ref, hyp)].append((ref, hyp, count))
    return Confusions(
        substitutions=kinds["S"][:limit],
        insertions=[(hyp, count) for _, hyp, count in kinds["I"][:limit]],
        deletions=[(ref, count) for ref, _, count in kinds["D"][:limit]],
    )
