"""Error rates of hypotheses against references: pure functions over (ref, hyp) pairs of strings.

Words are what `str.split` yields; nothing is normalised here (case, punctuation: that is the text step's work).
Alignments and bootstrap come from kaldialign; insertions, deletions and substitutions each cost 1.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import kaldialign
import numpy as np

from asrtool.errors import UserError
from asrtool.scoring.bootstrap import REPLICATIONS, SEED, drawn_rates, half_width

# Stands for "no word here" in an alignment. str.split never yields it, so no word of any text can be taken for a gap.
GAP = ""

# A confusion beyond the 30th has never more than a few counts, and a report must stay one that somebody reads.
MOST_FREQUENT = 30

Alignment = list[tuple[str, str]]
Interval = tuple[float, float]


@dataclass(frozen=True)
class ErrorCounts:
    """Edit operations that turn the reference into the hypothesis; `length` is the reference's, in the same units."""

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
        """Errors per reference unit in percent, maybe over 100. For an empty reference: 0 without errors, else inf."""
        if self.length == 0:
            return math.inf if self.errors else 0.0
        return 100 * self.errors / self.length


@dataclass(frozen=True)
class Confusions:
    """The most frequent word errors, most frequent first, ties in alphabetical order; the last entry is the count."""

    substitutions: list[tuple[str, str, int]]  # reference word, hypothesis word, count
    insertions: list[tuple[str, int]]
    deletions: list[tuple[str, int]]


@dataclass(frozen=True)
class Score:
    """What one set of hypotheses scored. Rates and the interval are in percent."""

    words: ErrorCounts
    characters: ErrorCounts  # of the words joined by single spaces; a space counts as a character
    interval: Interval | None  # 95 % bootstrap interval of the WER: for other utterances of the same speakers
    utterances: int
    sentence_errors: int  # utterances with at least one word error
    empty_hypotheses: int  # hypotheses without a word, whatever the reference
    confusions: Confusions
    of: str = "words"  # or "phones": then what is called word here is a phone, and the WER a phone error rate
    speakers: dict[str, ErrorCounts] = field(default_factory=dict)  # word errors of each that is known
    speaker_interval: Interval | None = None  # the same for other speakers, where all of several are known

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
    """Pairs (reference word, hypothesis word) of one minimal alignment; GAP in place of an absent word."""
    return kaldialign.align(ref.split(), hyp.split(), GAP)


def error_mark(ref_word: str, hyp_word: str) -> str:
    """ "I", "D" or "S" for an insertion, deletion or substitution; "" for a match."""
    if ref_word == hyp_word:
        return ""
    if ref_word == GAP:
        return "I"
    return "D" if hyp_word == GAP else "S"


def count_words(alignment: Alignment) -> ErrorCounts:
    """The word errors of an alignment.

    Counted from the alignment itself, not by `kaldialign.edit_distance`: several alignments may be minimal
    (2 substitutions, or 1 insertion + 1 deletion), and the totals must be those of the one that is shown.
    """
    marks = Counter(error_mark(ref, hyp) for ref, hyp in alignment)
    return ErrorCounts(marks["I"], marks["D"], marks["S"], length=len(alignment) - marks["I"])


def count_characters(pairs: Iterable[tuple[str, str]]) -> ErrorCounts:
    """The character errors over all pairs, each text with single spaces between its words."""
    pairs = [(" ".join(ref.split()), " ".join(hyp.split())) for ref, hyp in pairs]
    found = kaldialign.batch_error_rate([ref for ref, _ in pairs], [hyp for _, hyp in pairs])
    return ErrorCounts(found["ins"], found["del"], found["sub"], found["ref_len"])


