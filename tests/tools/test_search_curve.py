"""tools/bench/search_curve.py: its figures are the word error rates of `asrtool decode` with the same options."""

import json
import sys
from pathlib import Path

import pytest

from asrtool.experiment import open_experiment
from tests.decoding.graphs import save_word_graph
from tests.tiny import make_experiment
from tests.tools.load import load_tool

BENCH = Path(__file__).parents[2] / "tools" / "bench"


@pytest.fixture
def exp(tiny_config, tokenizer_file, tmp_path):
    return make_experiment(tmp_path / "exp", tiny_config(), tokenizer_file)


@pytest.fixture
def graph(exp, tmp_path):
    return save_word_graph(tmp_path / "graph", open_experiment(exp, device="cpu").tokenizer)


@pytest.fixture
def curve(exp, corpus, graph, tmp_path, monkeypatch):
    """curve("--beams", 4) -> the figures of the tool."""
    monkeypatch.syspath_prepend(str(BENCH))
    tool = load_tool("bench/search_curve", monkeypatch)

    def run(*arguments):
        out = tmp_path / "curve.json"
        words = [exp, corpus, "--graph", graph, "--json", out, *arguments]
        monkeypatch.setattr(sys, "argv", ["search_curve.py", *map(str, words)])
        assert tool.main() == 0
        return json.loads(out.read_text())

    return run


def test_word_error_rates_are_those_of_decode(curve, exp, corpus, graph, asr):
    figures = curve("--beams", 0.5, 8, "--max-active", 7000, 2, "--precisions", "fp32")
    assert [(row["beam"], row["max_active"]) for row in figures["rows"]] == [(0.5, 7000), (0.5, 2), (8, 7000), (8, 2)]
    assert figures["device"] and figures["threads"] == 1
    for row in figures["rows"]:
        options = ["--beam", row["beam"], "--max-active", row["max_active"], "--device", "cpu", "--workers", 0]
        call = ("decode", exp, corpus, "--name", "test", "--method", "graph", "--graph", graph, "--overwrite", *options)
        assert asr(*call)[0] == 0
        folder = exp / "decode/test/graph"
        assert asr("score", folder)[0] == 0
        assert row["wer"] == pytest.approx(json.loads((folder / "wer.json").read_text())["wer"], abs=0.01)


def test_searches_are_compared_with_the_most_expensive_one(curve):
    rows = curve("--beams", 0.1, 12, "--precisions", "fp32", "--utterances", 6)["rows"]
    most = max(rows, key=lambda row: row["search_rtf"])
    assert most["time"] == 1 and most["other_words"] == 0
    assert all(0 < row["time"] <= 1 and 0 <= row["other_words"] <= 6 and row["model_rtf"] > 0 for row in rows)
    assert rows[0]["words"] == rows[1]["words"] > 0
