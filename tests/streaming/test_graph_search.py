import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.streaming.graph_search import StreamingGraph, StreamingGraphSearch
from tests.decoding.graphs import graph, random_log_probs, word_graph


def clear(units: list[int], vocabulary: int = 4) -> np.ndarray:
    """Log-probs that leave no doubt about `units`, frame by frame."""
    log_probs = np.full((len(units), vocabulary), -20.0, dtype=np.float32)
    log_probs[range(len(units)), units] = 0.0
    return log_probs


def stream(one, options: GraphOptions = GraphOptions(), **more) -> StreamingGraphSearch:  # noqa: B008
    return StreamingGraphSearch(StreamingGraph(one, options), **more)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 40), max_size=12),
    beam=st.sampled_from([0.5, 3.0, 16.0]),
    max_active=st.sampled_from([2, 4, 7000]),
    insertion=st.sampled_from([0.0, 0.5]),
)
def test_the_result_of_chunks_is_that_of_the_whole_utterance(seed, cuts, beam, max_active, insertion):
    one, log_probs = word_graph(6), random_log_probs(40, 6, seed)
    options = GraphOptions(beam=beam, max_active=max_active, min_active=1, insertion_penalty=insertion)
    search = stream(one, options)
    for chunk in np.split(log_probs, sorted(cuts)):
        partial = search.advance(chunk)
    found = search.finish()
    assert found == GraphSearch(one, options).decode(log_probs) and partial.frames == 40


def test_partial_results_grow_and_have_the_times_of_their_words():
    search = stream(word_graph(4))
    parts = [search.advance(chunk) for chunk in np.split(clear([0, 1, 0, 2, 2, 0, 3, 0]), [2, 4, 6])]
    assert [part.words for part in parts] == [["w1"], ["w1", "w2"], ["w1", "w2"], ["w1", "w2", "w3"]]
    assert [(part.frames, part.trailing) for part in parts] == [(2, 0), (4, 0), (6, 1), (8, 1)]
    assert parts[-1].word_frames == search.finish().word_frames == [1, 3, 6]
    assert all(part.num_final == 0 for part in parts)  # the decoder does not say what else is in its beam


def test_a_word_of_a_partial_result_may_disappear_and_return():
    # w1 is the first choice; unit 1 in the second frame speaks for w2, unit 2 in the third for w1 again.
    paths = ["0 1 1 1 0", "0 2 1 2 1", "1 1 1 0 0", "1 1 2 0 4", "1 1 3 0 0", "2 2 1 0 0", "2 2 2 0 0", "2 2 3 0 9"]
    search = stream(graph([*paths, "1 0", "2 0"], 2))
    assert [search.advance(frame[None]).words for frame in clear([0, 1, 2, 0], 3)] == [["w1"], ["w2"], ["w1"], ["w1"]]
    assert search.finish().words == ["w1"]


def test_a_partial_result_is_the_best_path_to_any_state():
    search = stream(graph(["0 1 1 1 0", "0 2 1 2 3", "1 1 1 0 0", "1 2 2 0 0", "2 2 1 0 0", "2 0"], 2))
    partial = search.advance(clear([0], 2))
    assert partial.words == ["w1"] and partial.relative_cost() == pytest.approx(3.0)
    assert search.finish().words == ["w2"]


def test_the_relative_cost_is_that_of_the_best_final_state():
    one = graph(["0 1 1 1 0.5", "1 1 1 0 0", "1 2 2 2 0.3", "2 1.5"], 2)
    search = stream(one)
    assert search.advance(clear([0], 2)).relative_cost() == math.inf
    assert search.advance(clear([1], 2)).relative_cost() == pytest.approx(1.5)


def test_the_best_partial_result_is_kept_when_all_paths_have_ended():
    one = graph(["0 1 1 1", "1 2 2 2", "2 0"], 2)
    search = stream(one)
    parts = [search.advance(frame[None]).words for frame in clear([0, 1, 0, 0], 2)]
    assert parts == [["w1"], ["w1", "w2"], ["w1", "w2"], ["w1", "w2"]]
    found = search.finish()
    assert (found.words, found.complete) == (["w1", "w2"], False)


def test_before_the_first_frame_there_are_no_words():
    search = stream(word_graph(4))
    assert search.advance(np.zeros((0, 4), dtype=np.float32)).words == []
    found = search.finish()
    assert (found.words, found.tokens) == ([], [])


def test_silence_units_count_as_trailing_silence():
    search = stream(word_graph(4), silences=[3])
    assert search.advance(clear([1, 0, 3, 3])).trailing == 3
