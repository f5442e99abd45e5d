import gzip
import json
from functools import partial

import pytest

from asrtool.graphs.folder import load_graph
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.graphs.paths import Bigram, outputs

LM = Bigram({"ab": -0.5, "b": -0.7, "<unk>": -2.0, "</s>": -0.4}, {"<s>": -0.2}, {("ab", "b"): -0.1})


@pytest.fixture
def lang(tmp_path):
    """A folder with a tokenizer of each kind, an LM and a lexicon."""
    for kind in ("char", "word", "bpe"):
        save_tokenizer(train_tokenizer(kind, ["ab b ba", "b a"], vocab_size=6), tmp_path / f"{kind}.json")
    (tmp_path / "phones.json").write_text(json.dumps({"type": "word", "symbols": ["<blank>", "SIL", "AH", "B"]}))
    (tmp_path / "lexicon.txt").write_text("ab AH B\nab AH\nb B\nba B AH\n")
    LM.write(tmp_path / "lm.arpa")
    return tmp_path


@pytest.fixture
def run_graph(asr, lang, monkeypatch):
    """run_graph("--tokenizer", "char.json" ...) -> exit status, stdout, stderr of `asrtool graph graph` there"""
    monkeypatch.chdir(lang)
    return partial(asr, "graph", "graph")


@pytest.mark.parametrize("topology", ["ctc", "modified"])
@pytest.mark.parametrize("kind", ["char", "bpe", "word"])
def test_a_graph_maps_the_units_of_a_text_to_its_words(run_graph, lang, kind, topology):
    status, out, err = run_graph("--tokenizer", f"{kind}.json", "--lm", "lm.arpa", "--topology", topology)
    assert status == 0 and "HLG.fst" in out and "states" in err
    tokenizer = load_tokenizer(lang / f"{kind}.json")
    graph = load_graph(lang / "graph", tokenizer)
    assert graph.words == ["<eps>", "ab", "b", "#0"] and graph.meta["outputs"] == tokenizer.size
    frames = [label for unit in tokenizer.encode("ab b") for label in (unit + 1, 1)]  # a blank after each
    costs = {tuple(graph.words[label] for label in labels): cost for labels, cost in outputs(graph.fst, frames).items()}
    assert costs["ab", "b"] == pytest.approx(LM.cost(["ab", "b"]), abs=1e-3)


def test_phones_with_lexicon_and_silence(run_graph, lang):
    arguments = ("--lm", "lm.arpa", "--lexicon", "lexicon.txt", "--silence", "SIL", "--silence-prob", "0.2")
    status, out, err = run_graph(
        "--tokenizer", "phones.json", *arguments, "--kind", "HLG", "--kind", "G", "--kind", "L"
    )
    assert status == 0 and "1 of 3 words of the lexicon are not in the LM" in err and "ba" in err
    graph = load_graph(lang / "graph")
    assert graph.meta["silence"] == {"unit": "SIL", "probability": 0.2}
    assert {"HLG", "G", "L"} == graph.meta["sizes"].keys() == {path.stem for path in graph.folder.glob("*.fst")}
    assert set(graph.meta["sha256"]) == {"tokenizer", "lexicon", "lm"} and all(graph.meta["sha256"].values())
    sounds = [1, 2, 1, 3, 4, 4, 1, 2, 2]  # SIL AH B SIL
    assert (graph.words.index("ab"),) in outputs(graph.fst, sounds)


def test_a_loop_of_words_needs_no_lm(run_graph, lang):
    status, out, _ = run_graph("--tokenizer", "phones.json", "--lexicon", "lexicon.txt", "--kind", "HL")
    assert status == 0 and "HL.fst" in out
    assert load_graph(lang / "graph").words == ["<eps>", "ab", "b", "ba", "#0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "char.json"], "--lm"),
        (["--tokenizer", "char.json", "--kind", "HL"], "--lexicon FILE or --lm"),
        (["--tokenizer", "char.json", "--lm", "no.arpa"], "no.arpa"),
        (["--tokenizer", "char.json", "--lm", "char.json"], "not an ARPA file"),
        (["--tokenizer", "no.json", "--lm", "lm.arpa"], "no.json"),
        (["--tokenizer", "char.json", "--lm", "lm.arpa", "--silence", "SIL"], "--silence"),
        (["--tokenizer", "word.json", "--lm", "lm.arpa", "--silence", "SIL"], "no unit 'SIL'"),
        (["--tokenizer", "phones.json", "--lm", "lm.arpa"], "none of the"),
        (["--tokenizer", "char.json", "--lm", "lm.arpa", "--kind", "GL"], "GL"),
    ],
)
def test_inputs_that_do_not_fit_together_are_one_line(run_graph, lang, arguments, message):
    status, _, err = run_graph(*arguments)
    assert status == 2 and message in err.splitlines()[-1] and "Traceback" not in err
    assert not (lang / "graph").exists()


