"""Systems with several seeds: means and differences by hand, and the intervals of each source of chance."""

import numpy as np
import pytest
from click.testing import CliRunner

from asrtool.cli import cli
from asrtool.errors import DataError, UserError
from asrtool.scoring.seeds import compare_seeds, mean_over_seeds
from tests.scoring.test_paired import write_folder

REF = "a b c d e f g h i j"


def folder(path, errors):
    """A result whose utterances of ten words have these numbers of errors."""
    hyps = [" ".join(["x"] * count + REF.split()[count:]) for count in errors]
    return write_folder(path, [(f"u{number}", REF, hyp) for number, hyp in enumerate(hyps)])


def test_the_interval_of_a_mean_is_students():
    result = mean_over_seeds([10.0, 12.0, 14.0])
    assert result.mean == 12 and result.interval == pytest.approx(
        (12 - 4.9683, 12 + 4.9683), abs=1e-3
    )  # 4.303 * 2 / sqrt 3
    with pytest.raises(UserError, match="two seeds or more"):
        mean_over_seeds([10.0])


def test_differences_are_paired_by_seed_and_by_utterance(tmp_path):
    errors = [np.array([1, 5, 2, 6]), np.array([3, 7, 4, 8])]  # the second seed is worse for both systems
    first = [folder(tmp_path / f"a{seed}", own) for seed, own in enumerate(errors)]
    second = [folder(tmp_path / f"b{seed}", own - 1) for seed, own in enumerate(errors)]
    result = compare_seeds(first, second)
    assert result.over_seeds.values == (10, 10) and result.over_seeds.interval == pytest.approx((10, 10))
    assert result.over_utterances.interval == pytest.approx((10, 10)) and result.over_utterances.utterances == 4


def test_seeds_that_disagree_and_utterances_that_disagree_widen_their_own_interval(tmp_path):
    level = folder(tmp_path / "level", [4] * 6)
    seeds = [folder(tmp_path / "better", [2] * 6), folder(tmp_path / "worse", [6] * 6)]
    result = compare_seeds(seeds, [level, level])
    assert result.over_seeds.mean == 0 and result.over_seeds.interval[1] > 100
    assert result.over_utterances.interval == pytest.approx((0, 0))
    mixed = folder(tmp_path / "mixed", [2, 6] * 3)
    result = compare_seeds([mixed, mixed], [level, level])
    assert result.over_seeds.interval == pytest.approx((0, 0)) and result.over_utterances.interval[1] > 5


def test_seeds_of_other_utterances_or_numbers_are_refused(tmp_path):
    short, long = folder(tmp_path / "short", [1, 2]), folder(tmp_path / "long", [1, 2, 3])
    with pytest.raises(UserError, match="2 results are compared with 1"):
        compare_seeds([long, long], [long])
    with pytest.raises(DataError, match="other utterances than the first folder"):
        compare_seeds([short, short], [long, long])
    with pytest.raises(DataError, match="cannot be compared|other utterances"):
        compare_seeds([long, short], [short, short])


def test_the_command_prints_each_seed_the_means_and_the_difference(tmp_path):
    first = [str(folder(tmp_path / name, errors)) for name, errors in (("a1", [1, 3]), ("a2", [2, 4]))]
    second = [str(folder(tmp_path / name, errors)) for name, errors in (("b1", [2, 4]), ("b2", [4, 4]))]
    options = [word for other in second for word in ("--against", other)]
    result = CliRunner().invoke(cli, ["score", *first, "--seeds", *options, "--name", "test"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == ["test", "-10.00", "test", "-10.00", "test", "-10.00"]
    assert "test 25.00 % [-38.53, 88.53] over 2 seeds, which have 20.00 to 30.00 %" in lines
    assert lines[-1].endswith("over 2 utterances")
    result = CliRunner().invoke(cli, ["score", *first, "--seeds", "--pool", "all"])
    assert isinstance(result.exception, UserError) and "exclude each other" in str(result.exception)
