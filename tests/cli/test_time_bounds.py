"""Lengths of time have an upper bound: a result with larger figures could not be read again."""

import pytest


@pytest.mark.parametrize(
    "command",
    [
        ("decode", "exp", "cuts.jsonl.gz", "--batch-seconds", "1e300"),
        ("decode", "exp", "cuts.jsonl.gz", "--max-minutes", "1441"),
        ("align", "exp", "cuts.jsonl.gz", "out.jsonl.gz", "--max-minutes", "1e300"),
        ("transcribe", "pack", "a.wav", "--max-seconds", "86401"),
    ],
)
def test_more_than_a_day_is_refused(asr, command):
    status, _, said = asr(*command)
    assert status == 2 and f"{command[-2]}': {command[-1]} is not at most" in said and said.count("\n") == 1
