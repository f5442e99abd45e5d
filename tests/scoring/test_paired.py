"""Paired comparison of two systems, by hand and against analytic intervals."""

import json

import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.scoring.paired import paired_difference


def write_folder(folder, rows):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(dict(zip(("id", "ref", "hyp", "token_type"), row, strict=False))) + "\n" for row in rows)
    (folder / "hyps.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_system_does_not_differ_from_itself():
    result = paired_difference(["a b", "c d e"], ["a", "c d x"], ["a", "c d x"])
    assert (result.difference, result.interval, result.percent_lower, result.utterances) == (0, (0, 0), 50, 2)


def test_difference_of_a_small_example():
    refs = ["a b c d"] * 50
    result = paired_difference(refs, ["a b c d"] * 50, ["a b c x"] * 50)
    assert result.difference == -25 and result.interval == (-25, -25) and result.percent_lower == 100


def test_interval_matches_the_analytic_one_and_is_narrower_than_unpaired():
    """With utterances of equal length the difference is a mean, whose standard deviation is known."""
    rng = np.random.default_rng(1)
    hard = rng.random(400) < 0.5  # for both systems
    refs = [" ".join(map(str, range(10)))] * 400
    errors = np.where(hard, 5, 0)
    better = errors + (rng.random(400) < 0.2)

    def hyps(counts):
        return [" ".join(["x"] * count + list(map(str, range(count, 10)))) for count in counts]

    result = paired_difference(refs, hyps(errors), hyps(better))
    differences = 10.0 * (errors - better)
    half = 1.96 * differences.std() / 20
    assert result.difference == pytest.approx(differences.mean())
    assert (result.interval[1] - result.interval[0]) / 2 == pytest.approx(half, rel=0.05)
    assert half < 1.96 * (10.0 * errors).std() / 20 / 3
    assert result.percent_lower > 99.9


def test_swapping_the_systems_flips_the_sign():
    refs, one, other = ["a b c", "d e", "f g h i"], ["a b", "d e", "f g h x"], ["a b c", "x y", "f g h i"]
    there, back = paired_difference(refs, one, other), paired_difference(refs, other, one)
    assert there.difference == -back.difference and there.percent_lower == pytest.approx(100 - back.percent_lower)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_replications_without_reference_words_are_left_out():
    result = paired_difference(["", "a", "b"], ["", "", "b"], ["x", "a", "b"])
    assert result.difference == 0 and np.isfinite(result.interval).all()
    with pytest.raises(UserError, match="no reference words in 2"):
        paired_difference(["", ""], ["a", ""], ["", ""])


def test_folds_are_compared_separately_and_pooled(asr, tmp_path):
    one = write_folder(tmp_path / "1/graph", [("u1", "a b", "a b"), ("u2", "c d", "c")])
    two = write_folder(tmp_path / "2/graph", [("u3", "e f", "e f")])
    base = write_folder(tmp_path / "base/graph", [("u3", "e  f", "x f"), ("u1", "a b", "a"), ("u2", "c d", "c d")])
    status, printed, _ = asr("score", one, two, "--pool", "all", "--against", base)
    assert status == 0
    lines = printed.splitlines()
    assert lines[1].startswith("    +0.00 [") and lines[1].endswith("of 2 utterances")
    assert lines[3].startswith("    -50.00 [-] against the other, on a single utterance with a reference: its unc")
    assert lines[4].startswith("all WER") and lines[5].startswith("    -16.67 [")


@pytest.mark.parametrize(
    "rows, status, complaint",
    [
        ([("u1", "a b", "a b")], 1, "1 of 2 utterances cannot be compared with"),
        ([("u1", "a b", "a"), ("u2", "c x", "c")], 1, "u2: another reference"),
        ([("u1", "a b", "a", "phones"), ("u2", "c d", "c", "phones")], 2, "one of the two is scored in words"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(asr, tmp_path, rows, status, complaint):
    folder = write_folder(tmp_path / "graph", [("u1", "a b", "a b"), ("u2", "c d", "c")])
    exit_status, _, err = asr("score", folder, "--against", write_folder(tmp_path / "base", rows))
    assert exit_status == status and complaint in err
