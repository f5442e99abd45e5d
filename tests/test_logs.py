"""Log lines: their time, rank and level, and who sees them."""

import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asrtool
from asrtool.distributed import Ranks, rank_log
from asrtool.logs import LineFormatter, log_to_stderr, printable, shows_bars
from asrtool.progress import progress

ROOT = str(Path(asrtool.__file__).parents[1])
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
logger = logging.getLogger("asrtool.data.anything")


@pytest.fixture(autouse=True)
def level_of_the_command_line():
    """Log lines go to stderr from INFO on, and do so again after the test."""
    log_to_stderr()
    yield
    log_to_stderr()


def format_line(message, level=logging.INFO):
    return LineFormatter().format(logging.LogRecord("asrtool.x", level, __file__, 1, message, None, None))


def test_a_line_begins_with_the_time(capsys):
    logger.info("reading cuts")
    printed = capsys.readouterr()
    assert re.fullmatch(rf"{TIME} reading cuts\n", printed.err) and printed.out == ""


def test_a_warning_has_its_level(capsys):
    logger.warning("no bf16")
    assert re.fullmatch(rf"{TIME} WARNING: no bf16\n", capsys.readouterr().err)


def test_with_several_processes_a_line_has_the_rank(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert re.fullmatch(rf"{TIME} rank 3: step 1", format_line("step 1"))
    assert re.fullmatch(rf"{TIME} rank 3: WARNING: late", format_line("late", logging.WARNING))


def test_under_torchrun_one_process_has_no_rank_in_its_lines(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert re.fullmatch(rf"{TIME} step 1", format_line("step 1"))


@pytest.mark.parametrize(
    "level, shown",
    [
        (logging.WARNING, ["a warning"]),
        (logging.INFO, ["news", "a warning"]),
        (logging.DEBUG, ["detail", "news", "a warning"]),
    ],
    ids=["quiet", "usual", "verbose"],
)
def test_the_level_decides_which_lines_are_shown(capsys, level, shown):
    log_to_stderr(level)
    logger.debug("detail")
    logger.info("news")
    logger.warning("a warning")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(rf"{TIME} (WARNING: )?", "", line) for line in lines] == shown


def test_a_second_call_does_not_show_lines_twice(capsys):
    log_to_stderr()
    log_to_stderr()
    logger.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_control_characters_are_escaped_but_line_ends_and_tabs_are_not():
    assert printable("a\x1b[31m\x00\x7f\x9b\r") == "a\\x1b[31m\\x00\\x7f\\x9b\\x0d"
    assert printable("two\nlines\tand é 語") == "two\nlines\tand é 語"
    assert format_line("cut \x1b]0;title\x07").endswith(" cut \\x1b]0;title\\x07")


def test_a_traceback_follows_its_line_without_control_characters():
    try:
        raise ValueError("bad \x1b name")
    except ValueError:
        record = logging.LogRecord("asrtool.x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    first, *_, last = LineFormatter().format(record).splitlines()
    assert first.endswith(" ERROR: failed") and last == "ValueError: bad \\x1b name"


@pytest.mark.parametrize("how", ["closed", "none", "broken"])
def test_a_line_for_a_closed_stderr_is_dropped(monkeypatch, how, capsys):
    read, write = os.pipe()
    os.close(read)
    streams = {"closed": io.StringIO(), "none": None, "broken": os.fdopen(write, "w", buffering=1)}
    streams["closed"].close()
    monkeypatch.setattr(sys, "stderr", streams[how])
    logger.info("nobody reads this")
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().out == ""
    monkeypatch.undo()


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_bars_are_shown_on_a_terminal_only_and_not_with_quiet(monkeypatch):
    assert not shows_bars()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert shows_bars()
    log_to_stderr(logging.WARNING)
    assert not shows_bars()


def test_on_a_terminal_progress_is_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(progress(range(3), "counting", 3, "things")) == [0, 1, 2]
    assert "counting" in terminal.getvalue() and "things" in terminal.getvalue()


def test_elsewhere_progress_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr("asrtool.progress.LOG_SECONDS", -1.0)
    assert list(progress("ab", "counting", 2, "letters")) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{TIME} counting: 1/2 letters, .*/s", first) and "counting: 2/2 letters" in second


LIBRARY = """
import logging
import asrtool.progress
logger = logging.getLogger("asrtool.progress")
{configure}
logger.info("news")
logger.warning("a warning")
"""


@pytest.mark.parametrize(
    "configure, shown",
    [
        ("", "a warning\n"),
        ("logging.getLogger('asrtool').setLevel(logging.ERROR)", ""),
        ("logging.getLogger('asrtool').addHandler(logging.NullHandler())", ""),
        (
            "logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')",
            "asrtool.progress news\nasrtool.progress a warning\n",
        ),
    ],
    ids=["nothing configured", "level", "null handler", "own format"],
)
def test_a_program_that_uses_asrtool_as_a_library_decides_what_is_shown(configure, shown):
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY.format(configure=configure)],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", shown)


RANK = """
import logging, os, sys
from pathlib import Path
from asrtool.distributed import rank_log, this_rank
from asrtool.logs import log_to_stderr
log_to_stderr()
logger = logging.getLogger("asrtool.x")
logger.info("before")
with rank_log(this_rank(), Path(sys.argv[1])):
    logger.info("inside")
    if os.fork() == 0:
        logger.warning("from a worker process")
        os._exit(0)
    os.wait()
    os.write(2, b"from a library in C\\n")
    if len(sys.argv) > 2:
        raise SystemExit("its own error")
"""


def run_rank(folder, rank, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", RANK, str(folder), *arguments],
        env=os.environ | {"PYTHONPATH": ROOT, "RANK": str(rank), "WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
    )
    return done.stderr.splitlines()


def test_other_ranks_write_to_a_file_with_time_and_rank_also_from_worker_processes(tmp_path):
    (line,) = run_rank(tmp_path / "logs", 1)
    assert re.fullmatch(rf"{TIME} rank 1: before", line)
    inside, worker, library = (tmp_path / "logs/rank-1.log").read_text().splitlines()
    assert re.fullmatch(rf"{TIME} rank 1: inside", inside)
    assert re.fullmatch(rf"{TIME} rank 1: WARNING: from a worker process", worker)
    assert library == "from a library in C"


def test_the_first_rank_writes_to_stderr(tmp_path):
    assert [re.sub(TIME, "TIME", line) for line in run_rank(tmp_path / "logs", 0)] == [
        "TIME rank 0: before",
        "TIME rank 0: inside",
        "TIME rank 0: WARNING: from a worker process",
        "from a library in C",
    ]
    assert not (tmp_path / "logs").exists()


def test_a_rank_reports_its_own_error_on_stderr(tmp_path):
    assert run_rank(tmp_path, 1, "fail")[-1] == "its own error"


def test_for_one_process_there_is_no_log_of_ranks(tmp_path):
    with rank_log(Ranks(), tmp_path / "logs"):
        pass
    assert not (tmp_path / "logs").exists()
