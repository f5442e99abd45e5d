"""A driver of the fuzzer: a reader of asrtool, and valid files for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutations import change

LONGEST = 2000  # characters of a line of a message


@dataclass(frozen=True)
class Driver:
    """How to fuzz a reader.

    `seeds` writes valid files into an empty folder and returns the files to change; `read` reads one of these.
    `after_change` is called with a changed file, e.g. to update its hash, so that the code behind a comparison is
    reached as well. `spawns` is True if the reader starts child processes.
    """

    name: str
    seeds: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    after_change: Callable[[Path], None] | None = None
    spawns: bool = False


class Wrong(Exception):
    """A reader returned a value that it should have refused."""


@dataclass(frozen=True)
class Inputs:
    """The changed files of a driver: number n depends on the driver, the seed and n alone."""

    driver: Driver
    originals: dict[Path, bytes]  # the valid files
    seed: int

    def make(self, number: int) -> tuple[Path, bytes]:
        """Returns one of the files, and its new content."""
        draw = Random(f"{self.driver.name} {self.seed} {number}")
        target = draw.choice(list(self.originals))
        return target, change(target.name, self.originals[target], draw)
