"""The progress of loops and of amounts: a bar on a terminal, lines in a log."""

import io
import sys

import pytest

from asrtool import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that each call moves by six seconds."""
    times = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(times)))


@pytest.mark.parametrize("total, expected", [(100.0, "20/100"), (None, "20")])
def test_a_meter_writes_lines_into_a_log(clock, capsys, total, expected):
    with progress.progress_meter("reading", total, "s of audio") as add:
        for _ in range(4):
            add(10.0)
    lines = [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == f"reading: {expected} s of audio, 1.7/s"
    assert len(lines) == 2


@pytest.mark.parametrize("total, expected", [(100.0, "reading:   0%|"), (None, "reading: 0 s of audio")])
def test_a_meter_is_a_bar_on_a_terminal(monkeypatch, total, expected):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.progress_meter("reading", total, "s of audio") as add:
        add(10.0)
    assert expected in terminal.getvalue()
