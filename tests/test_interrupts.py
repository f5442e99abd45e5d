"""SIGTERM ends a process with status 143 and without a traceback, even while it starts another process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asrtool.interrupts import TERMINATED

SCRIPT = """
import multiprocessing, os, signal, time
from asrtool.interrupts import exit_on_sigterm

def interrupted():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.001)  # the handler runs here

def nothing():
    pass

with exit_on_sigterm():
    os.register_at_fork(**{HOOK: interrupted})
    multiprocessing.get_context("fork").Process(target=nothing).start()
    time.sleep(30)
"""


@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
def test_sigterm_in_a_hook_of_fork_ends_the_process_soon_after(hook):
    script = SCRIPT.replace("HOOK", repr(hook))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=20)
    assert (done.returncode, done.stderr) == (TERMINATED, "")


def test_sigterm_elsewhere_ends_the_process_at_once():
    script = (
        "import time\nfrom asrtool.interrupts import exit_on_sigterm\nwith exit_on_sigterm():\n    print(flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", f"{script}    time.sleep(30)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == TERMINATED


IMPORT_SCRIPT = """
import signal, time, weakref
from asrtool.interrupts import exit_on_sigterm

class Lock:
    pass

# As in importlib, which deletes the lock of a module by the callback of a weak reference
source = "def cb(_):\\n    signal.raise_signal(signal.SIGTERM)\\n    sum(range(1000))\\n"
names = {"signal": signal}
exec(compile(source, "<frozen importlib._bootstrap>", "exec"), names)
with exit_on_sigterm():
    lock = Lock()
    reference = weakref.ref(lock, names["cb"])
    del lock
    time.sleep(10)
"""


WORKER_SCRIPT = """
import multiprocessing, sys, time
from asrtool.interrupts import init_worker, sigterm_held

def work(pipe):
    init_worker(ends_on_sigterm=sys.argv[1] == "ends")
    pipe.send("ready")
    while True:
        pipe.send(pipe.recv())

context = multiprocessing.get_context("fork")
parents, workers = context.Pipe()
worker = context.Process(target=work, args=(workers,), daemon=True)
with sigterm_held():
    worker.start()
workers.close()
parents.recv()
print(worker.pid, flush=True)
sys.stdin.readline()  # the signal was sent
try:
    parents.send("alive")
    parents.poll(20)
    print(parents.recv(), flush=True)
except (EOFError, OSError):
    print("ended", flush=True)
"""


@pytest.mark.parametrize("choice, state", [("ends", "ended"), ("stays", "alive")])
def test_a_worker_leaves_sigterm_to_its_parent_if_it_should_and_ends_with_it(choice, state):
    """Python ends daemonic processes by SIGTERM when it exits, and waits for them."""
    command = [sys.executable, "-c", WORKER_SCRIPT, choice]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        worker = int(process.stdout.readline())
        os.kill(worker, signal.SIGTERM)
        out, err = process.communicate("sent\n", timeout=20)
    assert (process.returncode, out, err) == (0, f"{state}\n", "")
    assert not Path(f"/proc/{worker}").exists()


def test_sigterm_at_the_end_of_an_import_ends_the_process_soon_after():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", IMPORT_SCRIPT]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (TERMINATED, "")
