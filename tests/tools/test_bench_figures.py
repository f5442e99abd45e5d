"""The stored figures of the benchmarks: what moved since, and the tables of the page."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """bench("page") -> the module of tools/bench."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    return importlib.import_module


def row(case: str, what: str, ratio: float, seconds: float = 2.0, baseline: bool = False) -> dict:
    figures = {"seconds": seconds, "cpu_seconds": seconds, "rate": 10 / seconds, "rate_cpu": 1.0, "turns": [seconds]}
    return {"case": case, "what": what, "baseline": baseline, **figures, "ratio": ratio} | {
        "ratio_low": 0.9 * ratio,
        "ratio_high": 1.1 * ratio,
    }


def report(**changes: object) -> dict:
    """Returns a report of the benchmark `loader` with a case and two facts."""
    return {
        "benchmark": "loader",
        "command": "python3 tools/bench/loader.py --limit 40",
        "device": "a processor, 1 threads",
        "threads": 1,
        "cores": 2,
        "time": "2026-11-30T10:00:00Z",
        "sizes": {"minutes": 8, "repeats": 3},
        "unit": "audio s",
        "columns": [],
        "rows": [row("stored", "asrtool", 1.5), row("stored", "lhotse", 1.0, 3.0, baseline=True)],
        "facts": {"padding": 0.08, "imports": {"torch": 1}},
        "fact_baselines": {"padding": "0.19 without buckets"},
    } | changes


def test_what_moved_by_more_than_a_tenth_is_named(bench: Callable) -> None:
    figures = bench("figures")
    assert figures.moves(report(), report()) == []
    new = report(rows=[row("stored", "asrtool", 1.2, 2.1), row("stored", "lhotse", 1.0, 9.0, baseline=True)])
    new["facts"] = {"padding": 0.06}
    assert list(map(str, figures.moves(report(), new))) == [
        "loader, stored, asrtool, ratio: 1.5 -> 1.2 (-20%)",
        "loader, padding: 0.08 -> 0.06 (-25%)",
    ]


def test_times_are_compared_on_the_same_machine_only(bench: Callable) -> None:
    figures = bench("figures")
    slower = [row("stored", "asrtool", 1.5, 20.0), row("stored", "lhotse", 1.0, 30.0, baseline=True)]
    assert [move.name for move in figures.moves(report(), report(rows=slower))] == ["loader, stored, asrtool, seconds"]
    for other in ({"device": "another"}, {"threads": 2}, {"sizes": {"minutes": 9, "repeats": 3}}):
        assert figures.moves(report(), report(rows=slower, **other)) == []
    more_turns = report(sizes={"minutes": 8, "repeats": 5})
    assert figures.same_conditions(report(), more_turns)


def test_new_and_missing_figures_are_named(bench: Callable) -> None:
    figures = bench("figures")
    new = report(facts={"other": 1.0, "imports": {}})
    assert {str(move) for move in figures.moves(report(), new)} == {"loader, padding: gone", "loader, other: new"}


def test_folders_are_compared(bench: Callable, tmp_path: Path) -> None:
    figures = bench("figures")
    for name, files in {"old": ("loader", "lm"), "new": ("loader", "scale")}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / f"{file}.json").write_text(json.dumps(report(benchmark=file)))
    lines = figures.compare_folders(tmp_path / "old", tmp_path / "new")
    assert lines == ["scale: no stored figures", "lm: not measured now"]


PAGE = """# Benchmarks

<!-- figures: loader -->

| old |

<!-- end of figures -->

Text.

<!-- figures: lm rows=1 -->
<!-- end of figures -->
"""


def test_tables_have_command_machine_threads_date_and_spread(bench: Callable) -> None:
    page, unplaced = bench("page").write_tables(PAGE, {"loader": report(), "graphs": report()})
    assert unplaced == ["graphs"] and "| old |" not in page and "\nText.\n" in page
    assert "`python3 tools/bench/loader.py --limit 40`" in page
    assert "a processor, 1 threads; cores: 2; threads: 1; 2026-11-30." in page
    assert "| stored | asrtool | 5 | lhotse | 3.33 | 1.5 (1.35-1.65) |" in page
    assert "| padding | 0.08 | 0.19 without buckets |" in page and "| imports | torch 1 |  |" in page
    again, _ = bench("page").write_tables(page, {"loader": report()})
    assert again == page


def test_a_place_may_keep_the_slowest_cases(bench: Callable) -> None:
    rows = [row(case, "asrtool", 1.0, seconds) for case, seconds in (("one", 1.0), ("two", 3.0), ("three", 2.0))]
    rows += [row(case, "base", 1.0, 1.0, baseline=True) for case in ("one", "two", "three")]
    page, _ = bench("page").write_tables(PAGE, {"lm": report(rows=rows)})
    assert "| two | asrtool |" in page and "| one |" not in page and "| three |" not in page


def test_figures_without_a_baseline_have_a_line_each(bench: Callable) -> None:
    rows = [{"case": "stream", "what": "asrtool", "baseline": False, "cuts a second": 36471.0}]
    page, _ = bench("page").write_tables(PAGE, {"loader": report(rows=rows, facts={})})
    assert "| stream | asrtool | cuts a second | 36,471 |" in page


def test_every_benchmark_that_is_run_has_a_place_in_the_page(bench: Callable) -> None:
    names = {
        line.split()[1] for line in (ROOT / "tools/bench/all.sh").read_text().splitlines() if line[:8] == "measure "
    }
    text = (ROOT / "docs/benchmarks.md").read_text()
    placed = [match["name"] for match in bench("page").PLACE.finditer(text)]
    assert set(placed) == names and len(placed) == len(names)
    assert text.count("<!-- figures: ") == text.count("<!-- end of figures -->") == len(placed)


def test_the_command_in_a_report_is_the_one_that_was_given(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    common = bench("common")
    program = str(ROOT / "tools" / "bench" / "lm.py")
    for words in (["--json", "x.json", "--orders", "3"], ["--orders", "3", "--json=x.json"]):
        monkeypatch.setattr(sys, "argv", [program, *words])
        assert common.command_of_this_process() == "python3 tools/bench/lm.py --orders 3"


def all_benchmarks(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Runs tools/bench/all.sh --quick with its outputs in `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(ROOT / "tools/bench/all.sh"), "--quick", "--out", str(folder), *options],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_all_benchmarks_run_and_write_a_page(tmp_path: Path) -> None:
    done = all_benchmarks(tmp_path / "out", "--only", "augmentation scale")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == {"augmentation", "scale"}
    assert "Figures that moved by more than 10 %:" in done.stdout
    page = (tmp_path / "out/benchmarks.md").read_text()
    assert "`python3 tools/bench/augmentation.py --quick`" in page and "cuts a second" in page


def test_wrong_options_of_all_benchmarks_are_one_line(tmp_path: Path) -> None:
    for options, message in ((["--slow"], "unknown option --slow"), (["--minutes"], "--minutes needs a value")):
        done = all_benchmarks(tmp_path, *options)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
