import math

import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.kaldi_search import search_lattice
from asrtool.decoding.lattice import Lattice, nbest_paths
from asrtool.decoding.lattice_rescoring import rescore_lattice
from asrtool.lm.ngram_files import load_lm
from tests.decoding.graphs import all_word_sequences, random_graph, random_log_probs, read_lattice

OPTIONS = GraphOptions(beam=1e4, lattice_beam=1e4)
WORDS = ["<eps>", "w1", "w2", "w3"]
BIGRAM = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-0.9\t</s>
-0.5\tw1\t-0.2
-0.7\tw2\t-0.4
-0.8\tw3\t-0.1

\\2-grams:
-0.2\t<s> w1
-0.3\tw1 w2
-0.4\tw2 w2
-0.1\tw3 </s>

\\end\\
"""
OTHER = (
    BIGRAM.replace("-0.5\tw1", "-0.9\tw1").replace("-0.2\t<s> w1", "-0.6\tw2 w1").replace("-0.4\tw2 w2", "-0.3\tw2 w3")
)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    """arpa("text") -> a scorer of it"""
    folder = tmp_path_factory.mktemp("arpa")

    def read(text):
        path = folder / f"{hash(text)}.arpa"
        path.write_text(text, encoding="utf-8")
        return load_lm(path)

    return read


def lattice(seed: int, frames: int = 4):
    one, log_probs = random_graph(seed), random_log_probs(frames, 4, seed)
    return search_lattice(one.fst, OPTIONS.scaled_log_likelihoods(log_probs), OPTIONS), all_word_sequences(
        one.lines, log_probs
    )


def sentence(scorer, words) -> float:
    """ln P of a sentence, its end included."""
    total, state = 0.0, scorer.start
    for word in [*(WORDS[label] for label in words), "</s>"]:
        score, state = scorer.score(state, word)
        total += score
    return total


@pytest.mark.parametrize("seed", range(12))
def test_rescoring_is_exact_for_every_word_sequence(arpa, seed):
    (found, complete), expected = lattice(seed)
    old, new = arpa(OTHER), arpa(BIGRAM)
    changed = {words: cost + sentence(old, words) - sentence(new, words) for words, cost in expected.items()}
    rescored = {tuple(path.words): path.cost for path in nbest_paths(rescore_lattice(found, WORDS, old, new), 100_000)}
    if complete:
        assert rescored == pytest.approx(changed, abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_beam_only_removes_paths_in_rescoring(arpa, seed):
    (found, _), _ = lattice(seed)
    whole, wide, narrow = (
        rescore_lattice(found, WORDS, arpa(OTHER), arpa(BIGRAM), beam) for beam in (math.inf, 1000.0, 1.0)
    )
    costs, same, fewer = ({tuple(p.words): p.cost for p in nbest_paths(one, 100_000)} for one in (whole, wide, narrow))
    assert same == costs and wide.num_states <= whole.num_states
    assert 1 <= len(fewer) <= len(costs) and narrow.num_states <= wide.num_states
    for words, cost in fewer.items():  # of the same words a worse alignment at most
        assert cost >= costs[words] - 1e-9


def test_a_beam_keeps_paths_that_are_good_by_the_new_model_only(arpa):
    """The first word decides: after it both go on alike, so that no later frame may forget the one that is better."""
    arcs = [(0, 1, 1, 1, 0.0, 0.0), (0, 2, 1, 2, 0.0, 0.0), *((n, n + 2, 2, 0, 0.0, 1.0) for n in range(1, 9))]
    final = np.full((11, 2), math.inf)
    final[9:] = 0.0
    found = Lattice.from_arcs(arcs, final)
    exact, pruned = (
        list(nbest_paths(rescore_lattice(found, WORDS, arpa(OTHER), arpa(BIGRAM), beam), 9)) for beam in (math.inf, 0.0)
    )
    assert len(exact) == 2 and [path.words for path in pruned] == [exact[0].words]


class WordCosts:
    """A language model without a history: the cost of each word, in nats; 0 of all others."""

    start = 0

    def __init__(self, **costs):
        self.costs = costs

    def __contains__(self, word):
        return True

    def score(self, state, word):
        return -self.costs.get(word, 0.0), 0


# Words that are emitted by arcs that read no frame. Homophones: w1 and w2 after the same frames. Prefix: w1 after one
# frame, before the frames of the next word; w2 goes on.
HOMOPHONES_AT_THE_END = [(0, 1, 1, 0, 0.0, 1.0), (1, 2, 0, 1, 0.0, 0.0), (1, 2, 0, 2, 0.5, 0.0)]
HOMOPHONES_IN_THE_MIDDLE = [*HOMOPHONES_AT_THE_END, (2, 3, 2, 0, 0.0, 1.0)]
PREFIX_IN_THE_MIDDLE = [
    (0, 1, 1, 0, 0.0, 1.0),
    (1, 2, 0, 1, 0.0, 0.0),
    (2, 4, 1, 3, 0.0, 1.0),
    (1, 3, 2, 2, 0.5, 1.0),
    (3, 4, 0, 0, 0.0, 0.0),
]
PREFIX_AT_THE_END = [
    (0, 1, 1, 0, 0.0, 1.0),
    (1, 4, 2, 2, 0.0, 1.0),
    (0, 2, 1, 0, 0.0, 1.0),
    (2, 3, 2, 0, 0.0, 1.0),
    (3, 4, 0, 1, 0.0, 0.0),
]


@pytest.mark.parametrize(
    "arcs", [HOMOPHONES_AT_THE_END, HOMOPHONES_IN_THE_MIDDLE, PREFIX_IN_THE_MIDDLE, PREFIX_AT_THE_END]
)
@pytest.mark.parametrize("costs", [{"w1": 9.0, "w2": 9.0}, {"w1": 9.0}, {"w2": 9.0}, {"w1": -9.0}, {"w2": -9.0}])
@pytest.mark.parametrize("beam", [1e-4, 1.0, math.inf])
def test_words_emitted_without_a_frame_are_compared_by_their_new_costs(arcs, costs, beam):
    num_states = 1 + max(target for _, target, *_ in arcs)
    final = np.full((num_states, 2), math.inf)
    final[-1] = 0.0
    found = Lattice.from_arcs(arcs, final)
    exact, pruned = (
        {tuple(path.words): path.cost for path in nbest_paths(rescored, 9)}
        for rescored in (
            rescore_lattice(found, WORDS, WordCosts(), WordCosts(**costs)),
            rescore_lattice(found, WORDS, WordCosts(), WordCosts(**costs), beam),
        )
    )
    assert len(exact) == 2 and pruned
    if costs == {"w1": 9.0, "w2": 9.0}:  # the word of one path may come a frame later than the word of the other
        assert all(exact[words] == cost for words, cost in pruned.items())
    else:
        assert pruned == {words: cost for words, cost in exact.items() if cost <= min(exact.values()) + beam}


@pytest.mark.parametrize("costs", [{"</s>": 9.0}, {"</s>": -9.0}])
def test_the_new_cost_of_the_sentence_end_is_compared(costs):
    """Of two final states of the last frame, one after a word without a frame."""
    found = Lattice.from_arcs(
        [(0, 1, 1, 1, 0.0, 1.0), (1, 2, 0, 2, 0.0, 0.0)], np.array([[math.inf] * 2, [0.0] * 2, [0.5, 0.0]])
    )
    pruned = list(nbest_paths(rescore_lattice(found, WORDS, WordCosts(), WordCosts(**costs), 1e-4), 9))
    assert [path.words for path in pruned] == [[1]]


def test_rescoring_with_the_same_model_changes_no_cost(arpa):
    (found, _), _ = lattice(1)
    again = rescore_lattice(found, WORDS, arpa(BIGRAM), arpa(BIGRAM))
    before, after = ([path.cost for path in nbest_paths(one, 50)] for one in (found, again))
    assert after == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_a_lattice_read_from_its_text_has_the_same_paths(seed):
    (found, _), _ = lattice(seed)
    again = read_lattice(found.to_text())
    one, other = ({tuple(path.words): path.cost for path in nbest_paths(x, 100_000)} for x in (found, again))
    assert other == pytest.approx(one, abs=1e-4)


def test_kaldifst_reads_the_same_lattice_from_the_text():
    kaldifst = pytest.importorskip("kaldifst")
    (found, _), _ = lattice(3)
    compiled = kaldifst.compile("\n".join(line.split(",")[0] for line in found.to_text().splitlines()) + "\n")
    assert compiled.num_states == found.num_states and compiled.start == 0


def test_the_same_words_are_listed_once_by_their_best_path():
    arcs = [(0, 1, 1, 1, 0.0, 1.0), (0, 1, 2, 1, 0.0, 0.5), (0, 1, 1, 2, 0.0, 2.0), (1, 2, 1, 0, 0.0, 0.1)]
    final = np.full((3, 2), math.inf)
    final[2] = 0.0, 0.0
    found = list(nbest_paths(Lattice.from_arcs(arcs, final), 5))
    assert [(path.words, path.inputs) for path in found] == [([1], [2, 1]), ([2], [1, 1])]
    assert [path.cost for path in found] == pytest.approx([0.6, 2.1])


def test_states_can_have_any_order_but_no_cycle():
    final = np.array([[0.0, 0.0], [math.inf, math.inf], [math.inf, math.inf]])
    arcs = [(2, 1, 1, 1, 0.0, 1.0), (1, 0, 2, 2, 0.0, 1.0)]
    assert [path.words for path in nbest_paths(Lattice.from_arcs(arcs, final, start=2), 5)] == [[1, 2]]
    with pytest.raises(ValueError, match="cycle"):
        Lattice.from_arcs([*arcs, (0, 1, 1, 1, 0.0, 0.0)], final, start=2)


def test_the_best_of_many_combinations_of_homophones_are_found_quickly():
    arcs = [(t, t + 1, 1, word, 1.0, 0.5) for t in range(60) for word in (1, 2, 3)]  # homophones without a model
    final = np.full((61, 2), np.inf)
    final[-1] = 0.0
    found = list(nbest_paths(Lattice.from_arcs(arcs, final), 5))
    assert [path.words[-2:] for path in found] == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2]]
    assert all(path.words[:-2] == [1] * 58 and path.cost == 90.0 for path in found)
