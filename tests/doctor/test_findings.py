"""The report of findings as text and JSON, and its exit status."""

import json
import shlex
from pathlib import Path

from asrtool.doctor.findings import (
    Finding,
    Report,
    Severity,
    finding_of_error,
    report_json,
    report_text,
    shell_command,
)
from asrtool.errors import UserError

CLIPPED = Finding("clipped", Severity.WARNING, "train", "utterances are clipped", "asrtool x", 7, ("a", "b: 3 %"))
NOTE = Finding("note", Severity.NOTE, "train", "there is something")


def test_a_clean_report():
    report = Report("Data", {"hours": 3})
    report.add(None)
    report.add(NOTE)
    assert report.exit_status == 0
    assert report_text(report).splitlines()[-1] == "Data: no errors, no warnings, 1 note"


def test_errors_come_first_with_causes_examples_and_remedies():
    report = Report("Data", {"hours": 3, "rates": {"16000": 2, "8000": 1}})
    report.add([NOTE, CLIPPED])
    report.add(Finding("unreadable", Severity.ERROR, "a.wav", "it cannot be\nread", "delete it"))
    text = report_text(report)
    assert text.index("Errors (1)") < text.index("Warnings (1)") < text.index("Notes (1)")
    assert "  a.wav: it cannot be read [unreadable]\n    fix: delete it\n" in text
    assert "  train: utterances are clipped (7) [clipped]\n      a\n      b: 3 %\n      ... and 5 more\n" in text
    assert "  rates  16000: 2\n         8000: 1\n" in text
    assert text.endswith("Data: 1 error, 1 warning, 1 note")
    assert report.exit_status == 1


def test_json_has_everything():
    clean, other = Report("A"), Report("B", {"hours": 1.5})
    other.add(CLIPPED)
    document = json.loads(json.dumps(report_json([clean, other])))
    assert document["status"] == 1
    assert [report["status"] for report in document["reports"]] == [0, 1]
    finding = document["reports"][1]["findings"][0]
    assert finding["severity"] == "warning" and finding["examples"] == ["a", "b: 3 %"] and finding["count"] == 7


def test_the_hint_of_an_error_is_its_remedy():
    finding = finding_of_error("bad", "x", UserError("x is bad; it is; make a new one"))
    assert (finding.cause, finding.remedy) == ("it is bad; it is", "make a new one")
    finding = finding_of_error("bad", "x", UserError("x is bad; make a new one"), "rm x")
    assert (finding.cause, finding.remedy) == ("it is bad", "rm x")
    assert finding_of_error("bad", "x", ValueError("no number")).cause == "ValueError: no number"


def test_a_command_with_the_name_of_a_strangers_file_is_one_command():
    command = shell_command("rm", Path("exp/$(id); `id` 'x'"))
    assert shlex.split(command) == ["rm", "exp/$(id); `id` 'x'"]
    assert shell_command("asrtool", "score", Path("exp/a-b/c.d")) == "asrtool score exp/a-b/c.d"
