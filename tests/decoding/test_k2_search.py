"""k2 finds what kaldi-decoder finds; without k2, one line says what to do."""

import importlib.metadata
import sys

import numpy as np
import pytest
import torch

from asrtool.decoding import k2_search
from asrtool.decoding.graph_options import GraphOptions, log_priors
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.k2_search import K2Search
from asrtool.decoding.lattice import nbest_paths
from asrtool.errors import UserError
from tests.decoding.graphs import all_word_sequences, graph, random_graph, random_log_probs, read_lattice, word_graph


def missing() -> str:
    try:
        k2_search.require_k2()
    except UserError as error:
        return str(error)
    return ""


needs_k2 = pytest.mark.skipif(bool(missing()), reason=missing())
WIDE = GraphOptions(beam=1e4, max_active=100_000)
WIDE_LATTICE = GraphOptions(beam=1e4, max_active=100_000, lattice_beam=1e4, nbest=100_000)
NARROW = GraphOptions(beam=12.0, lattice_beam=6.0, nbest=5)


def numbers(hypothesis) -> tuple[int, ...]:
    return tuple(int(word[1:]) for word in hypothesis.words)


def test_without_k2_the_error_names_the_installation_script(monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(UserError, match=r"k2 cannot be imported \(.*\); `bash tools/install_k2.sh`"):
        K2Search(word_graph(3), WIDE)


def test_the_k2_wheel_of_the_package_index_is_recognised(monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.23.4")
    with pytest.raises(UserError, match=r"1\.23\.4 of the package index is built for another Python") as error:
        k2_search.require_k2()
    assert "\n" not in str(error.value)


@pytest.mark.k2
@needs_k2
@pytest.mark.parametrize("seed", range(12))
def test_the_best_path_is_that_of_kaldi_decoder(seed):
    one = random_graph(seed)
    rows, lens = np.stack([random_log_probs(6, 4, seed + n) for n in range(4)]), torch.tensor([6, 4, 1, 0])
    expected = GraphSearch(one, WIDE)(torch.from_numpy(rows), lens)
    for row, length in zip(rows, lens, strict=True):
        row[length:] = np.nan  # padding has no influence
    for found, other in zip(K2Search(one, WIDE)(torch.from_numpy(rows), lens), expected, strict=True):
        assert (found.words, found.tokens, found.frames, found.complete) == (
            other.words,
            other.tokens,
            other.frames,
            other.complete,
        )
        assert found.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.k2
@needs_k2
@pytest.mark.parametrize("seed", range(12))
def test_a_wide_lattice_holds_all_word_sequences_with_their_best_costs(seed):
    one, log_probs = random_graph(seed), random_log_probs(4, 4, seed)
    expected = all_word_sequences(one.lines, log_probs)
    best = K2Search(one, WIDE_LATTICE).decode(log_probs)
    if expected:
        found = {numbers(hypothesis): -hypothesis.score for hypothesis in (best, *best.others)}
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.k2
@needs_k2
def test_lattices_are_those_of_kaldi_decoder_within_the_beam():
    log_probs, one = random_log_probs(40, 6, 3), word_graph(6)
    ours, theirs = (make(one, NARROW, keep_lattices=True).decode(log_probs) for make in (K2Search, GraphSearch))
    assert [h.words for h in (ours, *ours.others)] == [h.words for h in (theirs, *theirs.others)]
    first, second = (read_lattice(hypothesis.lattice) for hypothesis in (ours, theirs))
    for one, other in zip(nbest_paths(first, 20), nbest_paths(second, 20), strict=True):
        assert (one.graph, one.acoustic) == pytest.approx((other.graph, other.acoustic), abs=1e-3)


@pytest.mark.k2
@needs_k2
def test_scale_penalties_and_priors_have_the_effect_that_they_have_in_kaldi_decoder():
    options = GraphOptions(beam=1e4, acoustic_scale=0.6, blank_penalty=0.7, insertion_penalty=-0.4)
    priors, log_probs = log_priors([60, 20, 20, 0]), random_log_probs(12, 4, 3)
    ours, theirs = (make(word_graph(4), options, priors=priors).decode(log_probs) for make in (K2Search, GraphSearch))
    assert (ours.words, ours.score) == (theirs.words, pytest.approx(theirs.score, abs=1e-4))


@pytest.mark.k2
@needs_k2
def test_units_of_the_hmm_topology_begin_at_even_outputs():
    one = graph(["0 1 3 1", "1 1 4 0", "1 1 3 1", "1 2 5 2", "2 2 6 0", "2 0"], 2, topology="hmm")
    log_probs = np.full((6, 6), -9.0, dtype=np.float32)
    log_probs[range(6), [2, 3, 2, 4, 5, 5]] = 0.0
    found = K2Search(one, WIDE).decode(log_probs)
    assert (found.tokens, found.frames, found.words) == ([1, 1, 2], [0, 2, 3], ["w1", "w1", "w2"])


@pytest.mark.k2
@needs_k2
@pytest.mark.parametrize("options", [WIDE, WIDE_LATTICE], ids=["best", "lattice"])
def test_without_a_path_to_a_final_state_the_best_partial_path_is_returned(options):
    chain = K2Search(graph(["0 1 2 1", "1 2 3 2", "2 3 2 3", "3 0"], 3), options)
    short, whole, long = (chain.decode(random_log_probs(frames, 3, 0)) for frames in (1, 3, 9))
    assert (short.words, short.complete) == (["w1"], False)
    assert (whole.words, whole.complete) == (["w1", "w2", "w3"], True)
    assert (long.words, long.complete) == (["w1", "w2", "w3"], False)
