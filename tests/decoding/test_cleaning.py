"""Utterances whose transcript the audio contradicts: scores, limits, and what `asrtool clean` writes."""

import json
import re

import numpy as np
import pytest
import torch
from lhotse import CutSet

from asrtool.decoding.cleaning import Limits, UtteranceScore, judge, score_utterance
from asrtool.decoding.cleaning_report import MAX_PAGE_BYTES, listening_page, worst_first
from asrtool.experiment import Experiment
from asrtool.text.tokenizer import SymbolTokenizer, load_tokenizer
from tests.decoding.graphs import save_word_graph
from tests.tiny import WORDS


@pytest.fixture
def tokenizer(tokenizer_file):
    return load_tokenizer(tokenizer_file)


def spoken(words, tokenizer, share=0.999):
    """Log-probs of audio in which the words are spoken."""
    labels = [label for word in words for label in (0, *tokenizer.encode(word), 0)]
    probs = np.full((len(labels), tokenizer.size), (1 - share) / (tokenizer.size - 1))
    probs[np.arange(len(labels)), labels] = share
    return np.log(probs)


def score(text, words, tokenizer):
    return score_utterance("u", 1.0, text, spoken(words, tokenizer), tokenizer, "ctc")


SPOKEN = ["one", "two", "three", "four", "one", "three"] * 3


def test_a_right_transcript_costs_nothing(tokenizer):
    result = score(" ".join(SPOKEN), SPOKEN, tokenizer)
    assert result.cost == pytest.approx(0, abs=0.01) and (result.missing, result.extra) == (0, 0)
    assert result.heard == " ".join(SPOKEN) == result.text


def test_half_of_the_text_or_of_the_audio(tokenizer):
    half = SPOKEN[:9]
    assert score(" ".join(half), SPOKEN, tokenizer).extra == 0.5
    result = score(" ".join(SPOKEN), half, tokenizer)
    assert result.missing == 0.5 and result.text.count("[") == 9


def test_another_transcript_is_missing_and_extra(tokenizer):
    result = score(" ".join(["four"] * 9 + ["two"] * 9), ["one", "three"] * 9, tokenizer)
    assert result.missing == 1 and result.extra == 1


@pytest.mark.parametrize("text, problem", [("", "no transcript"), ("one nine", "cannot be checked: no unit for nine")])
def test_what_cannot_be_checked_is_bad_and_says_why(text, problem, tokenizer):
    (verdict,) = judge([score(text, SPOKEN, tokenizer)], Limits())
    assert verdict.reasons == [problem]


def scored(name, cost, missing=0.0, extra=0.0):
    return UtteranceScore(name, 1.0, cost, missing, extra, "a", "b")


def test_utterances_that_fit_worse_than_the_rest_are_bad():
    costs = np.random.default_rng(1).normal(1.0, 0.2, 200).tolist()
    verdicts = judge([scored(str(n), cost) for n, cost in enumerate([*costs, 2.5])], Limits(z=5))
    assert [v.score.id for v in verdicts if v.reasons] == ["200"]
    assert verdicts[-1].z == pytest.approx(7.5, rel=0.25)  # by median and MAD, which are close to the draw's


def test_a_few_errors_in_a_perfect_set_are_no_reason():
    verdicts = judge([scored(str(n), cost) for n, cost in enumerate([0.0] * 99 + [0.3])], Limits(z=5))
    assert not any(verdict.reasons for verdict in verdicts)


def test_shares_beyond_the_limit_are_reasons_and_the_worst_comes_first():
    scores = [scored("a", 0.0), scored("b", 0.1, missing=0.5), scored("c", 9.0, extra=0.5), scored("d", 0.0, extra=0.1)]
    bad = worst_first(judge(scores, Limits(share=0.2)))
    assert [verdict.score.id for verdict in bad] == ["c", "b"]
    assert "50 % of the transcript is not in the audio" in bad[1].reasons


def test_the_page_escapes_texts_and_stays_small(corpus):
    cuts = {cut.id: cut for cut in CutSet.from_file(corpus)}
    name = next(iter(cuts))
    hostile = UtteranceScore(name, 1.0, 9.0, 0.0, 1.0, "<script>alert(1)</script>", '"&<b>')
    others = [scored(f"x{n}" * 20, 9.0, extra=1.0) for n in range(30_000)]
    page = listening_page("<set>", judge([hostile, *others], Limits()), cuts, 9)
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;set&gt;" in page and "<b>" not in page
    assert len(page.encode()) <= MAX_PAGE_BYTES + 100
    assert len(re.findall("data:audio/mpeg;base64,[A-Za-z0-9+/=]{1000}", page)) == 1


