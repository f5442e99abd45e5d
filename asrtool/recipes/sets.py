"""The sets of a corpus that a recipe is written for: all of it, or its own train, dev and test sets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asrtool.data.audio import is_command
from asrtool.data.corpora import Utterance
from asrtool.errors import UserError


class Part(Protocol):
    """A part of a set, as asrtool/data/corpus_detection.py and lhotse_corpora.py describe it."""

    @property
    def description(self) -> str:
        """A phrase about the part."""
        ...

    @property
    def command(self) -> Sequence[str]:
        """The words after `asrtool` that read the part, with OUT for the output."""
        ...

    def read(self) -> Iterator[Utterance | str]:
        """Yields the utterances, or lines that say what is wrong."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A corpus to write a recipe for."""

    path: Path  # absolute; `$corpus` in the recipe
    sets: Mapping[str, Sequence[Part]]  # "all", or "train" with "dev" or "test" or both
    before: str = ""  # shell commands that come before everything in local/data.sh
    description: str = ""

    @property
    def commands(self) -> dict[str, list[Sequence[str]]]:
        """The commands that read each set."""
        return {name: [part.command for part in parts] for name, parts in self.sets.items()}

    def rows(self, name: str) -> list[Utterance | str]:
        """Returns the utterances of a set, or lines that say what is wrong. Raises UserError for shell commands."""
        rows = [row for part in self.sets[name] for row in part.read()]
        commands = [row.audio for row in rows if isinstance(row, Utterance) and is_command(row.audio)]
        if commands:
            hint = "write the audio to files and name these (a .sph file can be named as it is, without sph2pipe)"
            example = f"shell commands such as '{commands[0][:100]}'"
            raise UserError(f"{self.path} names {example}, which no recipe runs; {hint}")
        return rows
