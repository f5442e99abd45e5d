import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.graphs.topology import TOPOLOGIES, topology_fst
from asrtool.text.outputs import num_outputs
from tests.graphs.paths import collapse, outputs, sequences

UNITS = [1, 2, 3]
few = settings(max_examples=50, deadline=None)
FSTS = {name: topology_fst(name, UNITS) for name in TOPOLOGIES}


def units_of(name: str, frames) -> dict[tuple[int, ...], float]:
    """Unit sequences that the topology maps `frames` to, one output for each frame."""
    costs = outputs(FSTS[name], [frame + 1 for frame in frames])
    return {tuple(label - 1 for label in labels): cost for labels, cost in costs.items()}


def splits(frames) -> set[tuple[int, ...]]:
    """The unit sequences of modified CTC: each run of n frames of a unit is 1 to n of it."""
    runs = [(unit, len(list(run))) for unit, run in itertools.groupby(frames)]
    choices = [[(unit,) * count for count in range(1, length + 1)] for unit, length in runs if unit]
    return {tuple(itertools.chain.from_iterable(choice)) for choice in itertools.product(*choices)}


def test_ctc_maps_frames_to_their_collapsed_units():
    for frames in sequences([0, *UNITS], 4):
        assert units_of("ctc", frames) == {collapse(frames): 0.0}, frames


def test_modified_ctc_needs_no_blank_between_equal_units():
    for frames in sequences([0, *UNITS], 4):
        assert units_of("modified", frames) == dict.fromkeys(splits(frames), 0.0), frames


def test_an_hmm_unit_is_its_first_output_once_and_its_second_output_any_number_of_times():
    for frames in sequences(range(8), 3):
        begins = [frame // 2 for frame in frames if frame % 2 == 0]
        last = None  # the unit that a second output may prolong
        sound = True
        for frame in frames:
            sound = sound and frame // 2 in UNITS and (frame % 2 == 0 or frame // 2 == last)
            last = frame // 2
        assert units_of("hmm", frames) == ({tuple(begins): 0.0} if sound else {}), frames


@few
@given(st.lists(st.integers(0, 3), max_size=12))
def test_ctc_maps_long_inputs_to_one_unit_sequence(frames):
    assert units_of("ctc", frames) == {collapse(frames): 0.0}


@few
@given(st.lists(st.integers(0, 3), max_size=9))
def test_modified_ctc_accepts_the_unit_sequence_of_ctc(frames):
    assert collapse(frames) in units_of("modified", frames)


def test_modified_ctc_has_linearly_and_ctc_quadratically_many_arcs():
    def arcs(name, size):
        fst = topology_fst(name, range(1, size + 1))
        return sum(fst.num_arcs(state) for state in range(fst.num_states))

    assert arcs("modified", 50) == 4 * 50 + 1
    assert arcs("ctc", 50) == 50 * (50 - 1) + 3 * 50 + 1


@pytest.mark.parametrize(("name", "outputs_of_model"), [("ctc", 40), ("modified", 40), ("hmm", 80)])
def test_outputs_that_the_model_needs(name, outputs_of_model):
    assert num_outputs(name, 40) == outputs_of_model


def test_units_outside_of_the_topology_have_no_path():
    fst = topology_fst("ctc", [1, 3])
    assert outputs(fst, [2, 4]) and not outputs(fst, [2, 3])
