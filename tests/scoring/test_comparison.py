"""Comparison of systems on the same utterances: differences, utterances won and lost, changed words, groups."""

import math

import numpy as np
import pytest

from asrtool.errors import DataError, UserError
from asrtool.scoring.comparison import ComparedUtterance, changed_words, compare, difference
from asrtool.scoring.comparison_text import comparison_dict, comparison_text


def rows(hyps, refs=None, **more):
    refs = refs or ["a b c d"] * len(hyps)
    return [
        {"id": f"u{n}", "ref": ref, "hyp": hyp, **more} for n, (ref, hyp) in enumerate(zip(refs, hyps, strict=True))
    ]


def test_rates_differences_and_the_utterances_that_changed():
    base = rows(["a b c d", "a x c d", "a b", "a b c d"])
    other = rows(["a b c d", "a b c d", "a b c", "x y c d"])
    result = compare("dev", ["base", "other"], [base, other], {})
    assert result.rates == [100 * 3 / 16, 100 * 3 / 16]
    (change,) = result.others
    assert change.total.difference == 0
    assert [own.id for own in change.won] == ["u1", "u2"] and [own.id for own in change.lost] == ["u3"]
    assert {word.word: (word.won, word.lost) for word in change.words} == {"b": (1, 1), "c": (1, 0), "a": (0, 1)}


def test_the_order_of_gains_is_by_their_size():
    base = rows(["x x x x", "a b c x", "x x c d"])
    other = rows(["a b c d", "a b c d", "a b c d"])
    (change,) = compare("dev", ["base", "other"], [base, other], {}).others
    assert [own.id for own in change.won] == ["u0", "u2", "u1"]


def test_words_that_both_or_none_of_the_systems_recognised_did_not_change():
    utterance = ComparedUtterance("u", "a b c a", ("a x c y", "a x z a"))
    assert [(own.word, own.won, own.lost) for own in changed_words([utterance], 1)] == [("a", 1, 0), ("c", 0, 1)]


def test_an_insertion_is_an_error_but_no_word_of_the_reference():
    base, other = rows(["a b c d"]), rows(["a b q c d"])
    (change,) = compare("dev", ["base", "other"], [base, other], {}).others
    assert change.total.difference == 25 and change.words == []


def test_the_interval_of_a_paired_difference_is_narrower_than_the_systems_intervals():
    rng = np.random.default_rng(0)
    hard = rng.random(200) < 0.3
    base = rows(["x x c d" if is_hard else "a b c d" for is_hard in hard])
    other = rows(["x b c d" if is_hard else "a b c d" for is_hard in hard])
    result = compare("dev", ["base", "other"], [base, other], {})
    low, high = result.others[0].total.interval
    assert low < result.others[0].total.difference < high < 0
    assert high - low < result.intervals[0][1] - result.intervals[0][0]
    assert result.others[0].total.percent_lower > 99


def test_the_interval_over_speakers_takes_their_utterances_together():
    utterances = [
        ComparedUtterance(f"{speaker}-{n}", "a b", ("a x", "a b" if speaker < 3 else "x x"), str(speaker))
        for speaker in range(6)
        for n in range(20)
    ]
    total = difference(utterances, 1, with_speakers=True)
    assert math.isclose(total.difference, 0)
    over_utterances = total.interval[1] - total.interval[0]
    assert total.speaker_interval[1] - total.speaker_interval[0] > 2 * over_utterances


def test_two_speakers_have_no_interval_over_speakers():
    utterances = [ComparedUtterance(f"u{n}", "a b", ("a x", "a b"), str(n % 2)) for n in range(10)]
    assert difference(utterances, 1, with_speakers=True).speaker_interval is None


def test_utterances_that_a_system_lacks_are_left_out_and_counted():
    result = compare("dev", ["base", "other"], [rows(["a", "b", "c"]), rows(["a", "b"])], {})
    assert len(result.utterances) == 2
    assert result.notes == ["1 of 3 utterances of base are left out: not all systems have them."]


