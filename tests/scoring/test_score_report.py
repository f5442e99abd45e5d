"""The readable report, alignments in columns, and the score as JSON."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrtool.scoring.report import (
    FOLD_COLUMNS,
    GAP_TEXT,
    align_rows,
    alignment_text,
    report_text,
    score_dict,
    summary_line,
)
from asrtool.scoring.wer import Confusions, ErrorCounts, Score, score_pairs
from asrtool.text.display_width import display_width

SCORE = Score(
    words=ErrorCounts(insertions=12, deletions=8, substitutions=31, length=1588),
    characters=ErrorCounts(insertions=40, deletions=50, substitutions=60, length=7900),
    interval=(2.6, 3.9),
    utterances=500,
    sentence_errors=38,
    empty_hypotheses=0,
    confusions=Confusions([("the", "a", 12)], [("uh", 3)], []),
)


def words_of(text: str, label: str) -> list[str]:
    """All words on the lines of `label`, gaps left out."""
    lines = [line.split()[1:] for line in text.splitlines() if line.split()[:1] == [label]]
    return [word for line in lines for word in line if word != GAP_TEXT]


def aligned(row: dict) -> str:
    """The alignment of one utterance in columns."""
    return alignment_text([row], align_rows([row]))


def test_summary_line_has_the_agreed_form():
    assert summary_line("test", SCORE) == (
        "test WER 3.21 % [2.60, 3.90] (12 ins, 8 del, 31 sub / 1588 words) SER 7.60 % CER 1.90 % empty 0"
    )


def test_report_shows_totals_and_confusions():
    text = report_text("test", SCORE)
    assert text.startswith(summary_line("test", SCORE))
    rows = [line.split() for line in text.splitlines()]
    assert ["words", "1588", "51", "12", "8", "31", "3.21"] in rows
    assert ["sentences", "500", "38", "7.60"] in rows
    assert ["12", "the", "->", "a"] in rows
    assert ["3", "uh"] in rows
    assert ["none"] in rows


def test_report_lists_speakers_with_the_highest_error_rate_first():
    score = score_pairs([("a b", "a b"), ("a b", "a c"), ("c", "c"), ("d", "")], speakers=["eve", "eve", "ann", None])
    *_, head, eve, ann = report_text("test", score).splitlines()
    assert head.split()[:3] == ["reference", "errors", "ins"]
    assert eve.split() == ["eve", "4", "1", "0", "0", "1", "25.00"]
    assert ann.split() == ["ann", "1", "0", "0", "0", "0", "0.00"]
    assert score_dict(score)["speakers"]["eve"]["rate"] == 25.0


def test_report_has_a_bootstrap_interval_over_speakers():
    score = score_pairs([("a b", "a b"), ("a b", "a c")], speakers=["eve", "ann"])
    assert "95 % interval of the WER (bootstrap over speakers): 0.00 to 59" in report_text("test", score)
    assert score_dict(score)["wer_interval_speakers"] == list(score.speaker_interval)
    assert score_dict(score_pairs([("a", "a")]))["wer_interval_speakers"] is None


def test_a_speaker_without_reference_words_has_no_rate():
    score = score_pairs([("a b", "a b"), ("", "a")], speakers=["eve", "ann"])
    assert score_dict(score)["speakers"]["ann"] == {
        "rate": None, "errors": 1, "insertions": 1, "deletions": 0, "substitutions": 0, "length": 0
    }  # fmt: skip
    assert json.loads(json.dumps(score_dict(score), allow_nan=False))["speakers"]["eve"]["rate"] == 0.0


def test_report_columns_are_aligned_for_any_name():
    for name in ("a" * 40, "说话人"):
        score = score_pairs([("a", "a"), ("a", "b")], speakers=[name, "b"])
        lines = report_text("test", score).splitlines()[-3:]
        assert len({sum(2 if char in "说话人" else 1 for char in line) for line in lines}) == 1


def test_report_without_known_speakers_has_no_speaker_table():
    assert "Speakers" not in report_text("test", score_pairs([("a", "b")], speakers=[None]))
    assert "Speakers" not in report_text("test", SCORE)


def test_score_dict_goes_through_json_unchanged():
    facts = score_dict(score_pairs([("a b", "a c")]))
    assert facts["wer"] == 50.0
    assert facts["words"] == {"errors": 1, "insertions": 0, "deletions": 0, "substitutions": 1, "length": 2}
    assert set(facts["confusions"]) == {"substitutions", "insertions", "deletions"}
    assert json.loads(json.dumps(score_dict(SCORE)))["wer_interval"] == [2.6, 3.9]


def test_alignment_pads_words_into_columns_over_the_marks():
    text = aligned({"id": "utt-7", "ref": "the cat sat down", "hyp": "the sat back down"})
    assert text.splitlines() == [
        "utt-7  4 words, 2 errors: 1 ins, 1 del, 0 sub",
        "REF  the  cat  sat  ***   down",
        "HYP  the  ***  sat  back  down",
        "          D         I",
    ]


def test_alignment_of_wide_characters_keeps_the_columns():
    ref, hyp = aligned({"id": "u", "ref": "中文 b", "hyp": "a b"}).splitlines()[1:3]
    columns = [sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) for line in (ref, hyp)]
    assert columns[0] == columns[1]


@pytest.mark.parametrize("word", ["ที่นี่", "हिन्दी", "e\u0301te\u0301", "a\u200bb"])
def test_alignment_of_words_with_marks_keeps_the_columns(word):
    ref, hyp = aligned({"id": "u", "ref": f"{word} b", "hyp": "a b"}).splitlines()[1:3]
    assert display_width(ref) == display_width(hyp)


def test_a_long_utterance_is_folded():
    row = {"id": "long", "ref": " ".join(f"word{i}" for i in range(200)), "hyp": " ".join(["word1"] * 150)}
    text = aligned(row)
    assert max(map(len, text.splitlines())) <= FOLD_COLUMNS + 5
    assert words_of(text, "REF") == row["ref"].split()
    assert words_of(text, "HYP") == row["hyp"].split()


texts = st.lists(st.sampled_from(["a", "bb", "ccc", "é", "中文", "REF"]), max_size=60).map(" ".join)


@given(texts, texts)
def test_alignment_text_without_gaps_is_the_texts(ref, hyp):
    text = aligned({"id": "utt", "ref": ref, "hyp": hyp})
    assert words_of(text, "REF") == ref.split()
    assert words_of(text, "HYP") == hyp.split()
