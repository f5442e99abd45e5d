from dataclasses import replace

import pytest
import torch

from asrtool.lm.transformer_lm import TransformerLm, TransformerLmConfig

SHAPE = TransformerLmConfig(dim=16, layers=2, heads=2, dropout=0.3)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return TransformerLm(7, SHAPE).eval()


def test_the_output_is_a_distribution_over_all_units(model):
    logprobs = model(torch.randint(7, (3, 5)), torch.tensor([5, 2, 4]))
    assert logprobs.shape == (11, 7)
    torch.testing.assert_close(logprobs.exp().sum(1), torch.ones(11))


def test_a_unit_does_not_depend_on_later_units(model):
    units = torch.tensor([[0, 3, 1, 4, 2]])
    whole = model(units, torch.tensor([5]))
    changed = model(torch.tensor([[0, 3, 1, 6, 6]]), torch.tensor([5]))
    torch.testing.assert_close(changed[:3], whole[:3])
    assert (changed[3] - whole[3]).abs().max() > 1e-3


def test_a_unit_depends_on_all_earlier_units(model):
    one, other = (model(torch.tensor([[first, 3, 1, 4, 2]]), torch.tensor([5]))[-1] for first in (0, 5))
    assert (one - other).abs().max() > 1e-4


def test_the_sentences_of_a_batch_are_independent(model):
    units = torch.tensor([[0, 3, 1, 4], [0, 2, 6, 6]])
    both = model(units, torch.tensor([4, 2]))
    torch.testing.assert_close(both[4:], model(units[1:, :2], torch.tensor([2])))


def test_a_history_is_the_same_as_units_in_front():
    torch.manual_seed(1)
    model = TransformerLm(7, replace(SHAPE, context=12)).eval()
    history, units, lens = torch.tensor([0, 4, 5, 0, 2]), torch.tensor([[0, 3, 1], [0, 6, 6]]), torch.tensor([3, 2])
    logprobs = model(units, lens, history)
    for sentence, own in zip(units, logprobs.split([3, 2]), strict=True):
        whole = torch.cat([history, sentence[: len(own)]])
        torch.testing.assert_close(own, model(whole[None], torch.tensor([len(whole)]))[len(history) :])


def test_output_layer_and_embedding_share_their_matrix(model):
    assert sum(p.numel() for p in model.parameters() if p.shape[0] == 7) == 7 * 16 + 7
