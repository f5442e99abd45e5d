"""A tiny system that was trained, decoded, scored and calibrated; copies of it, for planting faults."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asrtool.checkpoint import load_checkpoint, save_checkpoint
from asrtool.doctor.findings import Finding, Report, Severity
from asrtool.doctor.system import check_system


def codes(report: Report) -> list[str]:
    """Returns the codes of the errors and warnings of a report."""
    return [finding.code for finding in report.findings if finding.severity != Severity.NOTE]


def the_finding(report: Report, code: str) -> Finding:
    """Returns the one finding with this code; fails if there are others that are not notes."""
    assert codes(report) == [code], report.findings
    return next(finding for finding in report.findings if finding.code == code)


def copy_system(system: Path, folder: Path) -> Path:
    """Returns a copy with the times of all files, and with best.pt as a hard link, as in the original."""
    copy = Path(shutil.copytree(system, folder / "exp"))
    best = (system / "checkpoints/best.pt").stat().st_ino
    for path in (system / "checkpoints").glob("step-*.pt"):
        if path.stat().st_ino == best:
            (copy / "checkpoints/best.pt").unlink()
            os.link(copy / "checkpoints" / path.name, copy / "checkpoints/best.pt")
    return copy


def change_checkpoint(path: Path, change: Callable[[dict], object]) -> None:
    """Applies `change` to the state in a checkpoint; the time of the file stays."""
    status = path.stat()
    state = load_checkpoint(path)
    change(state)
    save_checkpoint(path, state)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch(path: Path) -> None:
    """Makes a file newer than all others."""
    later = time.time() + 10
    os.utime(path, (later, later))


def require_clean(system: Path) -> None:
    """Fails if a system has findings already, before one is planted."""
    report = check_system(system)
    if codes(report):
        pytest.fail(f"findings in an intact system: {report.findings}")
