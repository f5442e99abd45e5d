"""Means of weights."""

import pytest
import torch
from torch import nn

from asrtool.checkpoint import load_checkpoint
from asrtool.training.average import EmaWeights, mean_weights
from asrtool.training.checkpoint_folder import Checkpoints
from asrtool.training.train import train


def test_mean_weights_keep_their_dtypes():
    models = [{"w": torch.full((2,), value), "b": torch.tensor([value]).double()} for value in (1.0, 2.0, 6.0)]
    mean = mean_weights(iter(models))
    assert mean["w"].tolist() == [3.0, 3.0] and mean["w"].dtype == torch.float32
    assert mean["b"].item() == 3.0 and mean["b"].dtype == torch.float64


def weights_after(decay: float, values: list[float]) -> float:
    model = nn.Linear(1, 1, bias=False)
    mean = EmaWeights(model, decay)
    for value in values:
        nn.init.constant_(model.weight, value)
        mean.update(model)
    return mean.weights[0].item()


def test_with_decay_1_the_average_is_the_mean_of_all_steps():
    assert weights_after(1.0, [1.0, 2.0, 6.0]) == pytest.approx(3.0)


def test_the_average_is_exponential_after_a_plain_mean_of_the_first_steps():
    by_hand = mean = 0.0
    for step, value in enumerate(values := [1.0, 5.0, 2.0, 4.0, 8.0, -3.0], 1):
        weight = max(1 / 4, 1 / step)
        mean += weight * (value - mean)
    by_hand = mean
    assert weights_after(0.75, values) == pytest.approx(by_hand)


def test_a_training_may_average_its_last_checkpoints(tmp_path, tiny_config, state):
    settings = {"validate_every": 2, "keep_best": 1, "keep_last": 3, "average": "last"}
    train(tiny_config(training=settings), tmp_path, device="cpu")
    assert state(tmp_path, "averaged")["steps"] == [4, 6, 8]
    models = [state(tmp_path, f"step-0000000{step}")["model"] for step in (4, 6, 8)]
    for name, weight in mean_weights(models).items():
        assert torch.equal(state(tmp_path, "averaged")["model"][name], weight)


def test_a_training_may_average_all_its_steps(tmp_path, tiny_config, state, rows):
    train(tiny_config(training={"ema_decay": 1.0, "average": "ema", "save_every": 1}), tmp_path, device="cpu")
    last, averaged = state(tmp_path), state(tmp_path, "averaged")
    assert averaged["steps"] == [] and last["ema"]["steps"] == 8
    assert not torch.equal(averaged["model"]["output.weight"], last["model"]["output.weight"])
    assert torch.equal(averaged["model"]["normalise.mean"], last["model"]["normalise.mean"])
    assert any(torch.equal(averaged["model"]["output.weight"], weight) for weight in last["ema"]["weights"])
    assert rows(tmp_path, "finished")[0]["loss"] != rows(tmp_path, "dev")[-1]["loss"]


def test_checkpoints_keep_the_best_and_the_last(tmp_path):
    checkpoints, losses = Checkpoints(tmp_path, keep_best=1, keep_last=2), {}
    for step, loss in enumerate([5.0, 1.0, 4.0, 3.0, 2.0], 1):
        losses[step] = loss
        checkpoints.write(step, {"model": {}, "config": {}}, losses)
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [f"step-0000000{n}.pt" for n in (2, 4, 5)]
    assert load_checkpoint(checkpoints.last()) == {"model": {}, "config": {}}


@pytest.mark.parametrize(
    ("keep_best", "keep_last", "first_losses", "deleted"),
    [(1, 2, [1.0, 1.1, 0.8], [3]), (2, 3, [1.0, 1.1, 2.0, 3.0, 0.8, 0.7], [5, 6])],
)
def test_checkpoints_that_are_gone_are_not_the_best(tmp_path, keep_best, keep_last, first_losses, deleted):
    """Damaged checkpoints are to be deleted: training resumes from an earlier one, and those they replaced are gone."""

    def write(step, loss):
        losses[step] = loss
        checkpoints.write(step, {"model": {"step": torch.tensor(float(step))}, "config": {}}, losses)

    checkpoints, losses = Checkpoints(tmp_path, keep_best, keep_last), {}
    for step, loss in enumerate(first_losses, 1):
        write(step, loss)
    for step in deleted:
        checkpoints._path(step).unlink()
        losses.pop(step)
    last = deleted[0] - 1
    checkpoints.link_best(losses)
    assert checkpoints.all() == [checkpoints._path(last)]
    assert (tmp_path / "best.pt").samefile(checkpoints._path(last))
    write(last + 1, 1.05)
    assert (tmp_path / "best.pt").samefile(checkpoints._path(last + 1))
    steps = checkpoints.average("best", losses, {"config": {}})
    assert steps == [last, last + 1][-keep_best:]
    assert load_checkpoint(checkpoints.averaged)["model"]["step"] == sum(steps) / len(steps)
