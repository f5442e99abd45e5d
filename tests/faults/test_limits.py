"""With few descriptors, a tiny /dev/shm, broken streams or a dead parent a command ends, with at most one error."""

import signal

import pytest

from tests.faults.commands import Command, alive, children, run, until
from tests.faults.limits import UNABLE

ENDS_WITHIN = 10  # seconds after the parent process; orphans check for it each second


def training(given, tmp_path, workers):
    steps = ("--set", "training.max_steps=4", "--set", "training.validate_every=2", "--set", f"data.workers={workers}")
    return "train", given.config, "--exp", tmp_path / "exp", "--device", "cpu", *steps


def decoding(exp, given, workers):
    return "decode", exp, given.cuts, "--device", "cpu", "--workers", workers, "--batch-seconds", 5


@pytest.mark.slow
@pytest.mark.parametrize("count, workers", [(16, 0), (32, 2), (64, 2), (64, 6)])
def test_few_descriptors_end_in_a_result_or_in_one_error_line(given, experiment_copy, tmp_path, count, workers):
    before = ("descriptors", count)
    for command in (training(given, tmp_path / "train", workers), decoding(experiment_copy, given, workers)):
        finished = run(tmp_path, *command, before=before)
        assert finished.status == 0 or finished.refused("open files"), finished.printed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "decode"])
def test_a_tiny_shared_memory_ends_in_a_result_or_in_one_error_line(given, experiment_copy, tmp_path, command):
    commands = {"train": training(given, tmp_path / "train", 1), "decode": decoding(experiment_copy, given, 1)}
    finished = run(tmp_path, *commands[command], before=("shared_memory", "64k"))
    if finished.status == UNABLE:
        pytest.skip("needs the right to mount")
    assert finished.status == 0 or finished.refused("/dev/shm", "workers"), finished.printed
    assert "Traceback" not in finished.printed


@pytest.mark.parametrize("descriptors", [(2,), (1, 2), (0, 1, 2)])
def test_closed_streams_do_not_lose_the_result(given, experiment_copy, tmp_path, descriptors):
    finished = run(tmp_path, *decoding(experiment_copy, given, 0), before=("streams", *descriptors))
    assert finished.status == (2 if 1 in descriptors else 0)  # as of `ls >&-`: its output can go nowhere
    assert (experiment_copy / "decode" / "cuts" / "greedy" / "decode.json").is_file()


def test_closed_streams_do_not_change_a_refusal(given, tmp_path):
    finished = run(tmp_path, "decode", tmp_path / "none", given.cuts, before=("streams", 1, 2))
    assert finished.status == 2


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_broken_pipe_is_not_reported_as_a_bug(given, experiment_copy, tmp_path, descriptor):
    finished = run(tmp_path, *decoding(experiment_copy, given, 0), before=("readers", descriptor))
    assert finished.status == (141 if descriptor == 1 else 0), finished.printed  # 141: SIGPIPE, as a shell gives it
    assert "Traceback" not in finished.printed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["search", "loader", "features"])
def test_processes_end_with_their_parent(given, experiment_copy, tmp_path, kind, number):
    commands = {
        "search": (*decoding(experiment_copy, given, 0), "--method", "graph", "--graph", given.graph, "--jobs", 2),
        "loader": (*training(given, tmp_path / "training", 2), "--set", "training.max_steps=5000"),
        "features": ("features", given.cuts, tmp_path / "fb.jsonl.gz", "--jobs", 2, "--speeds", "0.8,0.9,1,1.1,1.2"),
    }
    running = Command(tmp_path, *commands[kind])
    assert until(lambda: len(children(running.pid)) >= 2 or running.ended)
    workers = children(running.pid)
    running.signal(number)
    running.wait(ENDS_WITHIN if number == signal.SIGKILL else 30)
    assert workers, running.printed
    assert until(lambda: not any(map(alive, workers)), ENDS_WITHIN), workers
