"""Alignment of a known unit sequence, and its probability in a window, against the enumeration of all paths."""

import itertools

import numpy as np
import pytest

from asrtool.decoding.unit_chain import LOG_ZERO, FrameSpan, align_units, window_log_probs

TOPOLOGIES = ("ctc", "modified", "hmm")


def random_log_probs(draw, frames: int, outputs: int) -> np.ndarray:
    return np.log(draw.dirichlet(np.ones(outputs), frames))


def paths_of(units: list[int], frames: int, topology: str) -> list[tuple[int, ...]]:
    """All paths of `frames` outputs that stand for `units`, one by one from the definition of the topology."""
    found = set()
    for counts in itertools.product(range(1, frames + 1), repeat=len(units)):
        runs = [_run(unit, count, topology) for unit, count in zip(units, counts, strict=True)]
        if topology == "hmm":
            found.add(tuple(itertools.chain(*runs)))
            continue
        for gaps in itertools.product(range(frames + 1), repeat=len(units) + 1):
            inner = zip(gaps[1:-1], units, units[1:], strict=False)
            if topology == "ctc" and any(gap == 0 and a == b for gap, a, b in inner):
                continue
            path = [0] * gaps[0]
            for run, gap in zip(runs, gaps[1:], strict=True):
                path += [*run, *[0] * gap]
            found.add(tuple(path))
    return [path for path in found if len(path) == frames]


def _run(unit: int, count: int, topology: str) -> list[int]:
    return [2 * unit, *[2 * unit + 1] * (count - 1)] if topology == "hmm" else [unit] * count


def score(path: tuple[int, ...], log_probs: np.ndarray) -> float:
    return sum(log_probs[time, output] for time, output in enumerate(path))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_window_has_the_sum_over_all_paths_of_its_units(topology):
    draw = np.random.default_rng(1)
    for _ in range(30):
        frames = int(draw.integers(1, 6))
        units = draw.integers(1, 3, int(draw.integers(1, 4))).tolist()
        log_probs = random_log_probs(draw, frames, 6)
        paths = paths_of(units, frames, topology)
        computed = window_log_probs(log_probs, [FrameSpan(0, frames)], [units], topology)[0]
        if not paths:
            assert computed < LOG_ZERO / 2
            continue
        expected = np.logaddexp.reduce([score(path, log_probs) for path in paths])
        # two alignments of "modified" may be one path, which the recursion then counts twice
        assert computed == pytest.approx(expected) if topology != "modified" else computed >= expected - 1e-9


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_best_path_of_units_is_found(topology):
    draw = np.random.default_rng(2)
    for _ in range(30):
        frames = int(draw.integers(1, 6))
        units = draw.integers(1, 3, int(draw.integers(1, 4))).tolist()
        log_probs = random_log_probs(draw, frames, 6)
        paths = paths_of(units, frames, topology)
        spans = align_units(log_probs, units, topology)
        if not paths:
            assert spans is None
            continue
        best = max(paths, key=lambda path: score(path, log_probs))
        is_covered = [any(span.begin <= time < span.end for span in spans) for time in range(frames)]
        assert is_covered == [topology == "hmm" or output > 0 for output in best]
        for unit, span in zip(units, spans, strict=True):
            assert list(best[span.begin : span.end]) == _run(unit, span.end - span.begin, topology)


def test_all_unit_sequences_of_a_window_have_a_total_probability_of_one():
    log_probs = random_log_probs(np.random.default_rng(3), 4, 3)
    sequences = [list(one) for length in range(5) for one in itertools.product([1, 2], repeat=length)]
    values = window_log_probs(log_probs, [FrameSpan(0, 4)] * len(sequences), sequences, "ctc")
    assert np.exp(values).sum() == pytest.approx(1)


def test_windows_do_not_depend_on_each_other():
    draw = np.random.default_rng(4)
    log_probs = random_log_probs(draw, 300, 5)
    windows = [FrameSpan(n, n + int(draw.integers(0, 9))) for n in range(290)]
    units = [draw.integers(1, 5, int(draw.integers(1, 5))).tolist() for _ in windows]
    together = window_log_probs(log_probs, windows, units, "ctc")
    alone = [window_log_probs(log_probs, [a], [b], "ctc")[0] for a, b in zip(windows, units, strict=True)]
    assert np.exp(together) == pytest.approx(np.exp(alone))
    assert window_log_probs(log_probs, [], [], "ctc").shape == (0,)


def test_a_sequence_without_units_takes_blanks():
    log_probs = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert np.exp(window_log_probs(log_probs, [FrameSpan(0, 2)], [[]], "ctc")) == pytest.approx([0.125])
    assert align_units(log_probs, [], "ctc") == []
