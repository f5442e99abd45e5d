"""Confidences in rows of hyps.jsonl."""

import pytest

from asrtool.scoring.confidence import confidence_quality
from asrtool.scoring.confidence_score import confidence_dict, confidence_lines, score_confidences, word_confidences
from asrtool.scoring.utterance_confidence import UtteranceErrors, utterance_quality


def row(ref: str, words: list, **more) -> dict:
    return {"id": "u", "ref": ref, "hyp": " ".join(word[0] for word in words), "words": words} | more


def test_rows_of_hypotheses_are_scored():
    rows = [
        row("a b", [["a", 0, 1, 0.9], ["c", 1, 2, 0.2]], confidence=0.3),
        row("a", [["a", 0, 1, 0.8]], confidence=0.7),
        row("a", []),
        row("b", [["a", 0.5]]),  # an older result: without confidence
    ]
    score = score_confidences(rows)
    assert (score.words.count, score.words.correct) == (3, 2)
    assert score.words == confidence_quality([0.9, 0.2, 0.8], [True, False, True])
    assert score.utterances == utterance_quality([0.3, 0.7], [UtteranceErrors(1, 2), UtteranceErrors(0, 1)])
    assert score_confidences(rows[2:]) is None
    assert score_confidences([{"id": "u", "ref": "a", "hyp": "a"}]) is None


@pytest.mark.parametrize("words", [
    None, "a", [["a", 0, 1, 2]], [["a", 0, 1, None]], [["a", 0, 1, True]], [["a", 0, 1, "0.5"]], [["b", 0, 1, 0.5]],
    [["a", 0, 1, 0.5], ["a", 0, 1, 0.5]], [["a", 0]], ["a"], [["a", 0, 1, float("nan")]],
])  # fmt: skip
def test_words_without_valid_confidences_have_none(words):
    assert word_confidences({"hyp": "a", "words": words}) is None


def test_the_score_is_written_for_words_and_utterances():
    rows = [row("a b", [["a", 0, 1, 0.9], ["c", 1, 2, 0.2]], confidence=0.25), row("a", [["a", 0, 1, 0.8]])]
    score = score_confidences(rows)
    facts = confidence_dict(score)
    assert facts["words"]["count"] == 3
    assert facts["utterances"] == {
        "count": 1, "accuracy": 0.5, "expected_accuracy": 0.25, "ece": 0.25, "correlation": None,
        "wer_of_most_confident": {"50": 50.0, "75": 50.0, "90": 50.0},
    }  # fmt: skip
    of_phones = "\n".join(confidence_lines(score, "phones"))
    assert "phones" in of_phones and "; PER " in of_phones and "word" not in of_phones
    text = "\n".join(confidence_lines(score))
    assert "1 utterances, word accuracy 0.500, expected 0.250, correlation undefined; WER 50.00 % of the 50 %" in text
    without = score_confidences([row("a", [["a", 0, 1, 0.8]])])
    assert confidence_dict(without)["utterances"] is None and "utterances" not in "".join(confidence_lines(without))
