"""Each reader meets changed files for some seconds; `python3 -m tests.fuzz` goes on for longer (README.md)."""

import os

import pytest

from tests.fuzz.drivers import DRIVERS
from tests.fuzz.engine import fuzz

SECONDS = float(os.environ.get("ASRTOOL_FUZZ_SECONDS", 10))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", DRIVERS)
def test_a_reader_takes_or_refuses_changed_files(name, tmp_path):
    result = fuzz(DRIVERS[name], SECONDS, tmp_path / "work", tmp_path / "findings")
    assert not result.findings, "\n".join(f"{kind}: {path}" for kind, path in result.findings.items())
    assert result.inputs > 1
