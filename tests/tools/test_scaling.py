"""The model of scaling finds costs that are known, has the right limits, and never calls its predictions measured."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import load_tool

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "scaling.py"
NAMES = ["ddp", "ddp fp16", "bmuf 1", "bmuf 4", "bmuf 16"]


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module."""
    return load_tool("scaling", monkeypatch)


def measured(scaling: ModuleType, costs: object, links: tuple[float, ...] = (1.0, 0.2)) -> list:
    """Points as if measured where these costs hold."""
    points = [scaling.Point("alone", 1, 1.0, 6e6)]
    points += [scaling.Point(name, n, gbit, 6e6, n) for gbit in links for n in (2, 4) for name in NAMES]
    return [replace(point, seconds=scaling.step_seconds(costs, point)) for point in points]


@pytest.mark.parametrize(
    "costs",
    [(0.3, 0.5, 1.3, 2e-3, 0.25), (0.05, 0.0, 1.0, 5e-4, 0.6), (1.0, 1.0, 2.0, 1e-3, 0.1)],
)
def test_fit_finds_the_costs_that_made_the_measurements(scaling: ModuleType, costs: tuple) -> None:
    known = scaling.Costs(*costs)
    points = measured(scaling, known)
    fitted = scaling.fit(points)
    assert max(map(abs, scaling.errors(fitted, points))) < 1e-4
    for value, true in zip(scaling.astuple(fitted), costs, strict=True):
        assert value == pytest.approx(true, rel=1e-2, abs=1e-5)


def test_fit_goes_through_the_middle_of_noise(scaling: ModuleType) -> None:
    known = scaling.Costs(0.3, 0.5, 1.3, 2e-3, 0.25)
    points = [
        replace(point, seconds=point.seconds * (1.02 if number % 2 else 0.98))
        for number, point in enumerate(measured(scaling, known))
    ]
    fitted = scaling.fit(points)
    assert fitted.compute == pytest.approx(known.compute, rel=0.1) and fitted.wire == pytest.approx(known.wire, rel=0.1)
    assert max(map(abs, scaling.errors(fitted, points))) < 0.06


def test_too_few_measurements_are_refused(scaling: ModuleType) -> None:
    with pytest.raises(scaling.UserError, match="too few"):
        scaling.fit(measured(scaling, scaling.Costs())[:5])


@pytest.mark.parametrize("name", NAMES)
def test_on_links_without_cost_every_worker_counts_in_full(scaling: ModuleType, name: str) -> None:
    costs = scaling.Costs(latency=0.0)
    assert scaling.efficiency(costs, scaling.Point(name, 64, math.inf, 85e6)) == 1
    assert scaling.efficiency(costs, scaling.Point(name, 1, 10.0, 85e6)) == 1


def test_bytes_are_those_of_a_ring(scaling: ModuleType) -> None:
    sent = {name: scaling.traffic(scaling.Scheme.parse(name), 4, 1e6)[0] for name in NAMES}
    assert sent["ddp"] == 2 * 3 / 4 * 4e6
    assert sent["ddp fp16"] == sent["ddp"] / 2
    assert sent["bmuf 1"] == 3 * sent["ddp"]
    assert sent["bmuf 16"] == sent["bmuf 1"] / 16


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gbit", [1.0, 10.0, 100.0])
def test_more_workers_cost_more_time_and_less_each_for_longer_blocks(
    scaling: ModuleType, name: str, gbit: float
) -> None:
    costs = scaling.Costs()
    seconds = [scaling.step_seconds(costs, scaling.Point(name, n, gbit, 85e6)) for n in (1, 2, 4, 8, 16, 32, 64)]
    assert seconds == sorted(seconds)
    blocks = [scaling.step_seconds(costs, scaling.Point(f"bmuf {block}", 8, gbit, 85e6)) for block in (1, 2, 8, 64)]
    assert blocks == sorted(blocks, reverse=True)


def test_ddp_hides_at_most_its_share_of_compute(scaling: ModuleType) -> None:
    point = scaling.Point("ddp", 8, 1.0, 85e6)
    shown = scaling.step_seconds(scaling.Costs(overlap=0.0), point)
    assert scaling.step_seconds(scaling.Costs(compute=0.3, overlap=0.5), point) == pytest.approx(shown - 0.15)
    assert scaling.step_seconds(scaling.Costs(overlap=1.0), replace(point, gbit=1e6)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["fsdp", "bmuf", "bmuf 0", "bmuf x", ""])
def test_unknown_training_is_named(scaling: ModuleType, name: str) -> None:
    with pytest.raises(scaling.UserError, match=f"'{name}'"):
        scaling.Scheme.parse(name)


def write(path: Path, scaling: ModuleType, gbit: float | None) -> Path:
    """Figures as tools/network.py writes them, of two machines."""
    costs = scaling.Costs(0.3, 0.5, 1.3, 2e-3, 0.25)
    rows = [
        {"what": point.name, "machines": point.workers, "processes": point.processes, "parameters": 6e6}
        | {"seconds": point.seconds, "bytes": scaling.traffic(point.scheme, point.workers, 6e6)[0]}
        for point in measured(scaling, costs, (1.0,))
    ]
    path.write_text(json.dumps({"facts": {"gbit": gbit, "link": "loopback"}, "rows": rows}))
    return path


def run(scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["scaling.py", *map(str, words)])
    return scaling.main(), *capsys.readouterr()


def test_table_has_every_measurement_with_its_error_and_says_what_is_predicted(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    status, out, _ = run(scaling, monkeypatch, capsys, write(tmp_path / "figures.json", scaling, 1.0))
    assert status == 0
    lines = [line for line in out.splitlines() if re.search(r" [+-]\d+\.\d%  ", line)]
    assert len(lines) == 11 and "root of the mean square error: 0.0%" in out
    assert out.index("error") < out.index("PREDICTIONS OF A MODEL, NOT MEASUREMENTS")
    assert [line.split()[:2] for line in out.splitlines() if "64 GPUs" in line] == [["10", "Gbit/s"], ["100", "Gbit/s"]]


def test_assumptions_given_take_the_place_of_the_fit(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    path, options = write(tmp_path / "figures.json", scaling, 1.0), ["--latency", "7", "--compute", "0.2"]
    out = run(scaling, monkeypatch, capsys, path, *options)[1]
    predicted = out[out.index("PREDICTIONS") :]
    assert "7 us" in predicted and "0.2 s of compute" in predicted and "1.30 times" in predicted
    assert "20 us" in run(scaling, monkeypatch, capsys)[1]


def test_figures_that_are_none_are_refused(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    status, _, err = run(scaling, monkeypatch, capsys, tmp_path / "missing.json")
    assert status == 2 and "not found" in err
    (tmp_path / "wrong.json").write_text("{}")
    assert run(scaling, monkeypatch, capsys, tmp_path / "wrong.json")[0] == 2
    status, _, err = run(scaling, monkeypatch, capsys, write(tmp_path / "loopback.json", scaling, None))
    assert status == 2 and "without limits" in err
