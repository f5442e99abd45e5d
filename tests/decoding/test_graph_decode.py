"""Decoding a manifest with a graph, by the command."""

import gzip
import json
import math
import shutil
import sys

import numpy as np
import pytest

from asrtool.decoding import decode as decoding
from asrtool.decoding.lattice import nbest_paths
from asrtool.decoding.log_probs import read_log_probs
from asrtool.locks import LOCK
from asrtool.text.tokenizer import load_tokenizer
from tests.decoding.graphs import ARPA, read_lattice, save_word_graph


@pytest.fixture(scope="module")
def files(tokenizer_file, tmp_path_factory):
    """A folder with `graph`, `old.arpa`, which it is said to be made of, and what else options name, good and bad."""
    folder = tmp_path_factory.mktemp("lang")
    (folder / "old.arpa").write_text(ARPA, encoding="utf-8")
    (folder / "new.arpa").write_text(ARPA.replace("-0.3\tone", "-1.3\tone"), encoding="utf-8")
    upper = ARPA.replace("one", "ONE").replace("two", "TWO").replace("three", "THREE").replace("four", "FOUR")
    (folder / "upper.arpa").write_text(upper, encoding="utf-8")
    (folder / "priors.json").write_text("[5, 1, 1, 0, 3]", encoding="utf-8")
    best = {"acoustic_scale": 0.8, "blank_penalty": 1, "insertion_penalty": 4}
    (folder / "decoding_weights.json").write_text(json.dumps({"best": best}), encoding="utf-8")
    save_word_graph(folder / "graph", load_tokenizer(tokenizer_file), folder / "old.arpa")
    save_word_graph(folder / "other", load_tokenizer(tokenizer_file), sha256={"tokenizer": "0"})
    save_word_graph(folder / "wide", load_tokenizer(tokenizer_file), outputs=9)
    without_lm = {"kind": "HL", "sizes": {"HL": {}}}
    save_word_graph(folder / "HL", load_tokenizer(tokenizer_file), **without_lm)
    save_word_graph(folder / "hmm", load_tokenizer(tokenizer_file), topology="hmm")
    (folder / "short.json").write_text("[1, 2]", encoding="utf-8")
    return folder


