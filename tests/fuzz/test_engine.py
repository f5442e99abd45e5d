"""The engine reports faults that were put into a reader."""

import os
import signal
import subprocess
from pathlib import Path
from random import Random

import pytest

from asrtool.errors import AsrtoolError, DataError, UserError
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.engine import fuzz
from tests.fuzz.mutations import FORMATS, change

VALID = b'{"a": 1, "b": [1.5, "x"]}\n'


def driver(fault) -> Driver:
    """Returns a reader with a `fault` in every input but the valid one."""

    def seeds(folder: Path) -> list[Path]:
        (folder / "x.json").write_bytes(VALID)
        return [folder / "x.json"]

    return Driver("x", seeds, lambda path: None if path.read_bytes() == VALID else fault())


def raise_(error: BaseException) -> None:
    """Raises `error`, as an expression."""
    raise error


@pytest.mark.parametrize(
    "fault, kind",
    [
        (lambda: raise_(ValueError("x")), "ValueError: outside of asrtool"),
        (lambda: raise_(Wrong("x")), "Wrong"),
        (lambda: raise_(SystemExit(70)), "SystemExit"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "ends by signal 11"),
        (lambda: os._exit(3), "ends with 3"),
        (lambda: os.system("true"), "Stopped"),
        (lambda: subprocess.run(["true"]), "Stopped"),
        (lambda: Path("PWNED").write_text(""), "a shell has run"),
        (lambda: bytearray(600 << 20), "takes 500 MB and more"),
        (lambda: raise_(AsrtoolError("one\ntwo")), "a message of several lines"),
        (lambda: raise_(AsrtoolError("x" * 5000)), "a message of more than 2000 characters"),
        (lambda: raise_(UserError("")), "a message without words"),
    ],
)
def test_a_fault_is_a_finding_and_its_input_is_kept(fault, kind, tmp_path):
    result = fuzz(driver(fault), 1.5, tmp_path / "work", tmp_path / "kept")
    assert len(result.findings) == 1
    ((found, path),) = result.findings.items()
    assert found.startswith(kind)
    assert path.read_bytes() != VALID and str(path) in (path.parent / "finding.txt").read_text()


def test_endless_computing_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.child.SECONDS", 0.2)
    result = fuzz(driver(lambda: [None for _ in iter(int, 1)]), 1.5, tmp_path / "work", tmp_path / "kept")
    assert [kind for kind in result.findings if kind.startswith("Stopped")]


def test_endless_waiting_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.engine.WAIT", 0.5)
    result = fuzz(driver(lambda: signal.pause()), 1.5, tmp_path / "work", tmp_path / "kept")
    assert "hangs for 0.5 s" in result.findings


def test_a_refused_valid_file_is_a_finding(tmp_path):
    broken = Driver("x", driver(None).seeds, lambda path: raise_(KeyError(path)))
    result = fuzz(broken, 0.1, tmp_path / "work", tmp_path / "kept")
    assert any(kind.startswith("a valid file: KeyError") for kind in result.findings)


def test_refusals_are_not_findings(tmp_path):
    for error in (UserError("no"), DataError("2 of 3", ["x: bad", "y: bad"])):
        refusing = driver(lambda error=error: raise_(error))
        result = fuzz(refusing, 3.0, tmp_path / type(error).__name__, tmp_path / "kept")
        assert result.inputs > 10 and not result.findings


@pytest.mark.parametrize("name", [f"x.{suffix}" for suffix in FORMATS] + ["x.txt"])
def test_changes_depend_on_the_seed_alone_and_differ(name):
    inputs = [change(name, VALID, Random(f"x 1 {number}")) for number in range(50)]
    assert inputs == [change(name, VALID, Random(f"x 1 {number}")) for number in range(50)]
    assert len({*inputs}) > 20 and inputs.count(VALID) < 20
