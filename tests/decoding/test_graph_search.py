import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asrtool.decoding.graph_options import BOUNDS, GraphOptions, log_priors
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.kaldi_search import search_best_path
from asrtool.errors import UserError
from tests.decoding.graphs import all_word_sequences, graph, random_graph, random_log_probs, word_graph

WIDE = GraphOptions(beam=1e4, max_active=100_000)
WIDE_LATTICE = GraphOptions(beam=1e4, lattice_beam=1e4, nbest=100_000)


def numbers(hypothesis) -> tuple[int, ...]:
    return tuple(int(word[1:]) for word in hypothesis.words)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_a_wide_beam_finds_the_best_of_all_paths(seed, frames):
    one, log_probs = random_graph(seed), random_log_probs(frames, 4, seed)
    expected = all_word_sequences(one.lines, log_probs)
    found = GraphSearch(one, WIDE).decode(log_probs)
    assert found.complete == bool(expected)
    if expected:
        assert -found.score == pytest.approx(min(expected.values()), abs=1e-4)
        assert expected[numbers(found)] == pytest.approx(-found.score, abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_wide_lattice_holds_all_word_sequences_with_their_best_costs(seed):
    one, log_probs = random_graph(seed), random_log_probs(4, 4, seed)
    expected = all_word_sequences(one.lines, log_probs)
    best = GraphSearch(one, WIDE_LATTICE).decode(log_probs)
    if expected:
        found = {numbers(hypothesis): -hypothesis.score for hypothesis in (best, *best.others)}
        assert found == pytest.approx(expected, abs=1e-4) and len(found) == 1 + len(best.others)
        assert list(found.values()) == sorted(found.values())


def test_units_words_and_their_frames():
    log_probs = np.full((7, 4), -5.0, dtype=np.float32)
    log_probs[range(7), [0, 2, 2, 0, 2, 3, 0]] = 0.0
    found = GraphSearch(word_graph(4), WIDE).decode(log_probs)
    assert (found.tokens, found.frames) == ([2, 2, 3], [1, 4, 5])
    assert (found.words, found.word_frames) == (["w2", "w2", "w3"], [1, 4, 5])
    assert found.score == pytest.approx(-(0.2 + 0.2 + 0.3 + 0.5)) and found.complete


@pytest.mark.parametrize("option", ["acoustic_scale", "blank_penalty", "insertion_penalty"])
def test_scale_and_penalties_enter_the_cost_as_documented(option):
    log_probs, values = random_log_probs(6, 4, 3), {"acoustic_scale": 0.6, option: 0.7}
    options = GraphOptions(beam=1e4, **values)
    changed = 0.6 * log_probs if option != "acoustic_scale" else 0.7 * log_probs
    changed[:, 0] -= 0.6 * 0.7 if option == "blank_penalty" else 0.0
    one, extra = word_graph(4), 0.7 if option == "insertion_penalty" else 0.0
    expected = {words: cost + extra * len(words) for words, cost in all_word_sequences(one.lines, changed).items()}
    found = GraphSearch(one, options).decode(log_probs)
    assert numbers(found) == min(expected, key=expected.get)
    assert -found.score == pytest.approx(min(expected.values()), abs=1e-4)


def test_priors_are_subtracted_and_counts_are_normalised():
    log_probs, priors = random_log_probs(6, 4, 3), log_priors([60, 20, 20, 0])
    assert priors == pytest.approx(np.log(np.array([60, 20, 20, 10]) / 110))
    one = word_graph(4)
    with_priors, without = GraphSearch(one, WIDE, priors=priors), GraphSearch(one, WIDE)
    assert with_priors.decode(log_probs) == without.decode(log_probs - priors.astype(np.float32))


@pytest.mark.parametrize("options", [WIDE, WIDE_LATTICE], ids=["best", "lattice"])
def test_without_a_path_to_a_final_state_the_best_partial_path_is_returned(options):
    # The words w1 w2 w3 take three frames and no more than that; one frame reaches w1.
    chain = graph(["0 1 2 1", "1 2 3 2", "2 3 2 3", "3 0"], 3)
    short = GraphSearch(chain, options).decode(random_log_probs(1, 3, 0))
    assert (short.words, short.complete, short.tokens) == (["w1"], False, [1])
    long = GraphSearch(chain, options).decode(random_log_probs(9, 3, 0))  # all states die after the third frame
    assert (long.words, long.complete, long.frames) == (["w1", "w2", "w3"], False, [0, 1, 2])


def test_a_path_ends_where_all_units_are_impossible():
    log_probs = random_log_probs(5, 3, 1)
    log_probs[3] = -math.inf
    found = GraphSearch(word_graph(3), WIDE).decode(log_probs)
    assert not found.complete and math.isfinite(found.score)
    assert search_best_path(word_graph(3).fst, log_probs[:3], WIDE)[0].words == [int(word[1:]) for word in found.words]


def test_units_of_the_hmm_topology_begin_at_even_outputs():
    # Units 1 and 2 have outputs 2 and 3, 4 and 5.
    one = graph(["0 1 3 1", "1 1 4 0", "1 1 3 1", "1 2 5 2", "2 2 6 0", "2 0"], 2, topology="hmm")
    log_probs = np.full((6, 6), -9.0, dtype=np.float32)
    log_probs[range(6), [2, 3, 2, 4, 5, 5]] = 0.0
    found = GraphSearch(one, WIDE).decode(log_probs)
    assert (found.tokens, found.frames, found.words) == ([1, 1, 2], [0, 2, 3], ["w1", "w1", "w2"])


def test_a_graph_for_another_number_of_outputs_is_refused():
    with pytest.raises(UserError, match="for a model of 3 outputs, this one has 4"):
        GraphSearch(word_graph(3), WIDE)(torch.zeros(1, 2, 4), torch.tensor([2]))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        GraphSearch(word_graph(3), WIDE).decode(np.full((2, 3), np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    "options", [WIDE, WIDE_LATTICE, replace(WIDE, acoustic_scale=1e4)], ids=["best", "lat", "scale"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_single_value_that_is_not_a_log_prob_is_refused(options, value):
    log_probs = random_log_probs(5, 3, 1)
    log_probs[3, 1] = value
    search = GraphSearch(word_graph(3), options)
    if np.isfinite(np.float32(options.acoustic_scale) * np.float32(value)):
        assert search.decode(log_probs).words
    else:
        with pytest.raises(ValueError, match="NaN or infinity"):
            search.decode(log_probs)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 10**30])
def test_options_that_the_decoder_cannot_take_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* out of range") as raised:
        GraphOptions(**{name: value})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beam", 0), ("lattice_beam", 0), ("acoustic_scale", 0), ("acoustic_scale", -1), ("max_active", 1), ("nbest", 0)],
)
def test_options_with_which_no_path_is_found_are_refused(name, value):
    with pytest.raises(UserError, match="out of range"):
        GraphOptions(**{name: value})


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("name", BOUNDS)
def test_options_at_their_bounds_can_be_searched_with(name, end):
    values = {name: BOUNDS[name][end]} | ({"lattice_beam": 8.0} if name == "nbest" else {})
    found = GraphSearch(word_graph(4), GraphOptions(**values)).decode(random_log_probs(6, 4, 1))
    assert math.isfinite(found.score)


@pytest.mark.parametrize("options", [WIDE, WIDE_LATTICE], ids=["best", "lattice"])
def test_an_utterance_without_frames_has_no_words(options):
    found = GraphSearch(word_graph(3), options).decode(np.zeros((0, 3), dtype=np.float32))
    assert (found.words, found.tokens, found.score) == ([], [], -0.5 if found.complete else 0.0)


@pytest.mark.parametrize("beam, max_active, min_active", [(0.1, 7000, 1), (16, 2, 20), (1e-3, 2, 1)])
def test_a_narrow_search_still_finds_a_path_no_better_than_the_best(beam, max_active, min_active):
    log_probs = random_log_probs(40, 8, 5)
    narrow = GraphOptions(beam=beam, max_active=max_active, min_active=min_active)
    found, best = (GraphSearch(word_graph(8), options).decode(log_probs) for options in (narrow, WIDE))
    assert found.complete and found.score <= best.score + 1e-4


def test_several_processes_give_the_result_of_one_and_padding_has_no_influence():
    rows = np.stack([random_log_probs(20, 5, seed) for seed in range(6)])
    lens = torch.tensor([20, 3, 0, 11, 20, 7])
    alone = GraphSearch(word_graph(5), WIDE)(torch.from_numpy(rows), lens)
    for row, length in zip(rows, lens, strict=True):
        row[length:] = np.nan
    search = GraphSearch(word_graph(5), WIDE, jobs=2)
    try:
        assert search(torch.from_numpy(rows), lens) == alone
    finally:
        search.close()


def test_a_killed_process_is_an_error_and_not_an_endless_wait(monkeypatch):
    monkeypatch.setattr(GraphSearch, "decode", lambda self, frames: os._exit(9))
    search = GraphSearch(word_graph(5), WIDE, jobs=2)
    with pytest.raises(UserError, match="a decoding process was killed"):
        search(torch.zeros(1, 3, 5), torch.tensor([3]))


@pytest.mark.parametrize("penalty", [0.0, -1.0, 1.0])
def test_a_graph_without_a_path_to_the_end_is_searched_to_any_state(penalty):
    one = graph(["0 0 1 1", "0 1 2 2", "1 0 3 0", "2 0"], 2)
    assert not GraphSearch(one, replace(WIDE, insertion_penalty=penalty)).decode(random_log_probs(4, 3, 1)).complete


ORPHANS = """
from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from tests.decoding.graphs import word_graph
search = GraphSearch(word_graph(5), GraphOptions(), jobs=2)
print(*search.pool._processes, flush=True)
input()
"""


def test_search_processes_end_when_their_parent_is_killed():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], **pipes, cwd=Path(__file__).parents[2])
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers and all(map(is_running, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    limit = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie has ended; init may be slow to take it
    except FileNotFoundError:
        return False