@pytest.fixture
def link(experiment, tmp_path):
    """The experiment with a place of its own for results."""
    folder = tmp_path / "exp"
    folder.mkdir()
    for path in experiment.iterdir():
        if path.name != "decode":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def decode(asr, link, corpus, files, monkeypatch):
    """decode("--nbest", 3) -> rows and facts of `asrtool decode --method graph` with these options"""
    monkeypatch.chdir(files)

    def run(*options):
        command = ("decode", link, corpus, "--method", "graph", "--graph", "graph", "--workers", 0, "--device", "cpu")
        status, _, err = asr(*command, "--overwrite", *options)
        assert status == 0, err
        out = link / "decode" / "cuts" / ("rescored" if "--rescore" in options else "graph")
        rows = [json.loads(line) for line in (out / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]
        return rows, json.loads((out / "decode.json").read_text(encoding="utf-8"))

    run.names = lambda: sorted(path.name for path in run.out.iterdir() if path.name != LOCK)
    run.out, run.folder = link / "decode" / "cuts" / "graph", files
    return run


def lattices(folder):
    """utterance -> Lattice"""
    blocks = gzip.decompress((folder / "lat.gz").read_bytes()).decode().split("\n\n")
    pairs = [block.split("\n", 1) for block in blocks if block]
    return {name: read_lattice(text) for name, text in pairs}


def test_rows_have_words_with_times(decode):
    rows, facts = decode()
    assert len(rows) == facts["utterances"] == 24 and facts["partial"] == 0 and facts["beam"] == 16.0
    for row in rows:
        assert [word for word, *_ in row["words"]] == row["hyp"].split() == [unit for unit, _ in row["units"]]
        assert "partial" not in row and "nbest" not in row and 0 <= row["confidence"] <= 1
        for (_, start, end, confidence), (_, unit) in zip(row["words"], row["units"], strict=True):
            assert 0 <= start <= unit < end and 0 <= confidence <= 1
    assert any(row["hyp"] for row in rows)
    assert decode.names() == ["decode.json", "hyps.jsonl"]


def test_several_processes_write_the_same_rows(decode):
    assert decode("--jobs", 2)[0] == decode()[0]


def test_options_change_the_search_and_are_recorded(decode):
    plain, _ = decode()
    few, facts = decode("--insertion-penalty", 4, "--acoustic-scale", 0.8, "--max-active", 50)
    assert sum(len(row["words"]) for row in few) < sum(len(row["words"]) for row in plain)
    assert (facts["insertion_penalty"], facts["acoustic_scale"], facts["max_active"]) == (4, 0.8, 50)
    for option in (
        ("--blank-penalty", 3),
        ("--priors", "priors.json"),
        ("--decoding-weights", "decoding_weights.json"),
    ):
        assert decode(*option)[0] != plain
    few, facts = decode("--decoding-weights", "decoding_weights.json", "--blank-penalty", 0)
    assert (facts["insertion_penalty"], facts["acoustic_scale"], facts["blank_penalty"]) == (4, 0.8, 0)


def test_nbest_and_lattices_hold_the_best_path(decode):
    plain, _ = decode()
    rows, facts = decode("--nbest", 4, "--lattices")
    found = lattices(decode.out)
    assert [row["hyp"] for row in rows] == [row["hyp"] for row in plain] and facts["lattice_beam"] == 8.0
    assert sorted(found) == [row["id"] for row in rows]
    for row in rows:
        best = row["nbest"]
        assert best[0] == {"hyp": row["hyp"], "score": row["score"]}
        assert len({one["hyp"] for one in best}) == len(best) <= 4
        costs = [path.cost for path in nbest_paths(found[row["id"]], 4)]
        assert [-one["score"] for one in best] == pytest.approx(costs, abs=2e-3)
    decode()
    assert not (decode.out / "lat.gz").exists()


def test_rescoring_replaces_the_scores_of_one_model_by_those_of_the_other(decode):
    rows, _ = decode("--nbest", 50, "--lattice-beam", 20)
    same, _ = decode("--nbest", 50, "--lattice-beam", 20, "--rescore", "old.arpa", "--graph-lm", "old.arpa")
    other, _ = decode("--nbest", 50, "--lattice-beam", 20, "--rescore", "new.arpa", "--graph-lm", "old.arpa")
    for row, again, changed in zip(rows, same, other, strict=True):
        assert [one["score"] for one in again["nbest"]] == pytest.approx(
            [one["score"] for one in row["nbest"]], abs=1e-3
        )
        before = {one["hyp"]: one["score"] for one in row["nbest"]}
        for one in changed["nbest"]:
            if one["hyp"] in before:
                pairs = f" {one['hyp']} ".count(" one two ")
                assert one["score"] == pytest.approx(before[one["hyp"]] - pairs * math.log(10), abs=2e-3)


@pytest.mark.k2
@pytest.mark.parametrize(
    "options", [(), ("--lattices", "--nbest", 3, "--rescore", "new.arpa", "--graph-lm", "old.arpa")]
)
def test_k2_finds_what_kaldi_decoder_finds(decode, options):
    pytest.importorskip("k2", exc_type=ImportError)
    (ours, facts), (theirs, _) = decode("--engine", "k2", *options), decode(*options)
    assert facts["engine"] == "k2"
    for row, other in zip(ours, theirs, strict=True):
        assert {**row, "score": 0, "nbest": 0} == {**other, "score": 0, "nbest": 0}
        assert row["score"] == pytest.approx(other["score"], abs=2e-3)
        assert [one["hyp"] for one in row.get("nbest", [])] == [one["hyp"] for one in other.get("nbest", [])]


def test_without_k2_its_engine_is_refused(asr, link, corpus, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    status, _, err = asr("decode", link, corpus, "--method", "graph", "--graph", files / "graph", "--engine", "k2")
    assert status == 2 and "tools/install_k2.sh" in err and err.count("\n") == 1


def test_an_interrupted_run_resumes_with_its_lattices(decode, monkeypatch, asr):
    rows, _ = decode("--lattices", "--batch-seconds", 4)
    whole = (decode.out / "hyps.jsonl").read_bytes(), lattices(decode.out).keys()
    real, seen = decoding.Experiment.log_probs, []

    def log_probs(self, batch):
        seen.append(batch.position.batch)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(decoding.Experiment, "log_probs", log_probs)
    monkeypatch.setattr(decoding, "FILE_SECONDS", 0.0)
    with pytest.raises(AssertionError, match="interrupted"):
        decode("--lattices", "--batch-seconds", 4)
    decode("--lattices", "--batch-seconds", 4)
    assert seen == [0, 1, 2, 3, *range(3, len(seen) - 1)]
    assert ((decode.out / "hyps.jsonl").read_bytes(), lattices(decode.out).keys()) == whole and len(rows) == 24
    assert decode.names() == ["decode.json", "hyps.jsonl", "lat.gz"]


def test_utterances_without_a_complete_path_are_listed_counted_and_partial(asr, link, corpus, tmp_path, tokenizer_file):
    two = ["0 1 2 1 0", "0 1 1 0 0", "0 1 3 2 0", "1 2 2 1 0", "1 2 1 0 0", "1 2 3 2 0", "2 0"]
    folder = save_word_graph(tmp_path / "graph", load_tokenizer(tokenizer_file), lines=two)
    status, _, err = asr("decode", link, corpus, "--method", "graph", "--graph", folder, "--workers", 0)
    problem = "24 of 24 utterances have no path to the end of the graph, only a partial one: a-00, a-03"
    assert status == 0 and problem in err
    rows = (link / "decode" / "cuts" / "graph" / "hyps.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(row)["partial"] and len(json.loads(row)["words"]) <= 2 for row in rows)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ("--method graph", "--method graph needs --graph FOLDER"),
        ("--graph graph", "--graph has no effect on --method greedy; it is for --method graph"),
        ("--beam 4", "--beam has no effect on --method greedy; it is for --method prefix or --method graph"),
        ("--method prefix --lattices", "--lattices has no effect on --method prefix"),
        ("--method prefix --beam 2.5", "--beam 2.5 is not possible with --method prefix"),
        ("--method prefix --lm-weight 1", "--lm-weight needs --lm"),
        ("--method prefix --insertion-penalty 1", "--insertion-penalty needs --lm"),
        ("--method prefix --lm none.arpa", "none.arpa"),
        ("--method graph --graph graph --lm old.arpa", "--lm has no effect on --method graph"),
        ("--method graph --graph graph --rescore new.arpa", "--rescore needs --graph-lm"),
        (
            "--method graph --graph graph --rescore new.arpa --graph-lm new.arpa",
            "was not built with --graph-lm new.arpa",
        ),
        (
            "--method graph --graph HL --rescore new.arpa --graph-lm old.arpa",
            "HL has no language model whose scores --rescore could replace; build a graph with --kind HLG",
        ),
        ("--method graph --graph graph --lattices --max-active 9", "--max-active and --lattices exclude each other"),
        ("--method graph --graph none", "graph not found: none"),
        ("--method prefix --engine k2", "--engine has no effect on --method prefix"),
        ("--method graph --graph graph --engine k2 --jobs 2", "--jobs has no effect on --engine k2"),
        ("--method graph --graph other", "other was built for another tokenizer"),
        ("--method graph --graph wide", "the graph is for a model of 9 outputs, this one has 5"),
        ("--method graph --graph hmm --blank-penalty 1", "hmm has no blank"),
        ("--method graph --graph graph --priors short.json", "short.json has 2 numbers; it takes 5"),
        ("--method graph --graph graph --priors old.arpa", "old.arpa is not a JSON list"),
        ("--method graph --graph graph --decoding-weights priors.json", "priors.json has no decoding weights"),
        ("--method graph --graph graph --priors other", "priors not found: other"),
        ("--method graph --graph graph --lattice-beam 1e30", "--lattice-beam 1e+30 is out of range"),
        ("--method graph --graph graph --beam 1e300", "--beam 1e+300 is out of range"),
        ("--method graph --graph graph --max-active 2147483648", "--max-active"),
        ("--method graph --graph graph --insertion-penalty 1e30", "--insertion-penalty 1e+30 is out of range"),
        ("--method prefix --beam 1000000", "--beam 1e+06 is out of range; give a number from 1 to 10000"),
        ("--method prefix --lm upper.arpa --lm-units", "upper.arpa contains none of the model's units"),
        ("--method prefix --lm upper.arpa", "such as 'four'; it has them in upper case"),
        (
            "--method graph --graph graph --rescore upper.arpa --graph-lm old.arpa",
            "upper.arpa contains none of the words of graph",
        ),
    ],
)
def test_options_and_files_that_do_not_fit_are_refused_in_one_line(
    asr, link, corpus, files, tokenizer_file, monkeypatch, options, complaint
):
    monkeypatch.chdir(files)
    tokenizer = load_tokenizer(tokenizer_file)
    if not (files / "other").exists():
        save_word_graph(files / "other", tokenizer, sha256={"tokenizer": "0"})
        save_word_graph(files / "wide", tokenizer, outputs=9)
        save_word_graph(files / "hmm", tokenizer, topology="hmm")
        (files / "short.json").write_text("[1, 2]", encoding="utf-8")
    status, out, err = asr("decode", link, corpus, "--workers", 0, "--device", "cpu", *options.split())
    assert (status, out) == (2, "") and complaint in err, err
    assert err.count("\n") == 1 and not (link / "decode").exists()


@pytest.mark.parametrize("options", [(), ("--lm-units",), ("--lm-weight", "2", "--nbest", "3")], ids=str)
def test_prefix_search_takes_a_language_model(asr, link, corpus, files, options):
    command = ("decode", link, corpus, "--method", "prefix", "--workers", "0", "--lm", files / "old.arpa")
    status, _, err = asr(*command, *options)
    assert status == 0, err
    out = link / "decode" / "cuts" / "prefix"
    rows = [json.loads(line) for line in (out / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 24 and all(("nbest" in row) == ("--nbest" in options) for row in rows)


def test_tuning_uses_stored_log_probs_and_decode_reads_its_weights(asr, link, corpus, files, decode, monkeypatch):
    command = ("tune", link, corpus, "--graph", files / "graph", "--workers", 0, "--device", "cpu", "--rounds", 1)
    status, out, err = asr(*command)
    assert status == 0, err
    folder = link / "decode" / "cuts"
    found = json.loads((folder / "decoding_weights.json").read_text(encoding="utf-8"))
    lines = out.splitlines()
    assert len(found["tried"]) > 100 and len(lines) == 6 and lines[-1].startswith(f"best: WER {found['wer']:.2f} %")
    assert found["wer"] == pytest.approx(min(row["wer"] for row in found["tried"]), abs=1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(decoding.Experiment, "log_probs", lambda *_: pytest.fail("the network was run again"))
        assert asr(*command)[:2] == (0, out)
    _, facts = decode("--decoding-weights", folder / "decoding_weights.json")
    assert {name: facts[name] for name in found["best"]} == found["best"]


def test_decoding_weights_of_several_systems_are_tuned_on_all_their_words(asr, link, corpus, files, tmp_path):
    def tuned(exp, cuts, graph, *options):
        command = ("tune", exp, cuts, "--graph", graph, "--workers", 0, "--device", "cpu", "--rounds", 0)
        status, _, err = asr(*command, *options, "--out", tmp_path / "decoding_weights.json")
        assert status == 0, err
        return json.loads((tmp_path / "decoding_weights.json").read_text(encoding="utf-8"))

    few, renamed = tmp_path / "few.jsonl.gz", tmp_path / "renamed"
    few.write_bytes(gzip.compress(b"\n".join(gzip.decompress(corpus.read_bytes()).splitlines()[:9])))
    shutil.copytree(files / "graph", renamed)
    words = (renamed / "words.txt").read_text(encoding="utf-8")
    (renamed / "words.txt").write_text(words.replace("one", "1").replace("three", "one"), encoding="utf-8")
    shutil.copytree(link, tmp_path / "other", symlinks=True)
    one, other = (link, corpus, files / "graph"), (tmp_path / "other", few, renamed)
    both, alone = tuned(*one, "--also", *other), [tuned(*one), tuned(*other)]
    stored = (link / "decode" / "cuts" / "log_probs", tmp_path / "other" / "decode" / "few" / "log_probs")
    lengths = [sum(len(utterance.ref.split()) for utterance in read_log_probs(folder)) for folder in stored]
    assert lengths[0] > lengths[1] > 0 and alone[0]["before"] != alone[1]["before"]
    for mine, first, second in zip(both["tried"], *(found["tried"] for found in alone), strict=True):
        assert mine["wer"] == pytest.approx(np.average([first["wer"], second["wer"]], weights=lengths), abs=1e-3)
    assert both["before"] == pytest.approx(np.average([found["before"] for found in alone], weights=lengths), abs=1e-3)
    assert both["wer"] == pytest.approx(min(row["wer"] for row in both["tried"]), abs=1e-3)
    assert asr("tune", *one[:2], "--graph", one[2], "--also", *other, "--priors", files / "priors.json")[0] == 2
