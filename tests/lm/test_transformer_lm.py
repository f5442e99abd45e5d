from dataclasses import replace

import pytest
import torch

from asrtool.lm.transformer_lm import TransformerLm, TransformerLmConfig

SHAPE = TransformerLmConfig(dim=16, layers=2, heads=2, dropout=0.3)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return TransformerLm(7, SHAPE).eval()


def test_it_gives_probabilities_of_all_units(model):
    found = model(torch.randint(7, (3, 5)), torch.tensor([5, 2, 4]))
    assert found.shape == (11, 7)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(11))


def test_a_unit_sees_none_of_those_behind_it(model):
    units = torch.tensor([[0, 3, 1, 4, 2]])
    whole = model(units, torch.tensor([5]))
    changed = model(torch.tensor([[0, 3, 1, 6, 6]]), torch.tensor([5]))
    torch.testing.assert_close(changed[:3], whole[:3])
    assert (changed[3] - whole[3]).abs().max() > 1e-3


def test_it_sees_all_of_those_before_it(model):
    one, other = (model(torch.tensor([[first, 3, 1, 4, 2]]), torch.tensor([5]))[-1] for first in (0, 5))
    assert (one - other).abs().max() > 1e-4


def test_the_sentences_of_a_batch_do_not_know_of_each_other(model):
    units = torch.tensor([[0, 3, 1, 4], [0, 2, 6, 6]])
    both = model(units, torch.tensor([4, 2]))
    torch.testing.assert_close(both[4:], model(units[1:, :2], torch.tensor([2])))


def test_what_comes_before_is_as_if_it_stood_in_front():
    torch.manual_seed(1)
    model = TransformerLm(7, replace(SHAPE, context=12)).eval()
    before, units, lens = torch.tensor([0, 4, 5, 0, 2]), torch.tensor([[0, 3, 1], [0, 6, 6]]), torch.tensor([3, 2])
    found = model(units, lens, before)
    for sentence, own in zip(units, found.split([3, 2]), strict=True):
        whole = torch.cat([before, sentence[: len(own)]])
        torch.testing.assert_close(own, model(whole[None], torch.tensor([len(whole)]))[len(before) :])


def test_the_output_has_the_matrix_of_the_embedding(model):
    assert sum(p.numel() for p in model.parameters() if p.shape[0] == 7) == 7 * 16 + 7
