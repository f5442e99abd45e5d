"""The benchmark of recipes: what it reports of asrtool's own, and what it says where the other toolkit is missing."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from lhotse import CutSet

from asrtool.data.lhotse_sets import open_cuts
from asrtool.errors import UserError
from tests.tools.load import load_tool

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """The benchmark in `folder`."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "tools" / "bench" / "other_recipes.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": paths})


def test_help_names_the_differences_and_how_to_install_the_other_toolkit(tmp_path: Path) -> None:
    output = run(tmp_path, "--help").stdout
    assert "differ in these points" in output and "pip install" in output and "--speechbrain" in output


def test_a_missing_recipe_is_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    result = run(tmp_path, "--quick", "--speechbrain", str(tmp_path))
    assert result.returncode == 2 and not result.stdout
    assert str(tmp_path) in result.stderr and "pip install" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The half that drives SpeechBrain; needs none of it before `import_recipe`."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return load_tool("bench/speechbrain_recipe", monkeypatch)


def test_a_recipe_whose_imports_are_missing_is_one_line_that_names_what_is(theirs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / theirs.RECIPE).mkdir(parents=True)
    (tmp_path / theirs.RECIPE / "train.py").write_text("import no_such_toolkit\n")
    with pytest.raises(UserError, match="no_such_toolkit.*pip install"):
        theirs.import_recipe(tmp_path)


def test_their_table_has_every_recording_and_refuses_a_part_of_one(
    theirs: ModuleType, corpus: Path, tmp_path: Path
) -> None:
    whole, part = list(open_cuts(corpus)), tmp_path / "part.jsonl.gz"
    with open(theirs.write_csv(corpus, tmp_path / "whole.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    written = [(row["ID"], float(row["duration"]), row["wrd"]) for row in rows]
    assert written == [(cut.id, cut.duration, cut.supervisions[0].text) for cut in whole]
    assert all(Path(row["wav"]).is_file() for row in rows)
    CutSet.from_cuts([whole[0].truncate(duration=whole[0].duration / 2)]).to_file(part)
    with pytest.raises(UserError, match="whole"):
        theirs.write_csv(part, tmp_path / "part.csv")


def test_asrtool_alone_trains_and_decodes_with_stored_features_and_without(tmp_path: Path) -> None:
    result = run(tmp_path, "--quick", "--alone", "--json", "figures.json")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    rows = [(row["case"].split()[0], row["what"]) for row in report["rows"]]
    assert rows == [("train", "asrtool, stored"), ("train", "asrtool, on the fly"), ("decode", "asrtool, on the fly")]
    assert all(row["rate"] > 0 for row in report["rows"])
    facts = report["facts"]
    assert facts["parameters, asrtool, stored"] == facts["parameters, asrtool, on the fly"] > 0
    assert all(0 <= value < 1 for name, value in facts.items() if name.startswith("padding"))
    assert facts["RTF of greedy decoding, asrtool, on the fly"] > 0
