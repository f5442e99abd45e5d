import json
import math
from collections import deque

import kaldialign
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrtool.decoding.minimum_bayes_risk import minimum_bayes_risk_index
from asrtool.decoding.rescoring import LmMixture, LmMixtureFiles, Rescorer, rescore_folder, sentence_logprobs
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.lm.ngram_files import read_ngrams
from tests.graphs.paths import Bigram

LM = Bigram(
    {"A": -0.5, "B": -0.7, "</s>": -0.4},
    {"<s>": -0.2, "A": -0.3},
    {("<s>", "A"): -0.3, ("A", "B"): -0.1, ("B", "</s>"): -0.35},
)


class Neural:
    """B is certain, A nearly impossible; X has no units."""

    context = 0

    def new_history(self):
        return deque(maxlen=0)

    def logprobs(self, sentences, said):
        return [
            np.array([0.0 if word == "B" else -np.inf if word == "X" else -20.0 for word in words] + [0.0])
            for words in sentences
        ]


@pytest.fixture
def arpa(tmp_path):
    return LM.write(tmp_path / "lm.arpa")


@pytest.fixture
def ngram(arpa):
    return read_ngrams(arpa)


def row(*texts):
    nbest = [{"hyp": text, "score": -float(place)} for place, text in enumerate(texts)]
    return {"id": "u1", "ref": "B", **nbest[0], "units": [["a", 0.1]], "words": [["A", 0.1]], "nbest": nbest}


def test_the_ngram_log_probs_equal_its_costs(ngram):
    assert sentence_logprobs(ngram, ["A", "B"]).sum() == pytest.approx(-LM.cost(("A", "B")), abs=1e-4)


def test_rescoring_adds_the_neural_score_and_subtracts_the_ngram_score(ngram):
    made = Rescorer(LmMixture(Neural(), ngram, 1.0)).rescore_row(row("A", "B B", "B"))
    scores = {one["hyp"]: one["score"] for one in made["nbest"]}
    assert scores == pytest.approx(
        {"A": LM.cost(("A",)) - 20, "B B": LM.cost(("B", "B")) - 1, "B": LM.cost(("B",)) - 2}, abs=1e-3
    )
    assert made["hyp"] == max(scores, key=scores.get) == made["nbest"][0]["hyp"] == "B B"
    assert made["score"] == scores["B B"] and made["ref"] == "B"
    assert "words" not in made and "units" not in made  # whose times were those of another hypothesis


def test_with_a_weight_of_0_nothing_changes(ngram):
    before = row("A", "B B", "B")
    assert Rescorer(LmMixture(Neural(), ngram, 0.0)).rescore_row(before) == before


def test_the_models_are_interpolated_word_by_word(ngram):
    [gain] = LmMixture(Neural(), ngram, 0.5).gains(["A B"])
    ngrams, neural = sentence_logprobs(ngram, ["A", "B"]), [-20.0, 0.0, 0.0]
    expected = sum(math.log((math.exp(a) + math.exp(b)) / 2) - a for a, b in zip(ngrams, neural, strict=True))
    assert gain == pytest.approx(expected)


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("texts", [["X"], ["A X", "X X"], ["B", "A X B"]])
def test_words_without_units_keep_the_log_prob_of_the_ngram(ngram, weight, texts):
    made = Rescorer(LmMixture(Neural(), ngram, weight)).rescore_row(row(*texts))
    assert all(math.isfinite(one["score"]) for one in made["nbest"])
    [gain] = LmMixture(Neural(), ngram, 1.0).gains(["X"])
    assert gain == pytest.approx(-sentence_logprobs(ngram, ["X"])[1]), "of the sentence end alone"


class Copying(Neural):
    """The words of the last sentence are certain, all others nearly impossible; it records the histories."""

    context = 64

    def __init__(self):
        self.histories = []

    def new_history(self):
        return deque(maxlen=2)

    def logprobs(self, sentences, history):
        self.histories.append([" ".join(words) for words in history])
        last = history[-1] if history else ["B"]
        return [np.array([0.0 if word in last else -20.0 for word in words] + [0.0]) for words in sentences]


