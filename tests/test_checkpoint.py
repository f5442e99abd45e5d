"""Checkpoints are written whole or not at all, and say what is wrong with them."""

import errno
import os
import random

import pytest
import torch

from asrtool import checkpoint
from asrtool.errors import UserError
from asrtool.training import saved_state
from asrtool.training.checkpoint_folder import Checkpoints

STATE = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "config": {"seed": 1}, "progress": {"step": 3}}


def state_with(value):
    return {"model": {"w": torch.full((2,), float(value)), "n": torch.tensor(int(value))}, "config": {}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "a.pt", STATE)
    for loaded in (checkpoint.load_checkpoint(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)):
        assert torch.equal(loaded["model"]["w"], STATE["model"]["w"])
        assert loaded["progress"] == {"step": 3} and loaded["config"] == {"seed": 1}
    assert names(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "a.pt"
    checkpoint.save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(UserError, match=r"a\.pt is not a checkpoint of asrtool, or damaged"):
        checkpoint.load_checkpoint(path)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x04.", b"PK\x03\x04 nor a zip", b"{}"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="is not a checkpoint of asrtool"):
        checkpoint.load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [{"weights": torch.ones(2)}, torch.ones(2), [1, 2], {"model": print, "config": {}}])
def test_other_tensors_and_objects_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is not a checkpoint of asrtool"):
        checkpoint.load_checkpoint(tmp_path / "a.pt")


def test_the_error_about_a_missing_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint not found: .*a\.pt; train first"):
        checkpoint.load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "model, complaint",
    [
        (torch.nn.Linear(3, 2), r"weight is \(2, 3\) in the model and \(4, 3\) in the checkpoint"),
        (torch.nn.Linear(3, 4, bias=False), r"bias is nothing in the model and \(4,\) in the checkpoint"),
        (torch.nn.Sequential(torch.nn.Linear(3, 4)), r"0\.bias is \(4,\) in the model and nothing in the checkpoint"),
    ],
)
def test_the_first_weight_that_does_not_fit_is_named(tmp_path, model, complaint):
    theirs = {"weight": torch.ones(4, 3), "bias": torch.ones(4)}
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    if "weight" in before and before["weight"].shape == (2, 3):
        theirs["bias"] = torch.ones(2)
    with pytest.raises(UserError, match=complaint):
        checkpoint.load_weights(model, {"model": theirs}, tmp_path / "a.pt")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_random_states_are_restored_exactly_from_a_file(tmp_path):
    def draw():
        return [random.random(), random.gauss(0, 1), torch.rand(3).tolist(), torch.randperm(9).tolist()]

    random.gauss(0, 1)  # leaves a second value for the next call
    checkpoint.save_checkpoint(tmp_path / "a.pt", STATE | {"random": saved_state.random_states()})
    drawn = [draw(), draw()]
    saved_state.restore_random_states(checkpoint.load_checkpoint(tmp_path / "a.pt")["random"])
    assert [draw(), draw()] == drawn


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_while_writing(state, file):
    file.write(b"half of it")
    full()


@pytest.mark.parametrize("what, how", [("torch.save", full_while_writing), ("os.fsync", full), ("os.replace", full)])
def test_a_full_disk_leaves_the_earlier_checkpoints_unchanged(tmp_path, monkeypatch, what, how):
    checkpoints = Checkpoints(tmp_path, keep_best=1)
    checkpoints.write(1, state_with(1.0), {1: 0.5})
    before = names(tmp_path)
    monkeypatch.setattr(what, how)
    with pytest.raises(UserError, match="no space left to write .*step-00000002.pt") as caught:
        checkpoints.write(2, state_with(2.0), {1: 0.5, 2: 0.1})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == before
    assert (
        checkpoint.load_checkpoint(checkpoints.last())["model"]["n"]
        == checkpoint.load_checkpoint(tmp_path / "best.pt")["model"]["n"]
        == 1
    )


