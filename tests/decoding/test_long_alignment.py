"""Alignment of long recordings in blocks: as in one piece, with known edits, and bounded where nothing fits."""

import numpy as np
import pytest

from asrtool.decoding import long_alignment
from asrtool.decoding.edit_alignment import align_with_edits
from asrtool.decoding.edit_graph import edit_graph
from asrtool.decoding.long_alignment import align_long, greedy_units

NUM_UNITS = 20


def speech(words, draw, errors=0.1):
    """Log-probs in which `words` are spoken, with misrecognised units; and the first frame of each word."""
    labels, starts = [], []
    for word in words:
        labels += [0] * int(draw.integers(0, 6))
        starts.append(len(labels))
        for unit in word:
            heard = int(draw.integers(1, NUM_UNITS)) if draw.random() < errors else unit
            labels += [heard] * int(draw.integers(1, 3)) + [0] * int(draw.integers(1, 3))
    probs = np.full((len(labels), NUM_UNITS), 0.1 / NUM_UNITS)
    probs[np.arange(len(labels)), labels] += 0.9
    return np.log(probs), starts


def vocabulary(draw, size=400):
    return [draw.integers(1, NUM_UNITS, int(draw.integers(2, 7))).tolist() for _ in range(size)]


def align(log_probs, words, **options):
    return align_long(log_probs.astype(np.float16), [[word] for word in words], **options)


def first_frames(found):
    frames = {}
    for unit in found.units:
        frames.setdefault(unit.word, unit.begin)
    return frames


def test_blocks_give_the_same_as_one_piece():
    draw = np.random.default_rng(1)
    words = vocabulary(draw, 300)
    log_probs, _ = speech(words, draw)
    whole = align_with_edits(log_probs, edit_graph([[word] for word in words], NUM_UNITS))
    found = align(log_probs, words, min_block_frames=50)
    assert len(list(long_alignment._blocks(log_probs, [[word] for word in words], 50))) > 20
    assert first_frames(found) == first_frames(whole) and found.fillers == whole.fillers
    assert found.score == pytest.approx(whole.score, rel=1e-3)
    np.testing.assert_allclose(found.loss, whole.loss, atol=0.01)


def test_deleted_and_inserted_sentences_are_found():
    draw = np.random.default_rng(2)
    words = vocabulary(draw, 3000)
    spoken = [n for n in range(3000) if not 500 <= n < 540 and not 2000 <= n < 2010]  # these are only in the text
    text = [n for n in range(3000) if not 1000 <= n < 1030 and not 2500 <= n < 2508]  # and these only in the audio
    log_probs, starts = speech([words[n] for n in spoken], draw)
    found = align(log_probs, [words[n] for n in text])
    missing = {text[n] for n in np.flatnonzero(~found.present)}
    expected = {n for n in text if n not in set(spoken)}
    assert len(missing & expected) >= 0.9 * len(expected)
    assert len(missing - expected) <= 0.05 * len(text)  # words with too many misrecognised units
    start = dict(zip(spoken, starts, strict=True))
    frames = first_frames(found)
    errors = [abs(frame - start[text[n]]) for n, frame in frames.items() if text[n] in start]
    assert np.mean(np.array(errors) <= 2) > 0.97
    for first, last in ((1000, 1030), (2500, 2508)):
        inside = [f for f in found.fillers if f.begin >= start[first] - 10 and f.end <= start[last] + 10]
        assert sum(f.end - f.begin for f in inside) > 0.7 * (start[last] - start[first])


def test_an_unrelated_text_is_given_up_and_not_forced(monkeypatch):
    draw = np.random.default_rng(3)
    log_probs, _ = speech(vocabulary(draw, 300), draw)
    unrelated = vocabulary(draw, 300)
    for cells in (long_alignment.MAX_BLOCK_CELLS, 1000):  # in one block, and refused as too large a block
        monkeypatch.setattr(long_alignment, "MAX_BLOCK_CELLS", cells)
        found = align(log_probs, unrelated)
        assert found.present.mean() < 0.25
        assert sum(f.end - f.begin for f in found.fillers) > 0.5 * len(log_probs)


def test_large_blocks_are_divided_by_anchors_within_them(monkeypatch):
    draw = np.random.default_rng(4)
    words = vocabulary(draw, 300)
    log_probs, _ = speech(words, draw, errors=0.0)
    monkeypatch.setattr(long_alignment, "MAX_BLOCK_CELLS", 100_000)
    assert align(log_probs, words, min_block_frames=100).present.all()


def test_no_frames_and_no_words():
    assert align(np.zeros((0, NUM_UNITS)), [[1, 2]]).present.tolist() == [False]
    assert align(np.zeros((0, NUM_UNITS)), []).fillers == []


def test_greedy_units_are_runs_of_the_best_label():
    log_probs = np.log(np.eye(4)[[0, 1, 1, 0, 1, 2, 3, 3, 0]] + 1e-3)
    units, begins, ends = greedy_units(log_probs)
    assert units.tolist() == [1, 1, 2, 3]
    assert begins.tolist() == [1, 4, 5, 6] and ends.tolist() == [3, 5, 6, 8]
