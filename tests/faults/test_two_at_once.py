"""Of two processes of one command on one folder, both are right, or the second gets an error with the first one."""

import shutil

import pytest

from tests.faults.commands import Command, run, temporary
from tests.faults.test_kill_and_rerun import COMMANDS, place, results
from tests.tiny import equal


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_of_two_processes_both_are_right_or_one_is_refused(given, tmp_path, command):
    folder = place(given, tmp_path / "work")
    finished = run(tmp_path, *command(given, folder))
    assert finished.status == 0, finished.printed
    right = results(folder, COMMANDS[command])
    for _ in range(2):
        shutil.rmtree(folder)
        place(given, folder)
        both = [Command(tmp_path, *command(given, folder)) for _ in range(2)]
        ended = [running.wait() for running in both]
        assert any(one.status == 0 for one in ended), [one.printed for one in ended]
        assert all(one.status == 0 or one.refused("in use by", "process") for one in ended), [e.printed for e in ended]
        assert equal(results(folder, COMMANDS[command]), right)
        assert not temporary(folder)


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_the_second_is_refused(given, tmp_path):
    training = ("train", given.config, "--exp", tmp_path / "exp", "--device", "cpu")
    both = [Command(tmp_path, *training) for _ in range(2)]
    ended = [running.wait() for running in both]
    assert sorted(one.status for one in ended) == [0, 2], [one.printed for one in ended]
    (refused,) = [one for one in ended if one.status == 2]
    assert refused.refused("in use by", "process") or refused.refused("exist"), refused.printed
    assert (tmp_path / "exp" / "checkpoints" / "averaged.pt").is_file()
