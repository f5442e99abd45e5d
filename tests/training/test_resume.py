"""A training that was interrupted and resumed is, bit by bit, the training that was not."""

import signal

import pytest
from lhotse import CutSet

from asrtool.training import session, step
from asrtool.training import train as loop
from asrtool.training.checkpoint_folder import Checkpoints
from asrtool.training.train import train

MODULES = {"learning_rate": session, "batch_loss": step}  # that call a function, unless it is the loop
STEPS = 9  # an epoch has about six batches: training reaches the second


@pytest.fixture(scope="module")
def make_config(tiny_config, corpus, tmp_path_factory):
    """make_config(workers, max_steps) -> a configuration with dropout, augmentation and loader processes"""
    dev = tmp_path_factory.mktemp("dev") / "dev.jsonl.gz"
    CutSet.from_file(corpus).subset(first=4).to_file(dev)
    masks = {"frequency_width": 5, "time_width": 10, "time_warp": 10}
    augment = {"speeds": [0.9, 1.0, 1.1], "volume": [0.5, 2.0], "spec_augment": masks}
    return lambda workers=0, max_steps=STEPS: tiny_config(
        data={"workers": workers, "augment": augment, "dev": dev},
        model={"dropout": 0.2, "convolution": {"kind": "residual"}},
        training={"max_steps": max_steps, "validate_every": 3, "log_every": 2, "schedule": "none"},
    )


@pytest.fixture(scope="module")
def uninterrupted(make_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asrtool.data.statistics.STATISTICS_SECONDS", 30.0)
        patch.setattr("asrtool.training.train.plot_losses", lambda *_: None)
        train(make_config(), folder, device="cpu")
    return folder


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def crash():
    raise KeyboardInterrupt


def interrupted(config, folder, name, call, action, resume=False):
    """Train until call number `call` of a function of the training loop has returned; then `action`."""
    module = MODULES.get(name, loop)
    real, calls = getattr(module, name), []

    def interrupted_call(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append(name)
        if len(calls) == call:
            action()
        return result

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, interrupted_call)
        train(config, folder, resume, device="cpu")


@pytest.mark.parametrize(
    "name, call, workers",
    [
        ("learning_rate", 1, 0),  # before the first step
        ("batch_loss", 2, 1),  # in a step, when its dropout has been drawn
        ("training_step", 5, 0),  # in the middle of an epoch and of a line of the log
        ("validate", 2, 0),
        ("training_step", 7, 1),  # in the second epoch
    ],
)
def test_ctrl_c_and_resume_give_the_same_bits(make_config, uninterrupted, tmp_path, same_training, name, call, workers):
    interrupted(make_config(workers), tmp_path, name, call, ctrl_c)
    assert Checkpoints(tmp_path / "checkpoints", 1).last() is not None
    train(make_config(workers), tmp_path, resume=True, device="cpu")
    same_training(uninterrupted, tmp_path)


@pytest.mark.parametrize(
    "name, call", [("training_step", 2), ("training_step", 5), ("validate", 2), ("report_progress", 4)]
)
def test_a_crash_anywhere_and_resume_give_the_same_bits(
    make_config, uninterrupted, tmp_path, same_training, name, call
):
    interrupted(make_config(), tmp_path, name, call, crash)
    train(make_config(), tmp_path, resume=True, device="cpu")
    same_training(uninterrupted, tmp_path)


def test_workers_do_not_change_a_bit(make_config, uninterrupted, tmp_path, same_training):
    train(make_config(workers=2), tmp_path, device="cpu")
    same_training(uninterrupted, tmp_path)


def test_resuming_with_more_steps_equals_one_longer_training(make_config, uninterrupted, tmp_path, same_training):
    train(make_config(max_steps=6), tmp_path, device="cpu")
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as log:  # and a crash in the middle of a line
        log.write('{"event": "train", "step": 8, "loss": 1.0}\n{"event": "train", "st')
    train(make_config(), tmp_path, resume=True, device="cpu")
    same_training(uninterrupted, tmp_path)


@pytest.mark.parametrize("validation", [1, 2])
def test_a_kill_before_the_best_checkpoint_is_linked_is_made_good_by_resuming(
    make_config, tmp_path, monkeypatch, validation
):
    """Whether best.pt is missing then, or of an earlier step; also with no steps left to take."""
    calls = []
    link = Checkpoints._link

    def killed(checkpoints, path, name):
        calls.append(name)
        if len(calls) == validation:
            raise KeyboardInterrupt
        return link(checkpoints, path, name)

    monkeypatch.setattr(loop, "validate", lambda session: {"dev": 1 / session.progress.step})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "_link", killed)
        train(make_config(), tmp_path, device="cpu")
    steps = 3 * validation
    train(make_config(max_steps=steps), tmp_path, resume=True, device="cpu")
    folder = tmp_path / "checkpoints"
    assert (folder / "best.pt").samefile(folder / f"step-{steps:08d}.pt")


def test_a_finished_training_that_continues_has_no_average_of_its_earlier_end(make_config, tmp_path, state):
    """Until it ends again; with no more steps to take, it keeps the average."""
    train(make_config(max_steps=3), tmp_path, device="cpu")
    averaged = tmp_path / "checkpoints/averaged.pt"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_averaged_weights", lambda _: crash())
        train(make_config(max_steps=3), tmp_path, resume=True, device="cpu")
    assert state(tmp_path, "averaged")["steps"] == [3]
    interrupted(make_config(max_steps=6), tmp_path, "training_step", 1, ctrl_c, resume=True)
    assert not averaged.exists()
    train(make_config(max_steps=6), tmp_path, resume=True, device="cpu")
    assert state(tmp_path, "averaged")["steps"] == [3, 6]


KILL = """
import os, signal
import asrtool.data.statistics as statistics, asrtool.training.train as module
statistics.STATISTICS_SECONDS = 30.0
real, calls = module.training_step, []
def killed(*args, **kwargs):
    calls.append(1)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
module.training_step = killed
"""


def test_a_killed_process_is_resumed_to_the_same_bits(
    make_config, uninterrupted, tmp_path, same_training, train_process
):
    killed = train_process(make_config(1), tmp_path / "exp", KILL)
    assert killed.returncode == -signal.SIGKILL
    train(make_config(1), tmp_path / "exp", resume=True, device="cpu")
    same_training(uninterrupted, tmp_path / "exp")


def test_no_event_is_logged_twice_when_a_training_is_resumed(make_config, tmp_path, rows):
    interrupted(make_config(), tmp_path, "training_step", 5, crash)
    for _ in range(2):
        train(make_config(), tmp_path, resume=True, device="cpu")
    events = [(row["event"], row["step"]) for row in rows(tmp_path, "train", "dev", "finished")]
    assert len(events) == len(set(events)) and events[-1] == ("finished", STEPS)


def test_resume_with_fewer_steps_than_were_taken_finishes_at_once(make_config, tmp_path, state):
    interrupted(make_config(), tmp_path, "training_step", 2, ctrl_c)
    train(make_config(max_steps=2), tmp_path, resume=True, device="cpu")
    assert state(tmp_path, "averaged")["steps"] == [2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_and_the_handlers_are_restored(make_config, tmp_path, number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def twice():
        signal.raise_signal(number)
        signal.raise_signal(number)

    interrupted(make_config(), tmp_path, "learning_rate", 1, twice)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
