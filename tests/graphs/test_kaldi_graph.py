"""Kaldi's HCLG as a graph of asrtool: the same paths with pdfs and words; damaged files."""

import json
import struct
from itertools import product

import kaldifst
import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.errors import UserError
from asrtool.graphs.build import build_graph_like
from asrtool.graphs.check import LabelCounts
from asrtool.graphs.const_fst import WordCost, write_const_fst
from asrtool.graphs.folder import load_graph
from asrtool.graphs.kaldi_graph import build_kaldi_graph
from asrtool.graphs.sources import graph_sources
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from tests.graphs.paths import outputs

PDFS = [3, 3, 0, 2, 1, 1]  # of the transition ids 1 to 6
WORDS = {"<eps>": 0, "ab": 1, "never": 2, "c": 3, "#0": 4, "<s>": 5, "</s>": 6}
# ab: transitions 1 2* 3, c: 5 6*, with an arc without a frame between words
HCLG = ["0 1 1 1 0.5", "1 1 2 0 0.7", "1 2 3 0 0.1", "2 0 0 0 1.5", "0 3 5 3 2", "3 3 6 0 0.25", "3 0.5", "2 1"]


@pytest.fixture(params=["const", "vector"])
def kaldi(request, tmp_path):
    """The folder of a graph as Kaldi writes it, and a tokenizer of the pdfs, pdfs.json, next to it."""
    folder = tmp_path / "graph"
    folder.mkdir()
    path = folder / "HCLG.fst"
    assert kaldifst.compile("\n".join(HCLG) + "\n").write(str(path))
    if request.param == "const":
        write_const_fst(path, tmp_path / "const.fst", LabelCounts(7, 7), WordCost(0.0, 0))
        (tmp_path / "const.fst").rename(path)
    (folder / "words.txt").write_text("".join(f"{word} {label}\n" for word, label in WORDS.items()))
    (folder / "num_pdfs").write_text("4\n")
    save_tokenizer(PdfTokenizer(PDFS), tmp_path / "pdfs.json")
    return folder


def build(kaldi, out):
    build_kaldi_graph(out, kaldi, kaldi.parent / "pdfs.json")
    return load_graph(out, load_tokenizer(kaldi.parent / "pdfs.json"))


def test_paths_have_the_same_costs_with_pdfs_and_words(kaldi, tmp_path):
    graph = build(kaldi, tmp_path / "out")
    assert graph.words == ["<eps>", "ab", "c", "#0"]
    original = kaldifst.compile("\n".join(HCLG) + "\n")
    expected: dict = {}
    for transitions in product(range(1, 7), repeat=3):
        pdfs = tuple(PDFS[transition - 1] + 2 for transition in transitions)
        for labels, cost in outputs(original, transitions).items():
            words = tuple({1: "ab", 3: "c"}[label] for label in labels)
            expected[pdfs, words] = min(cost, expected.get((pdfs, words), np.inf))
    found = {
        (pdfs, tuple(graph.words[label] for label in labels)): cost
        for pdfs in product(range(1, 6), repeat=3)
        for labels, cost in outputs(graph.fst, pdfs).items()
    }
    assert found.keys() == expected.keys() and len(found) >= 3
    assert all(found[key] == pytest.approx(expected[key], abs=1e-5) for key in found)


def test_graph_search_finds_the_words_of_the_pdfs(kaldi, tmp_path):
    graph = build(kaldi, tmp_path / "out")
    log_probs = np.full((6, 5), -20.0, np.float32)  # 4 pdfs and the blank
    log_probs[np.arange(6), [4, 4, 1, 2, 2, 2]] = -0.1  # pdfs 3 3 0 1 1 1
    hypothesis = GraphSearch(graph, GraphOptions()).decode(log_probs)
    assert hypothesis.words == ["ab", "c"] and hypothesis.complete
    assert (hypothesis.tokens, hypothesis.frames) == ([4, 1, 2], [0, 2, 3])
    graph_cost = 0.5 + 0.7 + 0.1 + 1.5 + 2 + 2 * 0.25 + 0.5
    assert -hypothesis.score == pytest.approx(graph_cost + 6 * 0.1, abs=1e-3)


def test_folders_above_are_created_and_nothing_else(kaldi, tmp_path):
    before = sorted(tmp_path.iterdir())
    build(kaldi, tmp_path / "some" / "where" / "out")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "some"])
    assert [path.name for path in (tmp_path / "some" / "where").iterdir()] == ["out"]


@pytest.mark.parametrize("command", [build_graph_like, lambda source, out: graph_sources(source)])
def test_no_graph_is_built_like_one_of_kaldi(kaldi, tmp_path, command):
    build(kaldi, tmp_path / "hclg")
    with pytest.raises(UserError, match="hclg is the graph of a Kaldi system, which has no lexicon") as raised:
        command(tmp_path / "hclg", tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_the_folder_describes_the_graph(kaldi, tmp_path):
    build(kaldi, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "graph.json").read_text())
    assert (meta["kind"], meta["topology"], meta["outputs"], meta["words"]) == ("HLG", "kaldi", 5, 2)
    assert (meta["sizes"]["HLG"]["states"], meta["sizes"]["HLG"]["arcs"]) == (4, 6)


def damage(path, offset, new):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(new)] = new
    path.write_bytes(content)


def test_damaged_graphs_are_refused(kaldi, tmp_path):
    path = kaldi / "HCLG.fst"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError):
            build(kaldi, tmp_path / "out")
    for offset, number in product(range(0, len(whole) - 4, 4), (-1, 1 << 29)):
        path.write_bytes(whole)
        damage(path, offset, struct.pack("<i", number))
        try:
            build(kaldi, tmp_path / "out")
        except UserError:
            continue
    assert not (tmp_path / "HLG.fst").exists()


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("words.txt", "<eps> 0\nab 1\n", "has the output label 3, which words.txt does not have"),
        ("words.txt", "<eps> 0\nab x\n", "words.txt:2: no word and a label of its own"),
        ("words.txt", "<eps> 0\nab 0\n", "words.txt:2: no word and a label of its own"),
        ("words.txt", "<eps> 0\na\x1b[31mb 1\n", "words.txt:2: the word has control characters"),
        ("num_pdfs", "5\n", "a system of 5 pdfs, the tokenizer of one with 4"),
        ("HCLG.fst", "0 1 1 1\n", "HCLG.fst is not"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_the_problem(kaldi, tmp_path, file, content, problem):
    (kaldi / file).write_text(content)
    with pytest.raises(UserError, match=problem):
        build(kaldi, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_of_another_model_is_refused(kaldi, tmp_path):
    save_tokenizer(PdfTokenizer([3, 3, 0, 2, 1]), tmp_path / "pdfs.json")
    with pytest.raises(UserError, match="transition ids beyond the 5 of the tokenizer's model"):
        build(kaldi, tmp_path / "out")


def test_other_units_than_pdfs_are_refused(kaldi, tmp_path):
    (tmp_path / "pdfs.json").write_text('{"type": "char", "symbols": ["<blank>", "a"]}')
    with pytest.raises(UserError, match="other units than pdfs"):
        build_kaldi_graph(tmp_path / "out", kaldi, tmp_path / "pdfs.json")
