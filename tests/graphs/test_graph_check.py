"""FST files of strangers, or damaged ones: refused before OpenFst and the decoders see them."""

import random
import struct

import kaldifst
import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.graphs.check import HEADER, MAGIC, BadFst, LabelCounts, check_fst, read_fst
from tests.decoding.graphs import random_graph, random_log_probs

LINES = ["0 1 1 1 0.5", "0 1 2 0 0.5", "1 2 0 2 0.25", "2 0 1 0 1", "2 1.5"]
LABELS = LabelCounts(3, 3)
BODY = len(MAGIC) + HEADER.size
FIRST_ARC = BODY + 12


@pytest.fixture
def write(tmp_path):
    """write(lines, {offset: bytes}) -> the file of an FST, with these bytes replaced"""

    def make(lines=LINES, changes=None):
        path = tmp_path / "HLG.fst"
        assert kaldifst.compile("\n".join(lines) + "\n").write(str(path))
        content = bytearray(path.read_bytes())
        for offset, new in (changes or {}).items():
            content[offset : offset + len(new)] = new
        path.write_bytes(content)
        return path

    return make


def integer(value):
    return struct.pack("<i", value)


def number(value):
    return struct.pack("<f", value)


def test_a_sound_graph_is_read_as_openfst_reads_it(write):
    path = write()
    assert read_fst(path, LABELS).to_str() == kaldifst.StdVectorFst.read(str(path)).to_str()


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_pass(write, seed):
    check_fst(write(random_graph(seed).lines), LabelCounts(5, 4))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({FIRST_ARC: integer(3)}, "state 0 with input label 3 .there are 0 to 2"),
        ({FIRST_ARC: integer(-1)}, "input label -1"),
        ({FIRST_ARC: integer(200_000_000)}, "input label 200000000"),
        ({FIRST_ARC + 4: integer(3)}, "output label 3"),
        ({FIRST_ARC + 4: integer(-7)}, "output label -7"),
        ({FIRST_ARC + 8: number(np.nan)}, "weight nan"),
        ({FIRST_ARC + 8: number(-np.inf)}, "weight -inf"),
        ({FIRST_ARC + 8: number(-1e30)}, "weight -1"),
        ({FIRST_ARC + 12: integer(3)}, "next state 3 .there are 3"),
        ({FIRST_ARC + 12: integer(-1)}, "next state -1"),
        ({BODY: number(np.nan)}, "final weight of nan in state 0"),
        ({BODY: number(-np.inf)}, "final weight of -inf"),
        ({BODY + 4: struct.pack("<q", 2**60)}, "arcs of state 0 do not fit"),
        ({BODY + 4: struct.pack("<q", -1)}, "arcs of state 0 do not fit"),
        ({BODY + 4: struct.pack("<q", 1)}, "do not fit|bytes more|cut short"),
        ({BODY - 16: struct.pack("<q", 2**50)}, "states by its header"),
        ({BODY - 16: struct.pack("<q", -1)}, "states by its header"),
        ({BODY - 16: struct.pack("<q", 0)}, "0 states"),
        ({BODY - 16: struct.pack("<q", 2)}, "bytes more than its 2 states"),
        ({BODY - 16: struct.pack("<q", 4)}, "ends before state 3"),
        ({BODY - 24: struct.pack("<q", 3)}, "starts in state 3"),
        ({BODY - 24: struct.pack("<q", -1)}, "starts in state -1"),
        ({len(MAGIC): integer(1)}, "symbol tables"),
        ({0: b"#!"}, "not an OpenFst file"),
        ({8: b"const!"}, "not an OpenFst file"),
    ],
)
def test_what_a_decoder_would_stumble_over_is_named(write, changes, problem):
    with pytest.raises(BadFst, match=problem):
        read_fst(write(changes=changes), LABELS)


def test_an_impossible_arc_and_a_state_that_is_not_final_have_infinite_weights(write):
    check_fst(write(changes={FIRST_ARC + 8: number(np.inf), BODY: number(np.inf)}), LABELS)


@pytest.mark.parametrize("cost", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize(
    "cycle", [["0 0 0 1 {}"], ["0 1 0 0 {}", "1 0 0 1 {}"], ["0 1 0 0 {}", "1 2 0 0 {}", "2 1 0 2 {}"]]
)
def test_a_cycle_that_takes_no_frame_is_refused(write, cycle, cost):
    with pytest.raises(BadFst, match="cycle of arcs without input labels through state [012]$"):
        check_fst(write(["0 1 1 1 1", "1 2 1 1 1", *(line.format(cost) for line in cycle), "2"]), LABELS)


@pytest.mark.parametrize("content", [b"", b"x", MAGIC, MAGIC + bytes(HEADER.size - 1), MAGIC + bytes(HEADER.size)])
def test_what_is_no_fst_is_refused(tmp_path, content):
    (tmp_path / "HLG.fst").write_bytes(content)
    with pytest.raises(BadFst):
        check_fst(tmp_path / "HLG.fst", LABELS)


def test_every_cut_is_noticed(write):
    path = write()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFst):
            check_fst(path, LABELS)


def test_claims_of_a_file_about_itself_are_not_believed(write):
    sorted_by_label = 0x10000000
    path = write(["0 1 2 1", "0 1 1 2", "1"], {BODY - 32: struct.pack("<Q", 3 | sorted_by_label)})
    assert kaldifst.StdVectorFst.read(str(path)).properties(sorted_by_label, True)
    assert not read_fst(path, LABELS).properties(sorted_by_label, True)


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_graph_is_refused_or_searched(write, seed):
    draw, one = random.Random(seed), random_graph(seed)
    size = write(one.lines).stat().st_size
    changes = {}
    for _ in range(draw.randint(1, 3)):
        place = BODY + 4 * draw.randrange((size - BODY) // 4)
        changes[place] = draw.choice([integer(draw.choice([-1, 0, 1, 3, 5, 2**31 - 1])), number(draw.uniform(-9, 9))])
    try:
        one.fst = read_fst(write(one.lines, changes), LabelCounts(5, 4))
    except BadFst:
        return
    for options in (GraphOptions(), GraphOptions(lattice_beam=8.0, nbest=3)):
        GraphSearch(one, options).decode(random_log_probs(5, 4, seed))


def test_states_are_checked_beyond_the_first_block(write, monkeypatch):
    monkeypatch.setattr("asrtool.graphs.check.BLOCK_STATES", 2)
    chain = [f"{n} {n + 1} 1 1" for n in range(9)] + ["9"]
    check_fst(write(chain), LABELS)
    with pytest.raises(BadFst, match="state 8 with output label 5"):
        check_fst(write([*chain[:8], "8 9 1 5", "9"]), LABELS)
    with pytest.raises(BadFst, match="cycle"):
        check_fst(write([*chain[:8], "8 3 0 0", "8 9 1 1", "3 8 0 0", "9"]), LABELS)
