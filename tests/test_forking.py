"""Processes that hang in their fork, as Python 3.11 lets them when another thread holds a lock of the interpreter."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from asrtool import forking
from asrtool.forking import fork_context, loader_context
from tests.faults.commands import children

forks_that_hang = 0  # how many of the next forks never run Python code after the fork's own hooks


def _hang() -> None:
    if forks_that_hang:
        time.sleep(1000)


def _count() -> None:
    global forks_that_hang
    forks_that_hang = max(0, forks_that_hang - 1)


os.register_at_fork(after_in_child=_hang, after_in_parent=_count)


@pytest.fixture
def hanging_forks(monkeypatch):
    """Sets the number of the next forks that hang."""
    monkeypatch.setattr(forking, "FIRST_WAIT_SECONDS", 0.05)

    def start(number):
        global forks_that_hang
        forks_that_hang = number

    yield start
    start(0)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_forks_that_hang_are_repeated(hanging_forks, number):
    before = children(os.getpid())
    context = fork_context()
    results = context.SimpleQueue()
    process = context.Process(target=results.put, args=("done",))
    hanging_forks(number)
    process.start()
    assert results.get() == "done"
    process.join()
    assert process.exitcode == 0
    assert children(os.getpid()) == before  # the processes that hung are gone


def test_a_pool_survives_a_fork_that_hangs(hanging_forks):
    hanging_forks(1)
    with ProcessPoolExecutor(2, fork_context()) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]


def test_forks_that_always_hang_are_an_error(hanging_forks):
    hanging_forks(forking.NUM_TRIES)
    process = fork_context().Process(target=abs, args=(1,))
    with pytest.raises(OSError, match="began to run"):
        process.start()


INTERRUPTED_START = """
import os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from asrtool.forking import fork_context
from asrtool.interrupts import exit_on_sigterm, init_worker

forks = 0
def count():
    global forks
    forks += 1
def hang():
    if forks == 2:
        time.sleep(1000)
os.register_at_fork(before=count, after_in_child=hang)

with exit_on_sigterm():
    threading.Timer(1, os.kill, (os.getpid(), int(sys.argv[1]))).start()
    with ProcessPoolExecutor(2, fork_context(), init_worker_of_pool) as pool:
        pool.submit(abs, -1)
""".replace("init_worker_of_pool", "lambda: init_worker(ends_on_sigterm=True)")


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_pool_that_is_interrupted_while_it_starts_ends(number, status):
    """Its second process hangs in its fork, and the first one waits for work."""
    command = [sys.executable, "-c", INTERRUPTED_START, str(int(number))]
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # though the tests may not be
    finished = subprocess.run(command, timeout=30, capture_output=True, text=True, check=False, **listening)
    assert finished.returncode in (status, -number), finished.stderr


def test_a_process_that_ends_at_once_has_started():
    process = fork_context().Process(target=os._exit, args=(3,))
    process.start()
    process.join()
    assert process.exitcode == 3


def test_no_descriptor_is_left_open():
    before = set(os.listdir("/proc/self/fd"))
    process = fork_context().Process(target=abs, args=(1,))
    process.start()
    process.join()
    process.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_loader_without_processes_has_no_context():
    assert loader_context(0) is None
