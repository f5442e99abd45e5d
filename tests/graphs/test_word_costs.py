"""A cost for every word of a graph."""

import kaldifst
import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.graphs import word_costs
from asrtool.graphs.word_costs import add_word_cost

NUM_WORDS = 4  # labels 1 to 3; a graph may have higher labels, which are not words


def random_graph(seed: int):
    """A graph of 1 to 9 states, of which some have no arcs and some are final."""
    draw = np.random.default_rng(seed)
    size = int(draw.integers(1, 10))
    lines = [f"{state} {state} 1 0 0.5\n" for state in range(size)]  # so that every number is a state
    for _ in range(draw.integers(0, 30)):
        source, target, label, word = draw.integers([size, size, 5, NUM_WORDS + 2])
        lines.append(f"{source} {target} {label} {word} {draw.normal()}\n")
    lines += [f"{state} {draw.normal()}\n" for state in range(size) if draw.random() < 0.5]
    return kaldifst.compile("".join(lines))


def arcs(fst):
    return [
        (state, arc.ilabel, arc.olabel, arc.nextstate, arc.weight.value)
        for state in range(fst.num_states)
        for arc in kaldifst.ArcIterator(fst, state)
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("cost", [2.0, -0.7])
def test_arcs_with_words_cost_more_and_nothing_else_changes(seed, cost, monkeypatch):
    monkeypatch.setattr(word_costs, "BLOCK_STATES", 2)
    fst = random_graph(seed)
    before = arcs(fst)
    changed = add_word_cost(fst, cost, NUM_WORDS)
    assert arcs(fst) == before
    assert [row[:4] for row in arcs(changed)] == [row[:4] for row in before]
    expected = [weight + cost * (0 < word < NUM_WORDS) for _, _, word, _, weight in before]
    assert [row[4] for row in arcs(changed)] == pytest.approx(expected, abs=1e-6)
    assert changed.start == fst.start
    assert [changed.final(state).value for state in range(changed.num_states)] == [
        fst.final(state).value for state in range(fst.num_states)
    ]


def test_the_weights_are_those_of_a_composition():
    fst = random_graph(3)
    loops = kaldifst.compile("".join(f"0 0 {word} {word} 1.5\n" for word in range(1, NUM_WORDS + 2)) + "0\n")
    composed = kaldifst.compose(fst, loops, match_side="right")
    changed = add_word_cost(fst, 1.5, NUM_WORDS + 2)
    kaldifst.connect(changed)
    assert sorted(row[4] for row in arcs(changed)) == pytest.approx(sorted(row[4] for row in arcs(composed)))


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(word_costs, "_change_file", full)
    with pytest.raises(UserError, match="TMPDIR"):
        add_word_cost(random_graph(1), 1.0, NUM_WORDS)
