import os
import signal
import subprocess
import sys
import time

import pytest

from asrtool.errors import UserError
from asrtool.locks import LOCK, write_lock

HOLD = """
import sys, time
from asrtool.locks import write_lock
with write_lock(sys.argv[1], "asrtool hold", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """holder("shared" or "alone") -> a process that holds the lock of tmp_path."""
    started = []

    def start(how="alone"):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), how], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_process_gets_an_error_with_the_holder_of_the_lock(tmp_path, holder):
    process = holder()
    with pytest.raises(UserError) as refused, write_lock(tmp_path, "asrtool train"):
        pass
    assert f"in use by asrtool hold (process {process.pid} on " in str(refused.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path, holder, number):
    process = holder()
    os.kill(process.pid, number)
    process.wait()
    with write_lock(tmp_path, "asrtool train"):
        assert (tmp_path / LOCK).is_file()


@pytest.mark.parametrize("held, wanted, allowed", [("shared", True, True), ("shared", False, False)])
def test_shared_locks_exclude_only_the_exclusive_one(tmp_path, holder, held, wanted, allowed):
    holder(held)
    if allowed:
        with write_lock(tmp_path, "asrtool features", shared=wanted):
            pass
    else:
        with pytest.raises(UserError), write_lock(tmp_path, "asrtool features", shared=wanted):
            pass


def test_a_lock_inside_a_lock_of_the_same_process_does_not_release_it(tmp_path, holder):
    with write_lock(tmp_path, "asrtool train"):
        with write_lock(tmp_path, "asrtool train"):
            pass
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path), "alone"], capture_output=True, text=True, timeout=60
        )
        assert refused.returncode and "in use by asrtool train" in refused.stderr
    holder()


def test_a_forked_process_does_not_keep_the_lock(tmp_path, holder):
    with write_lock(tmp_path, "asrtool decode"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        holder()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
