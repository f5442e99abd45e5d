"""Upper bounds of numbers: a result with larger ones could not be read again, or their sums would be infinite."""

import pytest


@pytest.mark.parametrize(
    "command",
    [
        ("decode", "exp", "cuts.jsonl.gz", "--batch-seconds", "1e300"),
        ("decode", "exp", "cuts.jsonl.gz", "--max-minutes", "1441"),
        ("align", "exp", "cuts.jsonl.gz", "out.jsonl.gz", "--max-minutes", "1e300"),
        ("transcribe", "pack", "a.wav", "--max-seconds", "86401"),
        ("combine", "a", "b", "--out", "c", "--scale", "1e307"),
        ("combine", "a", "b", "--out", "c", "--system-weight", "1e308"),
    ],
)
def test_larger_numbers_are_refused(asr, command):
    status, _, said = asr(*command)
    assert status == 2 and f"{command[-2]}': {command[-1]} is not at most" in said and said.count("\n") == 1
