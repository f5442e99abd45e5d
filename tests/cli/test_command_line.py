"""What all commands share: fast help, one line for a usage error, all data errors, exit statuses, log levels."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import asrtool
from asrtool.cli import add_common_options, cli
from asrtool.errors import DataError, UserError

ROOT = str(Path(asrtool.__file__).parents[1])


def commands(group, path=()):
    """The path of every command, groups included: (), ("train",), ("prepare", "table") ..."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = list(commands(cli))
LEAVES = [path for path in COMMANDS if not any(other[: len(path)] == path != other for other in COMMANDS)]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_explains_the_command(asr, path):
    status, out, err = asr(*path, "--help")
    assert status == 0 and err == "" and out.startswith(" ".join(("Usage: asrtool", *path)))
    if path in LEAVES:
        assert any(line.strip().startswith(" ".join(("asrtool", *path))) for line in out.splitlines())


def test_the_help_of_all_commands_imports_nothing_heavy():
    script = f"""
import json, sys
from asrtool.cli import main
for path in {COMMANDS!r}:
    sys.argv = ["asrtool", *path, "--help"]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
print(json.dumps([name for name in ("torch", "lhotse", "pydantic", "numpy", "matplotlib") if name in sys.modules]))
"""
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_python_dash_m_is_the_command():
    arguments = [sys.executable, "-m", "asrtool", "--version"]
    done = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True, text=True, check=True)
    assert asrtool.__version__ in done.stdout


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["train", "--no-such-option"], "No such option"),
        (["trian"], "No such command 'trian'"),
        (["prepare", "tabel"], "No such command 'tabel'"),
        (["train", "--exp", "x"], "Missing argument 'CONFIG'"),
        (["prepare", "yesno", "a", "b"], "Missing option '--part'"),
        (["prepare", "yesno", "a", "b", "--part", "dev"], "'dev' is not one of"),
        (["decode", "exp", "cuts", "--beam", "0"], "--beam"),
        (["features", "a", "b", "--speeds", "1.0,fast"], "--speeds"),
        (["train", "none.yaml", "--exp", "x"], "none.yaml"),
        (["info", "none.yaml"], "none.yaml"),
        (["decode", "none", "cuts.jsonl.gz"], "none is not an experiment"),
        (["score", "none"], "hypotheses not found"),
        (["prepare", "table", "none.csv", "out.jsonl.gz"], "table not found: none.csv"),
        (["tokenizer", "none.jsonl.gz", "out.json"], "none.jsonl.gz"),
        (["features", "none.jsonl.gz", "out.jsonl.gz"], "none.jsonl.gz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_is_one_line_and_status_2(asr, monkeypatch, tmp_path, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    status, out, err = asr(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("asrtool: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert complaint in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [(), ("prepare",)], ids=" ".join)
def test_a_group_without_a_command_shows_its_help(asr, path):
    status, out, err = asr(*path)
    assert "Usage: " in out + err and "Commands:" in out + err and "error:" not in out + err
    assert status in (0, 2)


def test_data_errors_are_listed_completely_with_status_1(asr, tmp_path, write_audio):
    write_audio(tmp_path / "good.wav")
    write_audio(tmp_path / "slow.wav", rate=8000)
    (tmp_path / "t.csv").write_text("audio,text\ngood.wav,one\nslow.wav,two\nnone.wav,three\n", encoding="utf-8")
    status, out, err = asr("prepare", "table", tmp_path / "t.csv", tmp_path / "out.jsonl.gz")
    assert (status, out) == (1, "") and "Traceback" not in err
    assert "slow.wav" in err and "none.wav" in err and "good.wav" not in err
    assert err.splitlines()[-1].startswith("asrtool: error: 2 of 3 utterances are bad")
    assert not (tmp_path / "out.jsonl.gz").exists()


@pytest.fixture
def failing(monkeypatch):
    """failing(error): makes `asrtool fail` raise the error."""

    def register(error):
        @click.command()
        def fail():
            raise error

        add_common_options(fail)
        monkeypatch.setitem(cli.commands, "fail", fail)

    return register


@pytest.mark.parametrize(
    "error, status, lines",
    [
        (UserError("wrong"), 2, ["asrtool: error: wrong"]),
        (DataError("2 bad", ["a: short", "b: long"]), 1, ["  a: short", "  b: long", "asrtool: error: 2 bad"]),
    ],
)
def test_errors_become_lines_and_statuses(asr, failing, error, status, lines):
    failing(error)
    assert asr("fail") == (status, "", "\n".join(lines) + "\n")


def test_ctrl_c_is_status_130(asr, failing):
    failing(KeyboardInterrupt())
    status, _, err = asr("fail")
    assert status == 130 and err.strip().startswith("asrtool: error: interrupted") and len(err.split("\n")) <= 3


