import json

import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.scoring.paired import paired_difference


def write_folder(folder, rows):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(dict(zip(("id", "ref", "hyp", "of"), row, strict=False))) + "\n" for row in rows)
    (folder / "hyps.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_system_against_itself_does_not_differ():
    found = paired_difference(["a b", "c d e"], ["a", "c d x"], ["a", "c d x"])
    assert (found.rate, found.interval, found.lower, found.utterances) == (0, (0, 0), 50, 2)


def test_the_difference_by_hand():
    refs = ["a b c d"] * 50
    found = paired_difference(refs, ["a b c d"] * 50, ["a b c x"] * 50)
    assert found.rate == -25 and found.interval == (-25, -25) and found.lower == 100


def test_the_interval_is_the_analytic_one_and_narrower_than_without_pairs():
    """Of utterances of equal length the rate's difference is a mean, whose deviation is known."""
    rng = np.random.default_rng(1)
    hard = rng.random(400) < 0.5  # for both systems
    refs = [" ".join(map(str, range(10)))] * 400
    errors = np.where(hard, 5, 0)
    better = errors + (rng.random(400) < 0.2)

    def hyps(counts):
        return [" ".join(["x"] * count + list(map(str, range(count, 10)))) for count in counts]

    found = paired_difference(refs, hyps(errors), hyps(better))
    differences = 10.0 * (errors - better)
    half = 1.96 * differences.std() / 20
    assert found.rate == pytest.approx(differences.mean())
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(half, rel=0.05)
    assert half < 1.96 * (10.0 * errors).std() / 20 / 3
    assert found.lower > 99.9


def test_it_turns_with_the_systems():
    refs, one, other = ["a b c", "d e", "f g h i"], ["a b", "d e", "f g h x"], ["a b c", "x y", "f g h i"]
    there, back = paired_difference(refs, one, other), paired_difference(refs, other, one)
    assert there.rate == -back.rate and there.lower == pytest.approx(100 - back.lower)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_draws_without_words_are_left_out():
    found = paired_difference(["", "a"], ["", ""], ["x", "a"])
    assert found.rate == 0 and np.isfinite(found.interval).all()
    with pytest.raises(UserError, match="no reference words in 2"):
        paired_difference(["", ""], ["a", ""], ["", ""])


def test_folds_are_compared_alone_and_together(asr, tmp_path):
    one = write_folder(tmp_path / "1/graph", [("u1", "a b", "a b"), ("u2", "c d", "c")])
    two = write_folder(tmp_path / "2/graph", [("u3", "e f", "e f")])
    base = write_folder(tmp_path / "base/graph", [("u3", "e  f", "x f"), ("u1", "a b", "a"), ("u2", "c d", "c d")])
    status, printed, _ = asr("score", one, two, "--pool", "all", "--against", base)
    assert status == 0
    lines = printed.splitlines()
    assert lines[1].startswith("    +0.00 [") and lines[1].endswith("of 2 utterances")
    assert lines[3] == "    -50.00 [-] against the other, on a single utterance: nothing says how sure that is"
    assert lines[4].startswith("all WER") and lines[5].startswith("    -16.67 [")


@pytest.mark.parametrize(
    "rows, status, complaint",
    [
        ([("u1", "a b", "a b")], 1, "1 of 2 utterances cannot be compared with those in"),
        ([("u1", "a b", "a"), ("u2", "c x", "c")], 1, "u2: another reference"),
        ([("u1", "a b", "a", "phones"), ("u2", "c d", "c", "phones")], 2, "one of the two is of words"),
    ],
)
def test_what_cannot_be_compared_is_named(asr, tmp_path, rows, status, complaint):
    folder = write_folder(tmp_path / "graph", [("u1", "a b", "a b"), ("u2", "c d", "c")])
    found, _, said = asr("score", folder, "--against", write_folder(tmp_path / "base", rows))
    assert found == status and complaint in said