def test_groups_by_speaker_and_length_hold_every_utterance_once():
    base = [row | {"speaker": str(n % 3)} for n, row in enumerate(rows(["a b c x"] * 40))]
    other = rows(["a b c d"] * 40)
    result = compare("dev", ["base", "other"], [base, other], {f"u{n}": 0.5 * n for n in range(40)})
    assert sorted(group.name for group in result.speakers) == ["0", "1", "2"]
    for groups in (result.speakers, result.lengths):
        assert sum(group.utterances for group in groups) == 40
        assert all(group.rates == [25, 0] for group in groups)
    assert result.lengths[0].name == "0.0 to 3.5 s" and result.lengths[-1].name.endswith("19.5 s")


def test_without_known_lengths_groups_are_by_the_words_of_the_reference():
    refs = ["a b", "a b c d"] * 10
    result = compare("dev", ["base", "other"], [rows(refs, refs), rows(refs, refs)], {})
    assert all(group.name.endswith("words") for group in result.lengths)


def test_equal_lengths_are_not_divided_between_groups():
    refs = ["a"] * 30 + ["a b"] * 20
    result = compare("dev", ["base", "other"], [rows(refs, refs), rows(refs, refs)], {})
    assert [(group.name, group.utterances) for group in result.lengths] == [("1 to 1 words", 30), ("2 to 2 words", 20)]
    same = ["a b"] * 40
    assert compare("dev", ["base", "other"], [rows(same, same), rows(same, same)], {}).lengths == []


def test_speakers_and_lengths_without_reference_words_have_no_rate_and_are_left_out():
    refs = ["a b"] * 10 + [""] * 10
    base = [row | {"speaker": str(n // 10)} for n, row in enumerate(rows(["x"] * 20, refs))]
    result = compare("dev", ["base", "other"], [base, rows(refs, refs)], {})
    assert [group.name for group in result.speakers] == ["0"]
    assert [group.name for group in result.lengths] == ["2 to 2 words"]


@pytest.mark.parametrize(
    "other, reason",
    [
        ([{"id": "z", "ref": "a", "hyp": "a"}], "no utterance in common"),
        (rows(["a"], token_type="phones"), "some results are of words"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(other, reason):
    with pytest.raises(UserError, match=reason):
        compare("dev", ["base", "other"], [rows(["a"]), other], {})


def test_references_that_differ_are_listed():
    with pytest.raises(DataError) as failure:
        compare("dev", ["base", "other"], [rows(["a", "b"]), rows(["a", "b"], ["a b c d", "other"])], {})
    assert "u1" in failure.value.all_lines() and "u0" not in failure.value.all_lines()


def test_the_text_names_every_system_and_shows_both_hypotheses_of_a_change():
    base, other, third = rows(["a x c d", "a b c d"]), rows(["a b c d", "a b d"]), rows(["a b c d", "a b c d"])
    text = comparison_text(compare("dev", ["base", "other", "third"], [base, other, third], {}))
    assert all(name in text for name in ("base", "other", "third"))
    assert "u0  errors: 1 -> 0" in text and "a [x] c d" in text
    assert "u1  errors: 0 -> 1" in text and "a b [-c] d" in text


def test_the_text_says_which_system_has_more_errors():
    base, worse, same = rows(["a b c d"] * 9), rows(["a b c x"] * 9), rows(["a b c d"] * 9)
    text = comparison_text(compare("dev", ["base", "worse", "same"], [base, worse, same], {}))
    end = "it has fewer errors in 0.0 % of the bootstrap replications."
    assert f"worse has more errors than base: difference +25.00 [+25.00, +25.00]; {end}" in text
    assert "same has as many errors as base: difference +0.00" in text
    text = comparison_text(compare("dev", ["worse", "base"], [worse, base], {}))
    assert (
        "base has fewer errors than worse: difference -25.00 [-25.00, -25.00]; it has fewer errors in 100.0 %" in text
    )


def test_the_plain_values_have_no_number_that_is_not_finite():
    base, other = rows(["a", "b"], ["", "b"]), rows(["", "b"], ["", "b"])
    values = comparison_dict(compare("dev", ["base", "other"], [base, other], {}))
    assert values["systems"][0]["rate"] == 100 and values["differences"][0]["won"] == {"u0": 1}