def test_unknown_phones_of_the_lexicon_are_all_listed(run_graph, lang):
    (lang / "lexicon.txt").write_text("ab AH Q\nb B\nba X Y\n")
    status, _, err = run_graph("--tokenizer", "phones.json", "--lm", "lm.arpa", "--lexicon", "lexicon.txt")
    assert status == 1 and all(phone in err for phone in "QXY")
    assert not (lang / "graph").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "0", "1", "-0.5", "1e-400", "half"])
def test_an_invalid_silence_probability_is_refused(run_graph, lang, value):
    arguments = ("--lm", "lm.arpa", "--lexicon", "lexicon.txt", "--silence", "SIL", f"--silence-prob={value}")
    status, _, err = run_graph("--tokenizer", "phones.json", *arguments)
    assert status == 2 and "--silence-prob" in err and err.count("\n") == 1
    assert not (lang / "graph").exists()


def test_a_folder_of_another_tool_is_refused_and_left_unchanged(run_graph, lang):
    (lang / "graph").mkdir()
    (lang / "graph" / "L.fst").write_text("Kaldi's")
    status, _, err = run_graph("--tokenizer", "char.json", "--lm", "lm.arpa")
    assert status == 2 and "graph was not written by `asrtool graph`" in err and err.count("\n") == 1
    assert [path.name for path in (lang / "graph").iterdir()] == ["L.fst"]


@pytest.mark.parametrize("options, source", [
    (["--tokenizer", "phones.json", "--lexicon", "graph/lexicon.txt", "--lm", "lm.arpa"], "graph/lexicon.txt"),
    (["--tokenizer", "char.json", "--lm", "graph/../graph/lm.arpa"], "lm.arpa"),
    (["--tokenizer", "graph/char.json", "--lm", "lm.arpa"], "graph/char.json"),
    (["--from", "graph", "--tokenizer", "char.json", "--lm", "lm.arpa"], "input graph"),
])  # fmt: skip
def test_a_graph_never_replaces_its_own_inputs(run_graph, lang, options, source):
    assert run_graph("--tokenizer", "char.json", "--lm", "lm.arpa")[0] == 0
    for name in ("lm.arpa", "char.json"):
        (lang / "graph" / name).write_bytes((lang / name).read_bytes())
    before = {path: path.read_bytes() for path in (lang / "graph").iterdir()}
    status, _, err = run_graph(*options)
    assert status == 2 and "OUT is graph, which has the input" in err and source in err
    assert {path: path.read_bytes() for path in (lang / "graph").iterdir()} == before


def test_a_failed_build_leaves_the_earlier_graph(run_graph, lang):
    assert run_graph("--tokenizer", "char.json", "--lm", "lm.arpa")[0] == 0
    before = {path.name: path.read_bytes() for path in (lang / "graph").iterdir()}
    (lang / "lm.arpa").write_text((lang / "lm.arpa").read_text().replace("-0.7\tb", "nan\tb"))
    status, _, err = run_graph("--tokenizer", "char.json", "--lm", "lm.arpa")
    assert status == 2 and "lm.arpa is not a valid ARPA file: line" in err.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in (lang / "graph").iterdir()} == before


@pytest.mark.parametrize("name", ["lm.arpa.gz", "lexicon.txt.gz"])
def test_damaged_gzip_files_are_named_in_one_line(run_graph, lang, name):
    whole = gzip.compress((lang / name.removesuffix(".gz")).read_bytes())
    (lang / name).write_bytes(whole[: len(whole) // 2])
    lm, lexicon = (
        name if name.startswith(stem) else stem + end for stem, end in (("lm", ".arpa"), ("lexicon", ".txt"))
    )
    status, _, err = run_graph("--tokenizer", "phones.json", "--lm", lm, "--lexicon", lexicon)
    assert status == 2 and name in err and "gzip" in err and not (lang / "graph").exists()
