"""What a check finds: a cause, the command that fixes it, and the places; and the report of all findings.

The checks of a part (asrtool/doctor/environment.py, data.py, recipe.py, system.py) fill a `Report`. They never stop at
the first finding. `report_text` and `report_json` write it for people and for programs.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from asrtool.errors import AsrtoolError, one_line

CLEAN = 0  # exit status of a check without errors and warnings
HAS_FINDINGS = 1  # exit status of a check with at least one error or warning; usage errors have status 2
EXAMPLES_SHOWN = 5  # examples of a finding in the text; JSON has all that the check kept


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # it will fail, or its result will be wrong
    WARNING = "warning"  # it works, but worse or slower than it could, or the result may mislead
    NOTE = "note"  # worth knowing; it does not change the exit status


TITLES = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.NOTE: "Notes"}


@dataclass(frozen=True)
class Finding:
    """One kind of fault at one place.

    `code` is a short, stable name with hyphens, such as "clipped-audio". `subject` is what was checked, such as a
    manifest, a package or a file. `cause` is a sentence that says what is wrong. `remedy` is the command that fixes it,
    or an instruction where no command can. `count` is the number of items that have the fault, such as utterances, and
    `examples` are some of them, each "NAME" or "NAME: detail".
    """

    code: str
    severity: Severity
    subject: str
    cause: str
    remedy: str = ""
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass
class Report:
    """All findings of one check.

    `title` names what was checked, such as "Environment". `facts` are the values that were measured, in the order in
    which they are printed: name -> text, number, or a dict or list of these.
    """

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, findings: Finding | Iterable[Finding] | None) -> None:
        """Adds one finding, several, or none."""
        if isinstance(findings, Finding):
            self.findings.append(findings)
        elif findings is not None:
            self.findings.extend(findings)

    def of(self, severity: Severity) -> list[Finding]:
        """Returns the findings of one severity, in the order of the checks."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def exit_status(self) -> int:
        """Returns HAS_FINDINGS if there is an error or a warning, otherwise CLEAN."""
        return HAS_FINDINGS if self.of(Severity.ERROR) or self.of(Severity.WARNING) else CLEAN


def finding_of_error(code: str, subject: object, error: Exception, remedy: str = "") -> Finding:
    """Returns the finding for an error that a function of asrtool raised.

    Messages of asrtool's errors end with what to do, after a semicolon; without a `remedy`, this is the finding's.
    """
    message = str(error) if isinstance(error, AsrtoolError) else f"{type(error).__name__}: {error}"
    cause, separator, hint = message.rpartition("; ")
    if not isinstance(error, AsrtoolError) or not separator:
        cause, hint = message, ""
    return Finding(code, Severity.ERROR, str(subject), without_subject(cause, str(subject)), remedy or hint)


def shell_command(*words: object) -> str:
    """Returns a command to show as a remedy. Every word is quoted: names may come from a stranger, and may hold `;`."""
    return shlex.join(map(str, words))


def in_folder(folder: Path | None, command: str) -> str:
    """Returns a command that works from every folder: it changes into `folder`, unless this is the current one or None.

    A path within the command that is relative is relative to `folder`.
    """
    if folder is None or os.path.realpath(folder) == os.path.realpath("."):
        return command
    return f"{shell_command('cd', os.path.abspath(folder))} && {command}"


def path_from(folder: Path | None, path: Path) -> Path:
    """Returns a path for a command of `in_folder`: relative to `folder` if it is within, else absolute."""
    if folder is None or os.path.realpath(folder) == os.path.realpath("."):
        return path
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute


def shortened(text: str, length: int) -> str:
    """Returns the text with at most `length` characters; an ellipsis shows that it was cut."""
    return text if len(text) <= length else f"{text[: length - 3].rstrip()}..."


def without_subject(message: str, subject: str) -> str:
    """Returns a message that begins with its subject without it: "it is damaged" for "exp/a.pt is damaged"."""
    if message.startswith(f"{subject}: "):
        return message.removeprefix(f"{subject}: ")
    return f"it {message.removeprefix(f'{subject} ')}" if message.startswith(f"{subject} ") else message


def report_text(report: Report, examples_shown: int = EXAMPLES_SHOWN) -> str:
    """Returns the facts, the findings by severity, and a last line that counts them, as text to print."""
    lines = [report.title, *_fact_lines(report.facts)]
    for severity, title in TITLES.items():
        findings = report.of(severity)
        if findings:
            lines += ["", f"{title} ({len(findings)})"]
        for finding in findings:
            lines += _finding_lines(finding, examples_shown)
    return "\n".join([*lines, "", summary_line(report)])


def summary_line(report: Report) -> str:
    """Returns a line such as "Environment: 2 errors, 1 warning, no notes"."""
    parts = [
        _count(len(report.of(severity)), noun)
        for severity, noun in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.NOTE, "note"))
    ]
    return f"{report.title}: {', '.join(parts)}"


def report_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Returns reports as plain types for `json.dumps`: the exit status, and the facts and findings of each."""
    return {
        "status": max((report.exit_status for report in reports), default=CLEAN),
        "reports": [
            {
                "title": report.title,
                "status": report.exit_status,
                "facts": report.facts,
                "findings": [_finding_dict(finding) for finding in report.findings],
            }
            for report in reports
        ],
    }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "severity": Severity(finding.severity).value}


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _fact_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yields one line for each fact, aligned; a list or dict has a line for each item, a text of lines a line each."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        first, *others = _value_lines(value) or ["-"]
        yield f"  {name:<{width}}  {first}"
        for line in others:
            yield f"  {'':<{width}}  {line}"


def _value_lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [one_line(f"{name}: {item}") for name, item in value.items()]
    if isinstance(value, list | tuple):
        return [one_line(str(item)) for item in value]
    return [one_line(line) for line in str(value).splitlines()]


def _finding_lines(finding: Finding, examples_shown: int) -> Iterator[str]:
    number = f" ({finding.count})" if finding.count != 1 else ""
    yield one_line(f"  {finding.subject}: {finding.cause}{number} [{finding.code}]")
    for example in finding.examples[:examples_shown]:
        yield one_line(f"      {example}")
    left_out = finding.count - min(len(finding.examples), examples_shown)
    if finding.examples and left_out > 0:
        yield f"      ... and {left_out} more"
    if finding.remedy:
        yield one_line(f"    fix: {finding.remedy}")