def wer_interval(pairs: Sequence[tuple[str, str]], wer: float) -> Interval | None:
    """The 95 % interval (low, high) around `wer`, all in percent: +-1.96 standard deviations of the resampled WER.

    Utterances are drawn with replacement, 10,000 times with a fixed seed (Bisani and Ney, ICASSP 2004). It is centred
    on `wer` itself, not on the mean of the replications, which differs by their noise; below 0 it is cut off.

    None for a single utterance: it has no spread that would say anything of others.
    """
    if len(pairs) < 2:
        return None
    half = _half_width(pairs)
    if not math.isfinite(half):
        # Some draw held only utterances without reference words and so has no WER (sets of a few utterances, some of
        # them empty). Only the utterances that have words are drawn then.
        half = _half_width([(ref, hyp) for ref, hyp in pairs if ref.split()])
    return max(0.0, wer - 100 * half), wer + 100 * half


def _half_width(pairs: Sequence[tuple[str, str]]) -> float:
    refs, hyps = [ref.split() for ref, _ in pairs], [hyp.split() for _, hyp in pairs]
    found = kaldialign.bootstrap_wer_ci(refs, hyps, replications=REPLICATIONS, seed=SEED)
    # With an infinite mean kaldialign gives 0 as the interval.
    return found["ci95"] if math.isfinite(found["wer"]) else math.inf


def speaker_interval(speakers: dict[str, ErrorCounts], words: ErrorCounts) -> Interval | None:
    """As `wer_interval`, but whole speakers are drawn: it holds for other speakers, too. Rough where there are few.

    None where there is one speaker, or where not all of `words` are of `speakers`.
    """
    counts = [(counts.errors, counts.length) for counts in speakers.values()]
    if len(counts) < 2 or tuple(map(sum, zip(*counts, strict=True))) != (words.errors, words.length):
        return None
    half = half_width(drawn_rates(*np.array(counts).T))
    return max(0.0, words.rate - half), words.rate + half


def require_words(refs: Sequence[str]) -> None:
    """Raises UserError when no reference holds a word: an error rate is undefined."""
    if not any(ref.split() for ref in refs):
        raise UserError(f"no reference words in {len(refs)} utterances: a WER is undefined; it needs transcripts")


def score_pairs(
    pairs: Sequence[tuple[str, str]], of: str = "words", speakers: Sequence[str | None] | None = None
) -> Score:
    """Score (ref, hyp) pairs, one an utterance, `of` "words" or "phones"; `speakers`: of each, None where unknown.

    Raises UserError when no reference holds a word: WER is undefined.
    """
    require_words([ref for ref, _ in pairs])
    alignments = [align_words(ref, hyp) for ref, hyp in pairs]
    words = count_words([pair for alignment in alignments for pair in alignment])
    by_speaker = count_speakers(alignments, speakers) if speakers else {}
    return Score(
        words=words,
        characters=count_characters(pairs),
        interval=wer_interval(pairs, words.rate),
        utterances=len(pairs),
        sentence_errors=sum(ref.split() != hyp.split() for ref, hyp in pairs),
        empty_hypotheses=sum(not hyp.split() for _, hyp in pairs),
        confusions=most_frequent(alignments),
        of=of,
        speakers=by_speaker,
        speaker_interval=speaker_interval(by_speaker, words),
    )


def count_speakers(alignments: Sequence[Alignment], speakers: Sequence[str | None]) -> dict[str, ErrorCounts]:
    """The word errors of each speaker, in the order of their names; utterances of None are left out."""
    pairs = defaultdict(list)
    for speaker, alignment in zip(speakers, alignments, strict=True):
        pairs[speaker] += alignment
    return {speaker: count_words(pairs[speaker]) for speaker in sorted(pairs.keys() - {None})}


def most_frequent(alignments: Iterable[Alignment], limit: int = MOST_FREQUENT) -> Confusions:
    """The `limit` most frequent substitutions, insertions and deletions."""
    counts = Counter(pair for alignment in alignments for pair in alignment if pair[0] != pair[1])
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = {"S": [], "I": [], "D": []}
    for (ref, hyp), count in ranked:
        kinds[error_mark(ref, hyp)].append((ref, hyp, count))
    return Confusions(
        substitutions=kinds["S"][:limit],
        insertions=[(hyp, count) for _, hyp, count in kinds["I"][:limit]],
        deletions=[(ref, count) for ref, _, count in kinds["D"][:limit]],
    )