def test_the_best_and_the_last_are_kept(tmp_path):
    checkpoints, losses = Checkpoints(tmp_path, keep_best=2), {}
    for step, loss in [(5, 3.0), (10, 1.0), (15, 2.0), (20, 4.0), (25, 5.0)]:
        losses[step] = loss
        checkpoints.write(step, state_with(step), losses)
        assert checkpoints.last().name == f"step-{step:08d}.pt"
        assert checkpoint.load_checkpoint(tmp_path / "best.pt")["model"]["n"] == min(losses, key=losses.get)
    assert names(tmp_path) == ["best.pt", "step-00000010.pt", "step-00000015.pt", "step-00000025.pt"]


@pytest.mark.parametrize("present", ["", "step-00000005.pt"])
def test_a_best_checkpoint_without_its_link_is_linked_by_the_next_checkpoint(tmp_path, present):
    """As after a kill between a checkpoint and its link."""
    checkpoints, losses = Checkpoints(tmp_path, keep_best=2), {}
    for step, loss in [(5, 3.0), (10, 1.0)]:
        losses[step] = loss
        checkpoints.write(step, state_with(step), losses)
    (tmp_path / "best.pt").unlink()
    if present:
        os.link(tmp_path / present, tmp_path / "best.pt")
    checkpoints.write(15, state_with(15), losses | {15: 2.0})
    assert (tmp_path / "best.pt").samefile(tmp_path / "step-00000010.pt")


def test_the_last_checkpoint_has_the_highest_step(tmp_path):
    assert Checkpoints(tmp_path, 1).last() is None
    for step in (9, 10, 12345678):
        checkpoint.save_checkpoint(Checkpoints(tmp_path, 1)._path(step), state_with(step))
        assert checkpoint.load_checkpoint(Checkpoints(tmp_path, 1).last())["model"]["n"] == step


def test_averaged_weights_are_the_mean_of_the_best_checkpoints(tmp_path, tiny_config):
    checkpoints, losses = Checkpoints(tmp_path, keep_best=2), {5: 3.0, 10: 1.0, 15: 2.0}
    for step in losses:
        checkpoints.write(step, state_with(step), losses)
    assert checkpoints.average("best", losses, checkpoint.checkpoint_metadata(tiny_config(), ["a"])) == [10, 15]
    averaged = checkpoint.load_checkpoint(tmp_path / "averaged.pt")
    assert averaged["model"]["w"].tolist() == [12.5, 12.5] and averaged["model"]["w"].dtype == torch.float32
    assert averaged["config"] == tiny_config().model_dump(mode="json")


@pytest.mark.parametrize("name", ["averaged.pt", "step-00000007.pt", "7", "mine.pt"])
def test_a_checkpoint_of_the_experiment_comes_before_a_file_of_the_current_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    exp = tmp_path / "exp"
    checkpoint.save_checkpoint(exp / "checkpoints/averaged.pt", STATE)
    checkpoint.save_checkpoint(exp / "checkpoints/step-00000007.pt", STATE)
    checkpoint.save_checkpoint(tmp_path / name, STATE)
    found = checkpoint.find_checkpoint(exp, name)
    assert found.is_file() and (found.parent == exp / "checkpoints") == (name != "mine.pt")
    assert checkpoint.find_checkpoint(exp, f"./{name}").parent.absolute() == tmp_path


def test_find_checkpoint_by_name_or_path(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint.save_checkpoint(folder / "best.pt", STATE)
    assert (
        checkpoint.find_checkpoint(tmp_path, "averaged")
        == checkpoint.find_checkpoint(tmp_path, "best")
        == folder / "best.pt"
    )
    checkpoint.save_checkpoint(folder / "averaged.pt", STATE)
    checkpoint.save_checkpoint(folder / "step-00000007.pt", STATE)
    assert checkpoint.find_checkpoint(tmp_path, "averaged") == folder / "averaged.pt"
    assert checkpoint.find_checkpoint(tmp_path, "last") == folder / "step-00000007.pt"
    assert str(checkpoint.find_checkpoint(tmp_path, "some/where.pt")) == "some/where.pt"
