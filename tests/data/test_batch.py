"""Selecting utterances of a batch."""

from dataclasses import fields

import pytest
import torch

from asrtool.data.batch import WHOLE_BATCH_FIELDS, Batch, Position, SkippedCut

PER_UTTERANCE = [field.name for field in fields(Batch) if field.name not in WHOLE_BATCH_FIELDS]


def make_batch() -> Batch:
    """Three utterances, with a value for every field."""
    return Batch(
        position=Position(1, 2, 3, 4),
        next_position=Position(1, 2, 3, 5),
        ids=["a", "b", "c"],
        texts=["one", "two two", "three"],
        features=torch.randn(3, 6, 2),
        feature_lens=torch.tensor([6, 4, 2]),
        targets=torch.tensor([[1, 0], [2, 2], [3, 0]]),
        target_lens=torch.tensor([1, 2, 1]),
        seconds=12.0,
        labels=torch.arange(18).reshape(3, 6),
        speakers=["x", None, "y"],
        corpora=[0, 1, 0],
        skipped=[SkippedCut("d", "", None, "too short")],
    )


def test_every_field_has_a_value_in_the_example():
    """So that the tests below hold for fields that are added later."""
    assert all(getattr(make_batch(), name) is not None for name in PER_UTTERANCE)


@pytest.mark.parametrize("name", PER_UTTERANCE)
def test_selecting_takes_the_same_utterances_of_every_field(name):
    batch = make_batch()
    selected = batch.select(slice(0, None, 2))
    before, after = getattr(batch, name), getattr(selected, name)
    assert len(after) == 2
    for row, number in enumerate((0, 2)):
        assert torch.as_tensor(after[row] == before[number]).all()


def test_selecting_keeps_the_place_in_the_data_and_the_share_of_the_seconds():
    batch = make_batch()
    first, second = batch.select(slice(0, None, 2)), batch.select(slice(1, None, 2))
    assert first.position == second.position == batch.position
    assert first.next_position == second.next_position == batch.next_position
    assert (first.seconds, second.seconds) == pytest.approx((8.0, 4.0))


def test_a_batch_without_labels_has_none_after_selecting():
    batch = make_batch()
    batch.labels = None
    assert batch.select(slice(1, 2)).labels is None
