"""Drivers of the readers of results, and of the values on a command line."""

import math
from pathlib import Path

import click

from asrtool.cli import cli
from asrtool.decoding.partial_results import PartialResults
from asrtool.distributed import this_rank
from asrtool.files import new_folder
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.material import TEXT, asrtool, build

ROWS = [
    {"id": f"u{n}", "speaker": "xy"[n % 2], "ref": text, "hyp": "one two", "score": -1.5, "units": [["one", 0.1]]}
    for n, text in enumerate(TEXT)
]


def _hypothesis_seeds(folder: Path) -> list[Path]:
    return [material.write(folder / "hyps.jsonl", ROWS), material.write(folder / "decode.json", {"set": "test"})]


def _compare_seeds(folder: Path) -> list[Path]:
    material.write(folder / "other" / "hyps.jsonl", ROWS)
    return [material.write(folder / "this" / "hyps.jsonl", ROWS)]


def _report_seeds(folder: Path) -> list[Path]:
    """An experiment that was decoded and scored, with the log of a training."""
    exp = material.experiment()
    material.copy(folder / "exp" / "checkpoints", exp / "checkpoints" / "best.pt")
    files = material.copy(folder / "exp", exp / "config.yaml", exp / "tokenizer.json")
    build("decode", folder / "exp", material.manifest(), "--device", "cpu", "--workers", 0)
    (decoded,) = (folder / "exp").glob("decode/*/greedy")
    build("score", decoded)
    numbers = {"loss": 2.5, "seconds": 10.0, "times_real_time": 20.0, "peak_memory_gb": 1.0, "device_hours": 0.1}
    events = [{"event": "start", "step": 0, "parameters": 1000, "device": "cpu", "commands": ["asrtool train"]}]
    events += [{"event": kind, "step": step, **numbers} for step in (2, 4) for kind in ("train", "dev")]
    log = material.write(folder / "exp" / "log.jsonl", [*events, {"event": "finished", "step": 4, **numbers}])
    return [log, files[0], decoded / "decode.json", decoded / "wer.json"]


def _report(path: Path) -> None:
    asrtool("report", next(parent for parent in path.parents if parent.name == "exp"))


def _page_seeds(folder: Path) -> list[Path]:
    """The files of `_report_seeds` that a page is drawn from."""
    log, config, facts, _ = _report_seeds(folder)
    return [log, config, facts, facts.with_name("hyps.jsonl")]


def _page(path: Path) -> None:
    experiment = next(parent for parent in path.parents if parent.name == "exp")
    asrtool("report", experiment, "--html", experiment.parent / "page.html", "--device", "cpu", "--worst", 2)


def _part_seeds(folder: Path) -> list[Path]:
    place = folder / "parts" / "run"
    tree = {"batches": 2, "clock": {"audio": 1.0, "model": 0.1, "search": 0.1, "total": 0.2}, "rows": ROWS}
    return [material.write(place / "0-000000.json", tree), material.write(place / "0-end.json", 1)]


def _read_parts(path: Path) -> None:
    parts = PartialResults(path.parents[2], "run", this_rank())
    parts.resume()
    if parts.is_finished(0):
        parts.read_rank(0)


def _option_seeds(folder: Path) -> list[Path]:
    """One line for each option of each command that takes a value."""
    folder.mkdir(exist_ok=True)
    lines = [f"{name}\t{option}\t{value}" for name, option, value in _options(cli, ()) if value]
    (folder / "options.txt").write_text("\n".join(lines), encoding="utf-8")
    return [folder / "options.txt"]


def _options(group: click.Group, above: tuple[str, ...]):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _options(command, (*above, name))
            continue
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag and option.nargs == 1:
                choices = getattr(option.type, "choices", None)
                yield " ".join((*above, name)), option.opts[0], choices[0] if choices else 1


def _parse_options(path: Path) -> None:
    for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
        name, *arguments = line.split("\t")
        command: click.Command | None = cli
        for part in name.split():
            command = command.commands.get(part) if isinstance(command, click.Group) else None
        if command is None or isinstance(command, click.Group) or "\0" in line:  # no command line can hold a NUL
            continue
        try:
            given = command.make_context(name, ["a", "b", "c", *arguments], resilient_parsing=False).params
        except (click.ClickException, click.exceptions.Exit):
            continue
        if not all(math.isfinite(value) for value in given.values() if isinstance(value, float)):
            raise Wrong(f"{line} is taken")


def _marker_seeds(folder: Path) -> list[Path]:
    material.write(folder / "out" / "keep.json", {})
    return [material.write(folder / "out" / "made.json", {"files": ["made.json", "old.txt"]})]


def _replace_folder(path: Path) -> None:
    marker = path.read_bytes()
    with new_folder(path.parent, path.name, "asrtool x") as new:
        (new / path.name).write_bytes(marker)
    if not (path.parent / "keep.json").is_file():
        raise Wrong("a file of the user's is gone")


DRIVERS = [
    Driver("hypotheses", _hypothesis_seeds, lambda path: asrtool("score", path.parent)),
    Driver("comparison", _compare_seeds, lambda p: asrtool("score", p.parent, "--against", p.parents[1] / "other")),
    Driver("report", _report_seeds, _report),
    Driver("page", _page_seeds, _page),
    Driver("parts", _part_seeds, _read_parts),
    Driver("options", _option_seeds, _parse_options),
    Driver("output-folder", _marker_seeds, _replace_folder),
]
