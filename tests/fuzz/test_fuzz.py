"""Each reader reads changed files for some seconds; `python3 -m tests.fuzz` runs for longer (README.md)."""

import os

import pytest

from tests.fuzz import material
from tests.fuzz.drivers import DRIVERS
from tests.fuzz.engine import fuzz

SECONDS = float(os.environ.get("ASRTOOL_FUZZ_SECONDS", 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder for the files of all drivers."""
    path = tmp_path_factory.mktemp("fuzz")
    material.use(path / "material")
    return path


@pytest.mark.fuzz
@pytest.mark.parametrize("name", DRIVERS)
def test_a_reader_accepts_or_refuses_changed_files(name, folder):
    result = fuzz(DRIVERS[name], SECONDS, folder / name, folder / "findings")
    assert not result.findings, "\n".join(f"{kind}: {path}" for kind, path in result.findings.items())
    assert result.inputs > 1
