"""Normalisation of the transcripts of a manifest, or of the lines of a text, by rules."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.manifest_lines import SUFFIXES, entries_of_files, write_lines
from asrtool.data.texts import is_manifest
from asrtool.errors import DataError, UserError
from asrtool.files import require_output, require_same_kind, write_text
from asrtool.progress import progress
from asrtool.readers import read_lines
from asrtool.text.normalisation import Case, count_characters, propose_rules, rules_text
from asrtool.text.normalisation_rules import load_rules
from asrtool.text.normaliser import Normaliser, report_lines

logger = logging.getLogger(__name__)

RULES_SUFFIXES = (".yaml", ".yml")
OTHER_SUFFIXES = (*RULES_SUFFIXES, ".json", ".arpa", ".arpa.gz", ".npz", ".pt", ".fst")  # a text is never named so


@dataclass
class _Run:
    """One pass over a manifest or a text."""

    normaliser: Normaliser
    refused: list[str] = field(default_factory=list)  # "ID: reason"
    unlabelled: int = 0  # cuts without a transcript
    alignments: int = 0  # that were removed, since their words changed

    def normalise(self, text: str, name: str) -> str | None:
        """Returns the normalised text; None if the rules drop or refuse it."""
        outcome = self.normaliser.normalise(text, name)
        if outcome.refused:
            self.refused.append(f"{name}: {outcome.refused}")
        return None if outcome.refused or outcome.dropped else outcome.text


def normalise_file(source: Path, out: Path | None, rules_file: Path) -> list[str]:
    """Normalises a manifest, or a text file with a sentence a line, and writes it to `out` if it is given.

    Returns lines that say what was changed. Raises UserError for an `out` that is an input or named as the other kind
    of file, and DataError with all utterances that the rules refuse, and if none is left; nothing is written then.
    """
    rules = load_rules(rules_file)
    if out is not None:
        require_output(out, SUFFIXES if is_manifest(source) else (), [source, rules_file])
        if not is_manifest(source):
            _require_text_output(out, source)
    run = _Run(Normaliser(rules))
    lines = _manifest_lines(source, run) if is_manifest(source) else _text_lines(source, run)
    if out is None:
        for _ in lines:
            pass
        return [*_report(run), *(f"  refused: {problem}" for problem in run.refused[:10])]
    count = write_lines(_checked(lines, run), out)
    return [*_report(run), f"{out}: {count} {'utterances' if is_manifest(source) else 'lines'}"]


def _require_text_output(out: Path, source: Path) -> None:
    """Raises UserError for an OUT that is named as another kind of file, or that exists and is not a text."""
    if is_manifest(out) or out.name.endswith(OTHER_SUFFIXES):
        kind = "a manifest" if is_manifest(out) else "another kind of file"
        raise UserError(f"OUT is {out}, which is named as {kind}, but {source} is a text; name a text file")
    require_same_kind(out, "a text", lambda path: next(read_lines(path), ""))


def _checked(lines: Iterator[bytes], run: _Run) -> Iterator[bytes]:
    """Yields the lines; at their end raises DataError if some were refused or none was left."""
    count = 0
    for line in lines:
        count += 1
        yield line
    if run.refused:
        hint = "fix them, or let the rules drop such utterances"
        raise DataError(f"{len(run.refused)} utterances are refused by the rules; {hint}", run.refused)
    if not count:
        raise DataError("no utterances left; nothing written", report_lines(run.normaliser.changes))


def _report(run: _Run) -> list[str]:
    lines = report_lines(run.normaliser.changes)
    if run.unlabelled:
        lines.append(f"{run.unlabelled} cuts have no transcript, and stay as they are")
    if run.alignments:
        lines.append(f"{run.alignments} utterances lost the times of their words, which no longer fit")
    return lines


def _manifest_lines(source: Path, run: _Run) -> Iterator[bytes]:
    """Yields the lines of the cuts that the rules keep."""
    for entry, _ in progress(entries_of_files(source), "normalising"):
        cut_dict = entry.to_dict()  # as it is in the file: reading composes texts
        if _normalise_cut(cut_dict, entry.id, run):
            yield json.dumps(cut_dict, ensure_ascii=False).encode()


def _normalise_cut(cut_dict: dict, name: str, run: _Run) -> bool:
    """Normalises the transcripts of a cut in place; returns False if the rules drop or refuse one of them."""
    supervisions = [item for item in cut_dict.get("supervisions") or () if item.get("text") is not None]
    run.unlabelled += not supervisions
    for supervision in supervisions:
        text = run.normalise(supervision["text"], name)
        if text is None:
            return False
        if text.split() != supervision["text"].split() and supervision.pop("alignment", None):
            run.alignments += 1
        supervision["text"] = text
    return True


def _text_lines(source: Path, run: _Run) -> Iterator[bytes]:
    """Yields the normalised lines of a text; blank lines and those that the rules drop are left out."""
    hint = "give a manifest *.jsonl.gz, or a text file with a sentence a line"
    for number, line in enumerate(progress(read_lines(source, "text", hint), "normalising", units="lines"), 1):
        if line.strip():
            text = run.normalise(line.strip(), f"line {number}")
            if text is not None:
                yield text.encode()


def propose_for_file(source: Path, out: Path, case: Case | None = None) -> list[str]:
    """Writes rules that fit the transcripts of a manifest, or a text, to `out`. Returns lines that say what they do."""
    require_output(out, RULES_SUFFIXES, [source])
    if out.exists():
        raise UserError(f"{out} exists, and may have been edited; delete it or name another file")
    counts = count_characters(_texts(source))
    if not "".join(counts).strip():
        raise UserError(f"no transcripts in {source}, so that no rules can be proposed; give one that has some")
    rules = propose_rules(counts, case)
    write_text(out, rules_text(rules))
    return [f"{out}: rules for {source}; read and edit them, then `asrtool normalise {source} OUT --rules {out}`"]


def _texts(source: Path) -> Iterator[str]:
    if not is_manifest(source):
        yield from read_lines(source, "text", "give a manifest *.jsonl.gz, or a text file with a sentence a line")
        return
    for entry, _ in entries_of_files(source):
        yield from (supervision.get("text") or "" for supervision in entry.to_dict().get("supervisions") or ())