def test_the_history_is_the_best_hypotheses_of_the_same_speaker(ngram):
    neural = Copying()
    rows = [row("A", "B") | {"speaker": name} for name in "1112"] + [row("A", "B"), row("A", "B")]
    made = Rescorer(LmMixture(neural, ngram, 1.0)).rescore_all(rows)
    assert [one["hyp"] for one in made] == ["B"] * 6
    assert neural.histories == [[], ["B"], ["B", "B"], [], [], []], "other speakers, or none, are not in the history"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_the_history_does_not_depend_on_the_order_of_the_rows(ngram, order):
    """Utterances of two speakers in turns; 10 is after 9."""
    neural = Copying()
    utterances = [("u8", "a", "A"), ("u9", "b", "B"), ("u10", "a", "B"), ("u11", "b", "A")]
    rows = [row(utterances[n][2]) | {"id": utterances[n][0], "speaker": utterances[n][1]} for n in order]
    made = Rescorer(LmMixture(neural, ngram, 1.0)).rescore_all(rows)
    assert neural.histories == [[], [], ["A"], ["B"]]
    assert [one["id"] for one in made] == [one["id"] for one in rows]


@pytest.mark.parametrize("speakers", ["12", [None, None]])
def test_a_context_without_any_history_is_warned_of(ngram, caplog, speakers):
    rows = [row("A") | {"speaker": name} for name in speakers]
    Rescorer(LmMixture(Copying(), ngram, 1.0)).rescore_all(rows)
    assert "no utterance has one" in caplog.text
    caplog.clear()
    Rescorer(LmMixture(Neural(), ngram, 1.0)).rescore_all(rows)
    assert not caplog.text


def test_minimum_bayes_risk_chooses_among_similar_hypotheses():
    """A B is the most probable, but two that are near each other outweigh it."""
    scores = {"A B": -1.0, "C D": -1.1, "C E": -1.2}
    nbest = [{"hyp": text, "score": score} for text, score in scores.items()]
    made = Rescorer(None, mbr=True).rescore_row(
        {"id": "u1", "ref": "", "hyp": "A B", "score": -1.0, "units": [], "nbest": nbest}
    )
    assert made["hyp"] == "C D" and made["score"] == -1.1 and "units" not in made
    assert [one["hyp"] for one in made["nbest"]] == ["C D", "A B", "C E"]


def test_minimum_bayes_risk_chooses_a_hypothesis_of_high_probability():
    assert minimum_bayes_risk_index(["A B", "C D", "C E"], [-1.0, -9.0, -9.5]) == 0
    assert minimum_bayes_risk_index(["A B"], [-1000.0]) == 0


@given(st.lists(st.tuples(st.lists(st.sampled_from("ABC"), max_size=4), st.floats(-9, 0)), min_size=1, max_size=5))
def test_minimum_bayes_risk_equals_its_definition(scored):
    texts, scores = [" ".join(words) for words, _ in scored], [score for _, score in scored]
    risks = [
        sum(math.exp(score) * kaldialign.edit_distance(one.split(), words)["total"] for words, score in scored)
        for one in texts
    ]
    assert risks[minimum_bayes_risk_index(texts, scores)] == pytest.approx(min(risks))


def test_an_utterance_with_one_hypothesis_keeps_it(ngram):
    alone = {key: value for key, value in row("A").items() if key != "nbest"}
    made = Rescorer(LmMixture(Neural(), ngram, 1.0)).rescore_row(alone)
    assert made["hyp"] == "A" and "nbest" not in made and made["score"] == pytest.approx(LM.cost(("A",)) - 20, abs=1e-3)


