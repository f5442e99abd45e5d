"""Fuzzes one reader or all of them by hand; see README.md in this folder."""

import shutil
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tests.fuzz import material
from tests.fuzz.child import fault, restrict
from tests.fuzz.driver import Driver
from tests.fuzz.drivers import DRIVERS
from tests.fuzz.engine import FINDING, fuzz


@click.command()
@click.argument("names", nargs=-1, metavar="[DRIVER ...]", type=click.Choice(sorted(DRIVERS)))
@click.option("--seconds", default=600.0, show_default=True, help="Seconds for each driver.")
@click.option("--seed", default=1, show_default=True, help="Seed of the inputs.")
@click.option(
    "--findings",
    default="fuzz-findings",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for findings.",
)
@click.option("--repeat", type=click.Path(exists=True, path_type=Path), help="Input of a finding to read once.")
def main(names: tuple[str, ...], seconds: float, seed: int, findings: Path, repeat: Path | None) -> None:
    """Feed changed files to the readers of asrtool. The exit status is 1 if there are findings."""
    drivers = [DRIVERS[name] for name in names or DRIVERS]
    if repeat:
        work = Path((repeat.parent / FINDING).read_text(encoding="utf-8").splitlines()[0])
        with _folder(work.parent):
            sys.exit(read_once(drivers[0], repeat, work))
    with _folder(Path(tempfile.gettempdir()).resolve() / f"fuzz-{uuid.uuid4().hex[:8]}") as folder:
        found = sum(report(driver, seconds, seed, folder, findings) for driver in drivers)
    sys.exit(bool(found))


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Yields the folder `path` for the files of all drivers, removed afterwards if it is new."""
    is_new = not path.exists()
    material.use(path / "material")
    try:
        yield path
    finally:
        shutil.rmtree(path if is_new else path / "material")


def report(driver: Driver, seconds: float, seed: int, folder: Path, findings: Path) -> int:
    """Fuzzes with one driver, and prints its findings; returns the number of their kinds."""
    begin = time.monotonic()
    result = fuzz(driver, seconds, folder / driver.name, findings.absolute(), seed)
    spent = time.monotonic() - begin
    click.echo(f"{driver.name}: {result.inputs:,} inputs in {spent:.0f} s, {len(result.findings)} kinds of findings")
    for kind, path in result.findings.items():
        click.echo(f"  {kind}\n    python3 -m tests.fuzz {driver.name} --repeat {path}")
    return len(result.findings)


def read_once(driver: Driver, path: Path, work: Path) -> int:
    """Reads the input of a finding again, where it was read before, and prints the exception of the reader."""
    work.mkdir(exist_ok=True)
    targets = {target.name: target.absolute() for target in driver.seeds(work)}
    shutil.copyfile(path, targets[path.name])
    if driver.after_change:
        driver.after_change(targets[path.name])
    restrict(driver, work)
    kind, error = fault(driver, targets[path.name])
    traceback.print_exception(error)
    click.echo(f"finding: {kind}" if kind else "no finding")
    return int(kind is not None)


if __name__ == "__main__":
    main()
