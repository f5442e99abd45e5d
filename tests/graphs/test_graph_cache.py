"""Large graphs in the user's cache: the same search, found again, and only what it made itself is used."""

import kaldifst
import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.kaldi_search import add_insertion_penalty
from asrtool.doctor.machine import check_disk, measure_machine
from asrtool.errors import UserError
from asrtool.graphs import check, graph_cache
from asrtool.graphs.check import HEADER, MAGIC, LabelCounts
from asrtool.graphs.const_fst import WordCost, write_const_fst
from asrtool.graphs.folder import load_graph, save_graph
from asrtool.text import g2p
from asrtool.text.lexicon import Lexicon
from asrtool.user_cache import user_cache
from tests.decoding.graphs import random_graph, random_log_probs

OUTPUTS, WORDS, UNITS = 4, ["<eps>", "a", "b", "c"], ["<eps>", "<blank>", "x", "y", "z"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache, into which graphs of all sizes are put."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(graph_cache, "MIN_CACHED_BYTES", 0)
    return tmp_path / "cache" / "asrtool"


@pytest.fixture
def graph_folder(tmp_path):
    """graph_folder(seed) -> the folder of a random graph."""

    def write(seed=1):
        fst = kaldifst.compile("\n".join(random_graph(seed).lines) + "\n")
        meta = {"kind": "HLG", "topology": "ctc", "outputs": OUTPUTS, "sizes": {"HLG": {}}}
        meta["sha256"] = {"tokenizer": "none"}
        save_graph(tmp_path / f"graph{seed}", {"HLG": fst}, WORDS, UNITS, meta)
        return tmp_path / f"graph{seed}"

    return write


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("cost", [0.0, 1.5, -0.5])
def test_the_const_graph_has_the_same_states_and_arcs(graph_folder, tmp_path, seed, cost, monkeypatch):
    monkeypatch.setattr(check, "BLOCK_STATES", 2)
    source = graph_folder(seed) / "HLG.fst"
    out = tmp_path / "const.fst"
    write_const_fst(source, out, LabelCounts(1 + OUTPUTS, len(WORDS)), WordCost(cost, len(WORDS)))
    expected = add_insertion_penalty(kaldifst.StdVectorFst.read(str(source)), cost, len(WORDS))
    assert kaldifst.StdConstFst.read(str(out)).to_str() == expected.to_str()
    converted = tmp_path / "converted.fst"
    assert kaldifst.StdConstFst(expected).write(str(converted))  # OpenFst counts the epsilons itself
    body = len(MAGIC) - 1 + HEADER.size
    assert out.read_bytes()[body:] == converted.read_bytes()[body:]


def without_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)

    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_entry)  # as of a user id that a container does not know


def test_a_user_without_a_home_folder_has_no_cache(graph_folder, monkeypatch, tmp_path):
    without_home(monkeypatch)
    assert user_cache() is None
    graph = load_graph(graph_folder())
    assert GraphSearch(graph, GraphOptions()).decode(random_log_probs(9, OUTPUTS, 1)) is not None
    machine = measure_machine(tmp_path)
    assert machine.unwritable == () and "unwritable-folder" not in {finding.code for finding in check_disk(machine)}
    lexicon = Lexicon({"a": (("x",),)})
    monkeypatch.setattr(g2p, "MIN_CACHED_WORDS", 0)
    monkeypatch.setattr(g2p, "_train", lambda *_: "trained")
    assert g2p._train_or_copy(lexicon, tmp_path, {}) == "trained"


@pytest.mark.parametrize("lattice_beam", [None, 8.0])
@pytest.mark.parametrize("seed", range(10))
def test_a_search_finds_the_same_by_the_cache(graph_folder, cache, seed, lattice_beam, monkeypatch):
    options = GraphOptions(lattice_beam=lattice_beam, insertion_penalty=0.5)
    log_probs = random_log_probs(6, OUTPUTS, seed)
    by_cache = GraphSearch(load_graph(graph_folder(seed)), options)
    assert isinstance(by_cache.fst, kaldifst.StdConstFst)
    monkeypatch.setattr(graph_cache, "MIN_CACHED_BYTES", 10**9)
    without = GraphSearch(load_graph(graph_folder(seed)), options)
    assert not isinstance(without.fst, kaldifst.StdConstFst)
    assert by_cache.decode(log_probs) == without.decode(log_probs)