def test_the_command_writes_the_good_ones_and_lists_the_bad(asr, tmp_path, corpus, trained):
    cuts = list(CutSet.from_file(corpus))
    for cut, text in zip(cuts[:2], ["", "no such words"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    options = ["--max-z", 1000, "--max-share", 1, "--workers", 0, "--device", "cpu"]
    status, out, err = asr("clean", tmp_path / "cuts.jsonl.gz", trained, tmp_path / "out", *options)
    assert status == 0, err
    assert f"2 of {len(cuts)} utterances" in out and "no transcript" in out
    rows = [json.loads(line) for line in (tmp_path / "out/bad.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {cut.id for cut in cuts[:2]}
    kept = [cut.id for cut in CutSet.from_file(tmp_path / "out/clean.jsonl.gz")]
    assert kept == [cut.id for cut in cuts[2:]]
    assert "<audio" in (tmp_path / "out/bad.html").read_text()
    assert asr("clean", tmp_path / "cuts.jsonl.gz", trained, tmp_path / "out", *options)[0] == 0  # replaces its own
    status, _, err = asr("clean", tmp_path / "cuts.jsonl.gz", trained, tmp_path, *options)
    assert status == 2 and "not written by `asrtool clean`" in err
    kept = (tmp_path / "out/clean.jsonl.gz").read_bytes()
    status, _, err = asr("clean", tmp_path / "out/clean.jsonl.gz", trained, tmp_path / "out", *options)
    assert status == 2 and f"out, which has the input {tmp_path}/out/clean.jsonl.gz; name another folder" in err
    assert (tmp_path / "out/clean.jsonl.gz").read_bytes() == kept


def test_a_set_that_is_all_bad_is_an_error_and_nothing_is_written(asr, tmp_path, corpus, trained):
    cuts = list(CutSet.from_file(corpus))
    for cut in cuts:
        cut.supervisions[0].text = "kein Wort davon"
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    status, _, err = asr("clean", tmp_path / "cuts.jsonl.gz", trained, tmp_path / "out", "--workers", 0)
    assert status == 1 and "is it the language of the model?" in err
    assert [path.name for path in tmp_path.iterdir()] == ["cuts.jsonl.gz"]


@pytest.fixture
def hears_three(monkeypatch):
    """The model is certain to hear "one two three" in every utterance."""

    def log_probs(experiment, batch):
        rows = torch.from_numpy(spoken(["one", "two", "three"], experiment.tokenizer)).float()
        return rows.expand(len(batch.ids), *rows.shape), torch.full((len(batch.ids),), len(rows))

    monkeypatch.setattr(Experiment, "log_probs", log_probs)


@pytest.fixture
def with_bad_ones(corpus, tmp_path):
    """A manifest whose last two transcripts are not what the model hears, and the ids of these."""
    cuts = list(CutSet.from_file(corpus))
    texts = ["one two three"] * (len(cuts) - 2) + ["four four <b>", "four one two three four four"]
    for cut, text in zip(cuts, texts, strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    return tmp_path / "cuts.jsonl.gz", [cut.id for cut in cuts[-2:]]


@pytest.mark.parametrize("has_graph", [False, True])
def test_the_bad_ones_are_recognised_in_words(asr, tmp_path, trained, hears_three, with_bad_ones, has_graph):
    manifest, bad = with_bad_ones
    graph = save_word_graph(tmp_path / "graph", load_tokenizer(trained / "tokenizer.json"))
    options = ["--graph", graph] if has_graph else []
    status, out, err = asr("clean", manifest, trained, tmp_path / "out", "--workers", 0, "--device", "cpu", *options)
    assert status == 0, err
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out/bad.jsonl").read_text().splitlines())}
    assert set(rows) == set(bad)
    assert [rows[name]["heard_words"] for name in bad] == ["one two three"] * 2
    assert [rows[name]["word_errors"] for name in bad] == [3, 3]
    page = (tmp_path / "out/bad.html").read_text()
    assert "3 errors in 6 words" in page and "<del>&lt;b&gt;</del>" in page and "<b>" not in page
    assert "<del>four</del> one two three <del>four</del> <del>four</del>" in page


def test_without_words_nothing_is_compared(asr, tmp_path, trained, hears_three, with_bad_ones, monkeypatch):
    monkeypatch.setattr(SymbolTokenizer, "output_type", "phones")
    status, _, err = asr("clean", with_bad_ones[0], trained, tmp_path / "out", "--workers", 0, "--device", "cpu")
    assert status == 0, err
    assert "heard_words" not in (tmp_path / "out/bad.jsonl").read_text()
    assert "<del>four" not in (tmp_path / "out/bad.html").read_text()


def test_graphs_that_do_not_fit_are_refused_before_anything_is_scored(asr, tmp_path, trained, with_bad_ones):
    other = save_word_graph(tmp_path / "other", load_tokenizer(trained / "tokenizer.json"), sha256={"tokenizer": "0"})
    (tmp_path / "weights.json").write_text('{"best": {}}')
    weights = ["--decoding-weights", tmp_path / "weights.json"]
    for options in (["--graph", other], ["--graph", tmp_path / "none"], weights):
        status, _, err = asr("clean", with_bad_ones[0], trained, tmp_path / "out", *options)
        assert status == 2 and len([line for line in err.splitlines() if "asrtool: error: " in line]) == 1
        assert not (tmp_path / "out").exists()
    assert "--decoding-weights needs --graph" in err


@pytest.fixture(scope="module")
def trained(tiny_config, tokenizer_file, tmp_path_factory):
    from tests.tiny import make_experiment

    assert set(WORDS) == {"one", "two", "three", "four"}
    return make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(), tokenizer_file)
