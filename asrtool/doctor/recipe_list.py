"""What a recipe says about itself: `run.sh --list true` with the options of the last run."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from asrtool.doctor.findings import Finding, Severity

LIST_SECONDS = 600.0  # limit: the settings of stage 0 are checksums of a whole corpus folder, minutes on a file server
FOLDERS = {"lang", "exp", "start", "conf"}  # that the driver names
MAX_INPUTS = 100_000  # files whose times are compared: a corpus folder may have millions
OWN_FILES = (
    "exp/*",
    "data/fbank/*",
    "data/aligned/*",
    "data/lang*",
    "data/ablations*",
    "data/scored_sets",
    "data/*.jsonl.gz",
)
OPTIONS_FILE = ".done/options"  # in the work folder: the options of the last run, one word a line


@dataclass(frozen=True)
class Stage:
    """A stage: its state is done, changed (done with other settings), interrupted or missing (not run)."""

    number: int
    state: str
    title: str
    outputs: str  # what it wrote, as its marker says


@dataclass
class RecipeRun:
    """The folders and the stages of a recipe in its work folder, with the options of the last run."""

    recipe: Path
    work: Path
    options: list[str]
    folders: dict[str, Path] = field(default_factory=dict)  # lang, exp, start, conf; absolute
    stages: list[Stage] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)  # KEY=VALUE of the configuration, as trainings get them
    inputs: list[tuple[int, Path]] = field(default_factory=list)  # stage, file or folder that it depends on
    last_stage: int = 8  # that a run without --stop-stage reaches

    def command(self, *more: str) -> str:
        """Returns the command that runs the recipe with the same options, and `more`."""
        work = [] if self.work == self.recipe else ["--work", str(self.work)]
        return shlex.join(["bash", str(self.recipe / "run.sh"), *self.options, *work, *more])

    def again(self, number: int) -> str:
        """Returns the command that runs a stage again although it is done, and the later ones after it."""
        return self.command("--stage", str(number), "--stop-stage", str(number), "--force", "true")

    def until(self, number: int) -> str:
        """Returns the command that runs the recipe up to a stage, if its default does not reach further."""
        return self.command(*(["--stop-stage", str(number)] if number > self.last_stage else []))

    def marker(self, number: int) -> Path:
        """Returns the path of the file that shows that a stage was completed, as local/stages.sh names it."""
        folder = "" if number < 2 else self.folders["lang" if number == 2 else "exp"].name
        return self.work / ".done" / folder / f"stage{number}"

    def is_done(self, number: int) -> bool:
        """Returns True if a stage was completed, also with other settings."""
        return any(stage.number == number and stage.state in ("done", "changed") for stage in self.stages)


def last_options(work: Path) -> list[str]:
    """Returns the options of the last run in a work folder; empty if there was none."""
    path = work / OPTIONS_FILE
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()  # names of files may be any bytes


def list_recipe(recipe: Path, work: Path, options: Sequence[str]) -> tuple[RecipeRun, Finding | None]:
    """Returns what the recipe lists, and an error if it cannot be asked; `run.sh` of the recipe is executed."""
    run = RecipeRun(recipe, work, list(options))
    command = ["bash", str(recipe / "run.sh"), *options, "--work", str(work), "--list", "true"]
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # local/path.sh uses this Python
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # names of files may be any bytes
            timeout=LIST_SECONDS,
            check=False,
            env={**os.environ, "PATH": path},
        )
    except subprocess.TimeoutExpired:
        cause = f"`run.sh --list true` has not ended after {LIST_SECONDS:.0f} s"
        return run, Finding("recipe-does-not-list", Severity.ERROR, str(recipe), cause, shlex.join(command))
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        cause = f"`run.sh --list true` fails: {lines[0] if lines else f'exit status {done.returncode}'}"
        return run, Finding("recipe-does-not-list", Severity.ERROR, str(recipe), cause, shlex.join(command))
    _parse(run, done.stdout)
    if not run.stages or not run.folders.keys() >= FOLDERS:
        cause = "run.sh does not know --list: it does not use the driver local/recipe.sh"
        remedy = "write it as egs/digits/run.sh is written (docs/recipes.md)"
        return run, Finding("recipe-without-driver", Severity.ERROR, str(recipe), cause, remedy)
    return run, None


def _parse(run: RecipeRun, output: str) -> None:
    for line in output.splitlines():
        kind, *fields = line.split("\t")
        if kind == "folder" and len(fields) == 2:
            run.folders[fields[0]] = run.work / fields[1]
        elif kind == "override" and "=" in fields[0]:
            run.overrides.append("\t".join(fields))
        elif kind == "input" and len(fields) == 2 and re.fullmatch("[0-9]", fields[0]):
            run.inputs.append((int(fields[0]), Path(fields[1])))
        elif kind == "stop" and re.fullmatch("[0-9]", fields[0]):
            run.last_stage = int(fields[0])
        elif kind == "stage" and len(fields) == 4 and re.fullmatch("[0-9]", fields[0]):
            run.stages.append(Stage(int(fields[0]), *fields[1:]))


def check_stages(run: RecipeRun) -> Iterator[Finding]:
    """Yields findings about stages that did not complete, were run with other settings, or are still to run."""
    for stage in run.stages:
        subject = f"stage {stage.number} ({stage.title})"
        if stage.state == "interrupted":
            cause = "it was begun and is not complete: it is running, or it failed or was interrupted"
            yield Finding("interrupted-stage", Severity.WARNING, subject, cause, run.until(stage.number))
    yield from _changed(run)
    missing = [stage for stage in run.stages if stage.state == "missing" and stage.number <= run.last_stage]
    if missing:
        numbers = ", ".join(str(stage.number) for stage in missing)
        examples = tuple(f"stage {stage.number}: {stage.title}" for stage in missing)
        remedy = run.command("--stop-stage", str(missing[-1].number))
        cause = f"stages {numbers} have not run"
        yield Finding("stages-to-run", Severity.NOTE, str(run.recipe), cause, remedy, len(missing), examples)


def _changed(run: RecipeRun) -> Iterator[Finding]:
    """Yields a warning that names the first changed stage and the newer files among its input, and the later stages."""
    changed = [stage for stage in run.stages if stage.state == "changed"]
    if not changed:
        return
    first, *later = changed
    files = newer_inputs(run, first.number)
    cause = "its settings, its configuration or its input have changed since it was completed"
    if files:
        cause = "files that it depends on have changed since it was completed"
    if later:
        cause += f"; stages {', '.join(str(stage.number) for stage in later)} depend on it, and will run again, too"
    subject = f"stage {first.number} ({first.title})"
    remedy = run.until(changed[-1].number)
    yield Finding("changed-stage", Severity.WARNING, subject, cause, remedy, max(1, len(files)), tuple(files[:10]))


def newer_inputs(run: RecipeRun, number: int) -> list[str]:
    """Returns the files among the input of a stage that are newer than its marker, of the first MAX_INPUTS ones.

    The list is empty if an option has changed, or if the times of the files do not tell.
    """
    marker = run.marker(number)
    if not marker.is_file():
        return []
    completed = marker.stat().st_mtime_ns
    files = (file for stage, path in run.inputs if stage == number for file in _files(path) if not _is_own(run, file))
    return sorted({str(path) for path in islice(files, MAX_INPUTS) if _modified(path) > completed})


def _files(path: Path) -> Iterator[Path]:
    """Yields a file, or the files in a folder but the hidden ones, as the driver counts them."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _is_own(run: RecipeRun, path: Path) -> bool:
    """Returns True for the files that the recipe itself writes into the work folder, which do not count."""
    if not path.is_relative_to(run.work):
        return False
    name = path.relative_to(run.work).as_posix()
    return any(fnmatch(name, pattern) for pattern in OWN_FILES)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
