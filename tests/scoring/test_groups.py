"""Groups of utterances of about equal size."""

import numpy as np
import pytest

from asrtool.scoring.groups import MAX_GROUPS, MIN_UTTERANCES, groups_of_equal_size


@pytest.mark.parametrize(("values", "sizes"), [
    (range(50), [10] * 5),
    (range(30), [10] * 3),
    (range(15), []),
    ([1.0] * 40, []),
    ([0.0] * 4 + [1.0] * 40, []),  # the first group would have 4
    ([0.0] * 40 + [1.0] * 4, []),
    ([0.0] * 12 + [1.0] * 3 + [2.0] * 12, [15, 12]),
    ([0.0] * 3 + [1.0] * 20 + [2.0] * 3 + [3.0] * 20, [26, 20]),
])  # fmt: skip
def test_no_group_has_too_few_utterances(values, sizes):
    assert [len(group) for group in groups_of_equal_size(list(values))] == sizes


def test_groups_have_all_utterances_and_do_not_divide_equal_values():
    draw = np.random.default_rng(0)
    for _ in range(500):
        values = draw.integers(0, draw.integers(1, 12), draw.integers(0, 90)).astype(float)
        groups = groups_of_equal_size(values)
        assert len(groups) != 1 and len(groups) <= MAX_GROUPS
        assert all(len(group) >= MIN_UTTERANCES for group in groups)
        for one, other in zip(groups, groups[1:], strict=False):
            assert values[one].max() < values[other].min()
        assert sorted(sum(groups, [])) == (list(range(len(values))) if groups else [])
