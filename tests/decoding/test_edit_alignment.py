"""The alignment with a partly wrong transcript: against the enumeration of all paths, and on known answers."""

import numpy as np
import pytest

from asrtool.decoding.edit_alignment import align_with_edits, begins_unit, filler_scores
from asrtool.decoding.edit_graph import EditCosts, edit_graph

COSTS = EditCosts(open=0.7, deleted_unit=0.4, inserted_unit=0.3)


def random_log_probs(frames, units, seed, peak=1.0):
    values = np.random.default_rng(seed).normal(0, 2 * peak, (frames, units))
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def pronunciation_paths(log_probs, time, units, last, topology):
    """Yields (time, score) after each way to emit `units` from frame `time` on.

    `last` is the unit before them, None before the first one.
    """
    if not units:
        yield time, 0.0
        return
    unit, *rest = units
    for blanks in range(len(log_probs) - time) if last is not None else [0]:
        if not blanks and last == unit and topology == "ctc":
            continue
        begin = time + blanks
        for end in range(begin + 1, len(log_probs) + 1):
            score = log_probs[time:begin, 0].sum() + log_probs[begin:end, unit].sum()
            yield from (
                (final, score + tail) for final, tail in pronunciation_paths(log_probs, end, rest, unit, topology)
            )


def all_scores(log_probs, words, topology, costs, time=0, place=0, last="blank"):
    """Yields the scores of all paths from frame `time` on, at `place`.

    `last` is the unit of the frame before, or "blank", "filler", or "jump" after a jump.
    """
    filler = filler_scores(log_probs, costs.inserted_unit)
    rest = (words, topology, costs)
    if time == len(log_probs) and place == len(words):
        yield 0.0
    if place < len(words):  # a jump over the next word, or the word itself
        cost = (0.0 if last == "jump" else costs.open) + costs.deleted_unit * min(map(len, words[place]))
        yield from (score - cost for score in all_scores(log_probs, *rest, time, place + 1, "jump"))
        for units in words[place]:
            if last == units[0] and topology == "ctc":
                continue  # equal units need a blank between them
            for end, score in pronunciation_paths(log_probs, time, units, None, topology):
                yield from (score + tail for tail in all_scores(log_probs, *rest, end, place + 1, units[-1]))
    if time < len(log_probs):
        yield from (log_probs[time, 0] + s for s in all_scores(log_probs, *rest, time + 1, place, "blank"))
        cost = 0.0 if last == "filler" else costs.open
        yield from (filler[time] - cost + s for s in all_scores(log_probs, *rest, time + 1, place, "filler"))


WORDS = [
    [[[1]], [[2, 1]]],
    [[[1]], [[1]]],  # equal units of neighbouring words
    [[[1, 1]]],
    [[[1, 2], [2]], [[2], [1]]],  # alternatives
    [],
]


@pytest.mark.parametrize("topology", ["ctc", "modified"])
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_the_best_path_is_the_best_of_all(words, topology, frames):
    for seed in range(6):
        log_probs = random_log_probs(frames, 3, seed)
        found = align_with_edits(log_probs, edit_graph(words, 3, topology, COSTS))
        assert found.score == pytest.approx(max(all_scores(log_probs, words, topology, COSTS)))


def certain(labels, num_units=6, share=0.99):
    """Log-probs in which the digit of each frame is the likely unit; "." is the blank."""
    probs = np.full((len(labels), num_units), (1 - share) / (num_units - 1))
    for time, label in enumerate(labels):
        probs[time, 0 if label == "." else int(label)] = share
    return np.log(probs)


def described(labels, words, **costs):
    found = align_with_edits(certain(labels), edit_graph([[w] for w in words], 6, "ctc", EditCosts(**costs)))
    return found.present.tolist(), [tuple(filler) for filler in found.fillers], found


def test_a_right_transcript_has_no_edits_and_no_loss():
    present, fillers, found = described(".1.2..3.44.", [[1, 2], [3, 4]])
    assert present == [True, True] and fillers == []
    assert found.loss.max() == 0
    assert found.units == [(0, 1, 1, 2), (0, 2, 3, 4), (1, 3, 6, 7), (1, 4, 8, 10)]


def test_words_that_are_not_in_the_audio_are_skipped():
    present, fillers, _ = described(".1.2..3.44.", [[1, 2], [5, 1, 5], [2, 5, 2], [3, 4]])
    assert present == [True, False, False, True] and fillers == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_audio_that_the_transcript_lacks_is_filler(at):
    parts = [".1.2.", ".3.4."]
    parts.insert(at, ".5.1.5.2.5.")
    present, fillers, _ = described("".join(parts), [[1, 2], [3, 4]])
    assert present == [True, True]
    ((place, begin, end),) = fillers
    assert (place, begin, end) == (at, 5 * at + 1, 5 * at + 10)  # from the first unit to the last


def test_other_audio_than_the_transcript_says_is_a_skip_and_a_filler():
    present, fillers, _ = described(".1.2..5.5.5.5.5.5..3.4.", [[1, 2], [1, 4, 1, 4, 1, 4], [3, 4]])
    assert present == [True, False, True] and len(fillers) == 1


def test_one_wrong_unit_does_not_cost_a_word():
    present, fillers, found = described(".1.5.3.", [[1, 2, 3]])
    assert present == [True] and fillers == []
    assert found.loss.max() > 1


def test_no_audio_and_no_words_have_an_alignment():
    assert described("", [[1]])[0] == [False]
    assert described("....", [])[1] == []
    assert described(".1.2.1.2.1.2.", [])[1] == [(0, 1, 12)]


def test_long_jumps_and_many_words_are_found():
    draw = np.random.default_rng(3)
    words = [draw.integers(1, 6, 4).tolist() for _ in range(200)]
    kept = [*range(60), *range(110, 200)]
    labels = ".".join(".".join(map(str, words[word])) for word in kept)
    present, fillers, _ = described(labels, words)
    missing = 200 - sum(present)
    assert missing == 50 and not fillers
    wrong = set(np.flatnonzero(~np.array(present)).tolist()) ^ set(range(60, 110))
    assert len(wrong) <= 4  # a word at the border may begin as one on the other side does


def test_units_of_the_greedy_hypothesis_begin_once():
    assert begins_unit(certain("11.1233.")).tolist() == [True, False, False, True, True, True, False, False]