def test_the_second_opening_checks_nothing_again(graph_folder, cache, monkeypatch):
    folder = graph_folder()
    graph_cache.cached_fst(load_graph(folder), 0.5)
    assert len(list(cache.iterdir())) == 1

    def refuse(*_):
        raise AssertionError("checked again")

    monkeypatch.setattr(graph_cache, "write_const_fst", refuse)
    assert graph_cache.cached_fst(load_graph(folder), 0.5) is not None
    with pytest.raises(AssertionError):
        graph_cache.cached_fst(load_graph(folder), 0.7)  # the penalty is in the graph


def test_the_graph_itself_must_still_be_what_graph_json_says(graph_folder):
    folder = graph_folder()
    graph_cache.cached_fst(load_graph(folder), 0.0)
    (folder / "HLG.fst").write_bytes((graph_folder(2) / "HLG.fst").read_bytes())
    with pytest.raises(UserError, match="its sha256 is another"):
        graph_cache.cached_fst(load_graph(folder), 0.0)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-4] + b"\xff" * 4])
def test_a_damaged_file_of_the_cache_is_made_again(graph_folder, cache, damage):
    folder = graph_folder()
    expected = graph_cache.cached_fst(load_graph(folder), 0.0).to_str()
    (path,) = cache.iterdir()
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert graph_cache.cached_fst(load_graph(folder), 0.0).to_str() == expected
    assert path.read_bytes() == sound


def test_a_graph_that_crashes_decoders_does_not_enter_the_cache(graph_folder, cache):
    folder = graph_folder()
    fst = kaldifst.compile("0 1 0 1 1\n1 0 0 1 1\n1\n")
    meta = {"kind": "HLG", "topology": "ctc", "outputs": OUTPUTS, "sizes": {"HLG": {}}}
    save_graph(folder, {"HLG": fst}, WORDS, UNITS, meta | {"sha256": {"tokenizer": "none"}})
    for _ in range(2):
        with pytest.raises(UserError, match="has a cycle of arcs without input labels"):
            graph_cache.cached_fst(load_graph(folder), 0.0)
        assert not list(cache.iterdir())


def test_a_pack_cannot_bring_a_cached_graph(graph_folder, cache):
    """A file named as in the cache, beside the graph, is never read."""
    folder = graph_folder()
    expected = graph_cache.cached_fst(load_graph(folder), 0.0).to_str()
    (path,) = cache.iterdir()
    path.rename(folder / path.name)
    (folder / path.name).write_bytes(b"planted")
    assert graph_cache.cached_fst(load_graph(folder), 0.0).to_str() == expected


@pytest.mark.parametrize("make", [lambda cache: cache.parent.write_text(""), lambda cache: cache.mkdir(parents=True)])
def test_without_a_usable_cache_the_graph_is_read_as_it_is(graph_folder, cache, make, monkeypatch):
    make(cache)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_cache, "write_const_fst", full)
    assert graph_cache.cached_fst(load_graph(graph_folder()), 0.0) is None
    assert GraphSearch(load_graph(graph_folder()), GraphOptions()).decode(random_log_probs(4, OUTPUTS, 1))


def test_the_least_recently_used_graphs_are_removed(graph_folder, cache):
    folder = graph_folder()
    costs = np.arange(graph_cache.MAX_CACHED_GRAPHS + 2) / 4
    for cost in costs:
        graph_cache.cached_fst(load_graph(folder), float(cost))
        assert graph_cache.cached_fst(load_graph(folder), 0.0) is not None  # used again
    assert len(list(cache.iterdir())) == graph_cache.MAX_CACHED_GRAPHS
    names = set(cache.iterdir())
    graph_cache.cached_fst(load_graph(folder), 0.0)
    assert set(cache.iterdir()) == names