@pytest.mark.parametrize(
    "rows, facts, complaint",
    [
        (
            [{"id": "u1", "ref": "A", "hyp": "A", "score": 0}],
            {"rescore": "right", "nbest": 1},
            "one hypothesis per utterance",
        ),
        ([row("A", "B")], {"nbest": 2}, "was not decoded with --rescore"),
        ([row("A", "B")], {"rescore": "wrong", "nbest": 2}, "was not decoded with --rescore"),
        ([row("A", "B")], {"rescore": "right", "nbest": 2, "neural": "0a"}, "rescored with a neural language model al"),
    ],
)
def test_folders_that_cannot_be_rescored_are_refused(tmp_path, arpa, rows, facts, complaint):
    folder = tmp_path / "rescored"
    folder.mkdir()
    (folder / "hyps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    facts = {name: file_hash(arpa) if value == "right" else value for name, value in facts.items()}
    (folder / "decode.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=complaint):
        rescore_folder(folder, tmp_path / "neural", LmMixtureFiles(tmp_path / "lm.pt", arpa))
    assert not (tmp_path / "neural").exists()


def test_from_text_to_rescored_hypotheses(asr, tmp_path, arpa):
    (tmp_path / "text.txt").write_text("A B\nB\nA B A\n" * 30)
    sizes = ["--vocab-size", "5", "--dim", "16", "--layers", "1", "--heads", "2", "--epochs", "30", "--batch", "200"]
    lm = tmp_path / "lm.pt"
    status, _, said = asr("lm", "train-neural", tmp_path / "text.txt", lm, *sizes, "--lr", "1e-2")
    assert status == 0 and "90 sentences" in said
    status, printed, _ = asr("lm", "perplexity", lm, tmp_path / "text.txt", "--ngram", arpa)
    neural, other, both = (float(line.split("perplexity ")[1].split()[0]) for line in printed.splitlines()[1:])
    assert status == 0 and neural < 2 < other and neural < both < other
    folder = tmp_path / "decode/dev/rescored"
    folder.mkdir(parents=True)
    (folder / "hyps.jsonl").write_text(json.dumps(row("B B", "A B") | {"ref": "A B"}) + "\n")
    facts = {"set": "dev", "method": "graph", "nbest": 2, "rescore": file_hash(arpa), "rtf": 0.5, "audio_seconds": 2.0}
    (folder / "decode.json").write_text(json.dumps(facts))
    out = folder.with_name("neural")
    status, printed, _ = asr("rescore", folder, out, "--lm", lm, "--ngram", arpa, "--weight", "0.9")
    assert status == 0 and printed.startswith(f"{out}: ")
    assert json.loads((out / "hyps.jsonl").read_text())["hyp"] == "A B"
    made = json.loads((out / "decode.json").read_text())
    assert made["method"] == "neural" and made["neural"] == file_hash(lm) and made["rtf"] > 0.5
    assert asr("score", out)[1].startswith("dev WER 0.00 %")
    status, _, said = asr("rescore", out, out.with_name("twice"), "--lm", lm, "--ngram", arpa)
    assert status == 2 and "rescored with a neural language model already" in said
    assert asr("rescore", out, out.with_name("neural-mbr"), "--mbr")[0] == 0
    status, *_ = asr("rescore", folder, folder.with_name("mbr"), "--mbr")
    facts = json.loads((folder.with_name("mbr") / "decode.json").read_text())
    assert status == 0 and facts["mbr"] and "neural" not in facts and facts["method"] == "mbr"
    status, _, said = asr("rescore", folder, out, "--lm", lm, "--ngram", arpa, "--context", "64")
    assert status == 2 and "no context: train it with --context; --context 64 is more" in said


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["lm", "train-neural", "text.txt", "lm.arpa"], "OUT is lm.arpa, which does not end in .pt"),
        (["lm", "train-neural", "text.txt", "lm.pt", "--dim", "30"], "30 is not an even multiple of 4 heads"),
        (["lm", "train-neural", "none.txt", "lm.pt"], "none.txt"),
        (
            ["lm", "perplexity", "lm.arpa", "text.txt", "--ngram", "lm.arpa"],
            "--ngram has no effect here: it is for a neural model",
        ),
        (
            ["lm", "perplexity", "lm.arpa", "text.txt", "--context", "9"],
            "--context has no effect here: it is for a neural",
        ),
        (["rescore", "folder", "out"], "give --lm and --ngram, or --mbr, or both"),
        (["rescore", "folder", "out", "--lm", "lm.pt", "--mbr"], "--lm and --ngram go together"),
        (["lm", "perplexity", "none.pt", "text.txt"], "train-neural"),
    ],
)
def test_usage_errors_of_lm_and_rescore_are_one_line(asr, tmp_path, arpa, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("A B\n")
    status, _, said = asr(*arguments)
    assert status == 2 and complaint in said and len(said.splitlines()) == 1
