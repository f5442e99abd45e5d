"""Faults of utterances, collected by kind, which become findings and a list of utterances to exclude."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.exclusion import HINT, can_be_listed
from asrtool.doctor.data_kinds import KINDS
from asrtool.doctor.findings import Finding, shortened
from asrtool.errors import UserError, one_line
from asrtool.files import atomic_path
from asrtool.readers import read_lines

EXAMPLES_KEPT = 100  # of each kind, for the JSON report
HEAD = "# Utterances that training leaves out, by `asrtool doctor data`"  # of the first line of a list
DIGEST_HEAD = "# Lines that are edited are not replaced by another --exclude; digest of the original lines: "
MAX_DETAIL = 200  # characters of what is wrong with one utterance


@dataclass
class Faults:
    """The faults of one set: kind -> id -> what is wrong with it.

    `ignored` are kinds that are neither reported nor excluded.
    """

    ignored: frozenset[str] = frozenset()
    by_kind: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: Counter[str] = field(default_factory=Counter)  # kind -> further faults of ids that it already has

    def add(self, kind: str, name: str, detail: str = "") -> None:
        """Adds a fault of the utterance or other item `name`. A second one of the same kind and name is counted."""
        if kind in self.ignored:
            return
        items = self.by_kind.setdefault(kind, {})
        if name in items:
            self.repeated[kind] += 1
        else:
            items[name] = shortened(one_line(detail), MAX_DETAIL)

    def has(self, kind: str, name: str) -> bool:
        """Returns True if the item `name` has a fault of this kind."""
        return name in self.by_kind.get(kind, {})

    def findings(self, cuts: Path, is_training: bool = True) -> list[Finding]:
        """Returns a finding for each kind, in the order of KINDS, about the manifest `cuts`."""
        return [self._finding(kind, cuts, is_training) for kind in KINDS if self.by_kind.get(kind)]

    def _finding(self, kind: str, cuts: Path, is_training: bool) -> Finding:
        items = self.by_kind[kind]
        examples = [f"{name}: {detail}" if detail else name for name, detail in list(items.items())[:EXAMPLES_KEPT]]
        known = KINDS[kind]
        count = len(items) + self.repeated[kind]
        remedy = known.remedy_for(cuts, is_training)
        return Finding(kind, known.severity, str(cuts), known.cause, remedy, count, tuple(examples))

    def excluded(self) -> dict[str, str]:
        """Returns the ids of utterances to exclude, each with its reasons, sorted by id."""
        reasons: dict[str, list[str]] = {}
        for kind, items in self.by_kind.items():
            for name, detail in items.items() if KINDS[kind].excluded else ():
                reasons.setdefault(name, []).append(f"{kind} ({detail})" if detail else kind)
        return {name: "; ".join(reasons[name]) for name in sorted(reasons)}


def require_own_list(path: Path) -> None:
    """Raises UserError unless a file begins as `write_exclusions` begins it."""
    if not next(iter(read_lines(path, "exclusion list", HINT)), "").startswith(HEAD):
        raise UserError(f"{path} was not written by `asrtool doctor data`")


def require_unedited(path: Path) -> None:
    """Raises UserError for a list of `write_exclusions` whose lines were changed since: edits are not replaced."""
    lines = [line.rstrip("\r\n") for line in read_lines(path, "exclusion list", HINT)]
    if lines[1:2] != [DIGEST_HEAD + _digest(lines[2:])]:
        hint = "name another file, or delete it if its lines may go"
        raise UserError(f"{path} was edited after `asrtool doctor data` wrote it, or is of an earlier version; {hint}")


def write_exclusions(path: Path, excluded: dict[str, str], sources: Iterable[Path]) -> list[str]:
    """Writes the list that `data.exclude` of a configuration takes: "ID<TAB>reason", one utterance a line.

    Returns the ids that a list cannot hold (`can_be_listed`), which are left out of it.
    """
    lines = [f"{name}\t{one_line(reasons)}" for name, reasons in excluded.items() if can_be_listed(name)]
    names = one_line(", ".join(map(str, sources)))
    head = [f"{HEAD}: {names}", f"{DIGEST_HEAD}{_digest(lines)}"]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(f"{line}\n" for line in [*head, *lines])
    return [name for name in excluded if not can_be_listed(name)]


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(lines).encode("utf-8", errors="replace")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
