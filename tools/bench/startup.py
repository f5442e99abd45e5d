"""CPU time until `--help` answers, of commands that need no model, and of what `train` and `decode` import.

Measured, from the start of the process to its end, with files in the page cache after the warm-up:

    COMMAND --help   the program and each of its commands; an answer within 0.3 s feels immediate
    COMMAND          preparing a table of eight files, creating units, a lexicon and an n-gram, and scoring; with inputs
                     this small it is the time to start, but for `score`, which scores --utterances utterances
    import ...       what `asrtool train` and `asrtool decode` import before they read anything

Baselines: `python -c pass` is the minimum of Python; `import click` of any click program; `import torch` of whatever
computes with torch. All are started in the same way, without output. The facts are CPU seconds, which depend less on
other processes than wall time does, with their ratio to the first and the last baseline.

It also checks that no `--help` imports a package that takes seconds (torch, lhotse, pydantic); otherwise it lists them
and exits with status 1. tests/cli/test_imports.py checks the same of the other commands.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import soundfile
from common import CHECKOUT, Report, Run, parse, parser

HEAVY = ("torch", "lhotse", "pydantic")
HELP_AIM = 0.3  # seconds
COMMAND_AIM = 0.5  # CPU seconds of a command that needs no model
SCORE_AIM = 2.0  # CPU seconds of `asrtool score` of 10,000 utterances
IMPORT_AIM = 2.0  # CPU seconds
VOCABULARY = [f"WORD{number}" for number in range(2000)]
IMPORTED = f"""
import sys
from asrtool.cli import main
try:
    main()
except SystemExit:
    pass
print("heavy:", *(name for name in {HEAVY} if name in sys.modules))
"""
COMMANDS = (
    ("prepare table", "table.csv all.jsonl.gz --audio-root ."),
    ("lexicon", "all.jsonl.gz lexicon.txt --unknown characters"),
    ("tokenizer", "all.jsonl.gz tokenizer.json --type phone --lexicon lexicon.txt"),
    ("lm train", "all.jsonl.gz bigram.arpa.gz --order 2"),
    ("lm perplexity", "bigram.arpa.gz all.jsonl.gz"),
    ("graph", "graph --tokenizer tokenizer.json --lexicon lexicon.txt --lm bigram.arpa.gz"),
    ("score", "result"),
)
MODULES = {"train": "asrtool.training.train", "decode": "asrtool.decoding.decode"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the words of every command: () for the program itself, ("prepare", "table") for a command of a group."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def start(*words: str, folder: Path = CHECKOUT) -> None:
    """Runs Python with the arguments `words` in a folder until its end, with asrtool from this checkout."""
    import_path = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); sys.argv[1:] = {list(words[2:])!r}\n"
    if words[:2] == ("-m", "asrtool"):
        words = ("-c", f"{import_path}from asrtool.cli import main; main()")
    result = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{words} ended with status {result.returncode}: {result.stderr[-500:]}")


def heavy_imports(path: tuple[str, ...]) -> list[str]:
    """Returns which of HEAVY are loaded after `--help` of a command."""
    words = [sys.executable, "-c", IMPORTED, *path, "--help"]
    result = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].split()[1:]


def write_inputs(folder: Path, utterances: int) -> None:
    """Writes a table of eight audio files, and a result of `utterances` utterances with an error in eight words."""
    draw = random.Random(1)
    rows = ["id,audio,text"]
    for number in range(8):
        noise = np.random.default_rng(number).normal(0, 0.1, 16000).astype(np.float32)
        soundfile.write(folder / f"u{number}.wav", noise, 16000)
        rows.append(f"u{number},u{number}.wav,{' '.join(draw.choices(VOCABULARY, k=8))}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "result").mkdir()
    with open(folder / "result/hyps.jsonl", "w") as file:
        for number in range(utterances):
            ref = draw.choices(VOCABULARY, k=draw.randint(5, 25))
            hyp = [word if draw.random() > 1 / 8 else draw.choice(VOCABULARY) for word in ref]
            row = {"id": f"u{number}", "ref": " ".join(ref), "hyp": " ".join(hyp), "speaker": f"s{number % 100}"}
            file.write(json.dumps(row) + "\n")


def main() -> int:
    """Measures, checks and reports."""
    from asrtool.cli import cli

    command_line = parser(__doc__, repeats=7)
    command_line.add_argument("--commands", type=int, help="number of commands to measure [default: all]")
    command_line.add_argument("--utterances", type=int, default=10_000, help="utterances to score [default: 10000]")
    arguments = parse(command_line, commands=1, utterances=100)
    chosen = list(commands(cli))[: arguments.commands]
    report = Report("startup", arguments, "starts")
    for path in chosen:
        _compare(report, " ".join([*path, "--help"]), "-m", "asrtool", *path, "--help")
    slowest = max(row["seconds"] for row in report.values["rows"] if row["what"] == "asrtool")
    report.aim("slowest --help, seconds", slowest, HELP_AIM, at_most=True)
    _report_commands(report, arguments.utterances)
    found = {" ".join(path) or "asrtool": heavy for path in chosen if (heavy := heavy_imports(path))}
    report.fact("heavy imports", found, f"of {', '.join(HEAVY)}; none is right")
    report.finish()
    return 1 if found else 0


def _report_commands(report: Report, utterances: int) -> None:
    cpu = {}
    torch = [Run("import torch", lambda: start("-c", "import torch")), Run("pass", lambda: start("-c", "pass"))]
    report.compare("baselines", torch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, utterances)
        for command, options in COMMANDS:
            _compare(report, command, "-m", "asrtool", *command.split(), *options.split(), folder=folder)
            cpu[command] = report.rate(command, "cpu_seconds")
    for command, module in MODULES.items():
        case = f"import, {command}"
        _compare(report, case, "-c", f"import {module}")
        cpu[case] = report.rate(case, "cpu_seconds")
    least = report.rate("baselines", "cpu_seconds", "pass")
    most = report.rate("baselines", "cpu_seconds", "import torch")
    for case, seconds in cpu.items():
        ratios = f"{seconds / least:.0f} times `python -c pass`, {seconds / most:.2f} times `import torch`"
        report.fact(f"CPU seconds of {case}", seconds, ratios)
    light = max(cpu[command] for command, _ in COMMANDS if command not in ("graph", "score"))  # which compute
    report.aim("slowest start of a command without a model, CPU seconds", light, COMMAND_AIM, at_most=True)
    report.aim(f"score of {utterances:,} utterances, CPU seconds", cpu["score"], SCORE_AIM, at_most=True)
    slowest = max(seconds for case, seconds in cpu.items() if case.startswith("import"))
    report.aim("slowest import, CPU seconds", slowest, IMPORT_AIM, at_most=True)


def _compare(report: Report, case: str, *words: str, folder: Path = CHECKOUT) -> None:
    runs = [
        Run("asrtool", lambda: start(*words, folder=folder)),
        Run("python -c pass", lambda: start("-c", "pass")),
        Run("python -c 'import click'", lambda: start("-c", "import click")),
    ]
    report.compare(case, runs)


if __name__ == "__main__":
    sys.exit(main())
