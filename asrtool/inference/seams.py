"""Joins the words of two segments that overlap, so that none is lost or doubled.

    left    |----------------------- w w w w|
    right               start |w w w w -------------------|
                              |  seam |
                              +-overlap-+

At the edges of a segment, words are cut and lack context. Both segments see the middle of the overlap from afar, so the
seam is at the word near the middle that both recognised at the same time: left gives the words up to it, right those
after it.
"""

from collections.abc import Sequence

from asrtool.inference.results import Word

SAME_SHARE = 0.5  # of the shorter of two words that both span: they are the same stretch of speech
EDGE_SECONDS = 0.2  # at the edges of the overlap, in which words may be cut


def join_seam(
    left: Sequence[Word], right: Sequence[Word], start: float, overlap: float
) -> tuple[list[Word], list[Word]]:
    """Returns the words that the left and the right segment keep.

    left, right: words in the order of time, with times in the recording, in seconds. The two segments share the time
    from `start` to `start + overlap`, in seconds; without an overlap, both keep all words. The left one keeps words
    from its first one on, the right one those up to its last one.
    """
    if overlap <= 0:
        return list(left), list(right)
    anchor = _nearest_agreement(left, right, start, start + overlap)
    if anchor is not None:
        last_left, last_dropped_right = anchor
        return list(left[: last_left + 1]), list(right[last_dropped_right + 1 :])
    return _split_at(left, right, start + overlap / 2)


def _nearest_agreement(left: Sequence[Word], right: Sequence[Word], begin: float, end: float) -> tuple[int, int] | None:
    """Returns both indices of the word that both recognised, nearest to the middle of the overlap, None without one."""
    middle = (begin + end) / 2
    pairs = []
    for i, word in enumerate(left):
        if right and begin + EDGE_SECONDS <= word.start and word.end <= end - EDGE_SECONDS:
            shared = [_shared_seconds(word, other) for other in right]
            j = shared.index(max(shared))
            if word.text == right[j].text and _is_same_stretch(word, right[j]):
                pairs.append((abs(_centre(word) - middle), i, j))
    return min(pairs)[1:] if pairs else None


def _split_at(left: Sequence[Word], right: Sequence[Word], time: float) -> tuple[list[Word], list[Word]]:
    """Returns the words of the left before `time` and the words of the right after it.

    Of two words that stand for the same stretch of speech at `time`, exactly one is kept, the left one.
    """
    kept_left = [word for word in left if _centre(word) < time]
    kept_right = [word for word in right if _centre(word) >= time]
    while kept_left and kept_right and _is_same_stretch(kept_left[-1], kept_right[0]):
        del kept_right[0]
    first_dropped = left[len(kept_left)] if len(kept_left) < len(left) else None
    last_dropped = next((word for word in reversed(right) if _centre(word) < time), None)
    if first_dropped and last_dropped and _is_same_stretch(first_dropped, last_dropped):
        neighbours = [*kept_left[-1:], *kept_right[:1]]
        if not any(_is_same_stretch(first_dropped, word) for word in neighbours):
            kept_left.append(first_dropped)
    return kept_left, kept_right


def _centre(word: Word) -> float:
    return (word.start + word.end) / 2


def _is_same_stretch(one: Word, other: Word) -> bool:
    """Returns True if two words share at least SAME_SHARE of the shorter one."""
    shared = _shared_seconds(one, other)
    return shared > 0 and shared >= SAME_SHARE * min(one.end - one.start, other.end - other.start)


def _shared_seconds(one: Word, other: Word) -> float:
    return min(one.end, other.end) - max(one.start, other.start)  # negative: the time between them