def test_a_bug_is_one_line_that_names_debug(asr, failing):
    failing(ZeroDivisionError("of all things"))
    status, _, err = asr("fail")
    assert status not in (0, 1, 2) and err.count("\n") == 1 and "of all things" in err and "--debug" in err


def test_a_file_that_may_not_be_written_is_one_line(asr, failing):
    failing(PermissionError(13, "Permission denied", "/root/x"))
    status, _, err = asr("fail")
    assert status == 2 and err == "asrtool: error: Permission denied: /root/x\n"


@pytest.mark.parametrize("error", [UserError("wrong"), DataError("bad", ["x"]), ZeroDivisionError("of all things")])
def test_debug_shows_the_traceback(asr, failing, error):
    failing(error)
    assert "Traceback" not in asr("fail")[2]
    for arguments in (["--debug", "fail"], ["fail", "--debug"]):
        status, _, err = asr(*arguments)
        assert status and "Traceback (most recent call last)" in err


@pytest.mark.parametrize(
    "arguments, lines",
    [
        (["log"], ["a line", "WARNING: a warning"]),
        (["--quiet", "log"], ["WARNING: a warning"]),
        (["log", "--quiet"], ["WARNING: a warning"]),
        (["--verbose", "log"], ["a detail", "a line", "WARNING: a warning"]),
        (["log", "--verbose"], ["a detail", "a line", "WARNING: a warning"]),
    ],
    ids=" ".join,
)
def test_quiet_and_verbose_may_stand_before_or_after_the_command(asr, monkeypatch, arguments, lines):
    @click.command()
    def log():
        logger = logging.getLogger("asrtool.test")
        logger.debug("a detail")
        logger.info("a line")
        logger.warning("a warning")

    add_common_options(log)
    monkeypatch.setitem(cli.commands, "log", log)
    _, _, err = asr(*arguments)
    assert [line.split(" ", 2)[2] for line in err.splitlines()] == lines


def test_from_a_table_to_a_word_error_rate(asr, tmp_path, corpus, tiny_config, monkeypatch):
    """All commands in the usual order, on stored features."""
    monkeypatch.chdir(tmp_path)
    texts = {path.stem: path for path in corpus.parent.glob("*.flac")}
    lines = [f"{path},{'one two' if name[0] == 'a' else 'two three'},{name[0]}" for name, path in texts.items()]
    Path("mine.csv").write_text("\n".join(["audio,text,speaker", *lines]), encoding="utf-8")
    status, out, _ = asr("prepare", "table", "mine.csv", "data/train.jsonl.gz", "--case", "upper")
    assert status == 0 and out.startswith("data/train.jsonl.gz: 24 utterances, 0.01 h")
    status, out, _ = asr("features", "data/train.jsonl.gz", "data/fbank.jsonl.gz", "--num-bins", 20, "--jobs", 1)
    assert status == 0 and "24 utterances" in out
    status, out, _ = asr("tokenizer", "data/train.jsonl.gz", "data/lang/tokenizer.json", "--type", "word")
    assert (status, out) == (0, "data/lang/tokenizer.json: 4 units (word)\n")

    config = tiny_config(features={"source": "stored"}, model={"normalise": "none"}).model_dump(mode="json")
    config["data"] |= {"train": "data/fbank.jsonl.gz", "dev": "data/fbank.jsonl.gz"}
    config["data"]["tokenizer"] = "data/lang/tokenizer.json"
    Path("tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    status, out, _ = asr("info", "tiny.yaml")
    assert status == 0 and "parameters" in out
    train = ["train", "tiny.yaml", "--exp", "exp/tiny", "--device", "cpu", "--set", "training.max_steps=4"]
    status, _, err = asr(*train)
    assert status == 0 and "finished at step 4" in err
    assert Path("exp/tiny/loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    status, _, err = asr(*train)
    assert status == 2 and "already holds a training; give --resume" in err and err.count("\n") == 1

    methods = ["--method", "greedy", "--method", "prefix"]
    status, out, _ = asr("decode", "exp/tiny", "data/fbank.jsonl.gz", *methods, "--workers", 0, "--device", "cpu")
    assert status == 0 and out.count("24 utterances") == out.count("RTF") == 2
    status, out, _ = asr("score", "exp/tiny/decode/fbank/greedy", "exp/tiny/decode/fbank/prefix")
    assert status == 0 and len(out.splitlines()) == 2
    assert all(line.startswith("fbank WER ") and " % [" in line for line in out.splitlines())

    parameters = json.loads(Path("exp/tiny/log.jsonl").read_text(encoding="utf-8").splitlines()[0])["parameters"]
    status, out, _ = asr("report", "exp/tiny")
    assert status == 0 and f"| {parameters / 1e6:.2f} M |" in out
