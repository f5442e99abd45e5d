"""Text of strangers on the terminal."""

import os
import re
from pathlib import Path

import asrtool.cli
from asrtool.cli.text_output import print_text

# JSON escapes control characters itself; transcripts go to a pipe as they are; URLs and versions are our own.
NOT_PRINTED_AS_TEXT = {"__init__.py", "json_output.py", "serve.py", "text_output.py", "transcribe.py"}


def test_control_characters_are_escaped(capsys):
    print_text("one\x1b]0;two\x07\nthree\té")
    assert capsys.readouterr().out == "one\\x1b]0;two\\x07\nthree\té\n"


def test_bytes_of_names_that_are_not_utf8_are_escaped(capsys):
    print_text(os.fsdecode(b"t\xfflk\x80.wav"))
    assert capsys.readouterr().out.encode() == b"t\\xfflk\\x80.wav\n"


def test_commands_print_text_without_control_characters():
    files = Path(asrtool.cli.__file__).parent.glob("*.py")
    raw = {path.name for path in files if re.search(r"click\.s?echo\(|\bprint\(", path.read_text(encoding="utf-8"))}
    assert raw == NOT_PRINTED_AS_TEXT
