"""The search for the largest number of streams that each of several servers holds, and its report."""

import argparse
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from common import Report
from load_delays import LoadFigures
from load_runs import Load, hold, ramp, short_connections
from load_servers import RunningServer, asrtool_server, sherpa_server

from asrtool.machine import usable_cores

PROBE_STREAMS, PROBE_SECONDS = 4, 4.0  # a small load, to know about how many streams a growing one ends with
RAMP_FACTOR = 8.0  # from the first to the last stream of a growing load
RAMP_BEGIN = 1 / 3  # of the streams that the CPU time of the small load allows
CAUTION = 0.85  # streams of the first turn, relative to the result of the growing load
STEP_RATIO = 1.3  # between turns until one was held and one was not
PRECISION = 1.05  # of the number of streams
CONNECTIONS_AT_ONCE = 8
WARM_CONNECTIONS = 100  # before memory is measured


@dataclass
class Candidate:
    """A server with its settings to choose from (name: command line options), and what was measured of it."""

    name: str
    kind: str
    folder: Path
    settings: dict[str, list[str]]
    setting: str = ""
    estimate: int = 0
    idle_memory: int = 0
    server: RunningServer | None = None
    loads: list[LoadFigures] = field(default_factory=list)

    def open(self, setting: str, work: Path) -> AbstractContextManager[RunningServer]:
        """Starts the server with one of its settings."""
        log = work / f"{self.kind}.log"
        if self.kind == "asrtool":
            return asrtool_server(self.folder, log, self.settings[setting])
        return sherpa_server(log, self.settings[setting])

    @property
    def best(self) -> LoadFigures | None:
        """The largest load that was held."""
        return max((load for load in self.loads if not load.reason), key=lambda load: load.streams, default=None)

    @property
    def held(self) -> int:
        """The largest number of streams that was held, 0 for none."""
        return self.best.streams if self.best else 0

    @property
    def failed(self) -> float:
        """The smallest number of streams above it that was not held; inf for none."""
        return min((load.streams for load in self.loads if load.reason and load.streams > self.held), default=math.inf)

    def next_streams(self, most: int) -> int:
        """Returns the number of streams to try next; 0 when the number is known well enough."""
        if not self.loads:
            return max(1, min(most, self.estimate))
        if math.isinf(self.failed):
            return min(most, math.ceil(STEP_RATIO * self.held)) if self.held < most else 0
        if not self.held:
            return math.floor(self.failed / STEP_RATIO)
        if self.failed <= max(self.held + 1, PRECISION * self.held):
            return 0
        return min(int(self.failed) - 1, max(self.held + 1, round(math.sqrt(self.held * self.failed))))


class ServingReport(Report):
    """The figures of each load as it ends, and a table of the largest loads that were held."""

    columns = ["streams", "delay ms", "streams/step", "ms/step", "CPU ms/chunk", "CPU", "clients' CPU", "MB/stream"]

    def _print_head(self) -> None:
        values = self.values
        print(
            f"{values['benchmark']}: {values['device']}, {values['cores']} cores, load {values['load']}", file=self.out
        )
        sizes = ", ".join(f"{key} {value}" for key, value in values["sizes"].items())
        print(f"asrtool {values['versions']['asrtool']}, {values['platform']}\nsizes: {sizes}\n", file=self.out)

    def add_load(self, case: str, name: str, load: LoadFigures) -> None:
        """Adds the figures of one load."""
        self.values.setdefault("loads", []).append(_finite({"case": case, "what": name, **load._asdict()}))
        verdict = f"not held: {load.reason}" if load.reason else "held"
        print(
            f"{case}, {name}: {load.streams} streams, delay {_slashes(load.delay)} ms, {load.server_cores:.2f} cores, "
            f"clients {load.client_cores:.2f} cores, packets late {_slashes(load.late)} ms: {verdict}",
            file=self.out,
            flush=True,
        )

    def add_candidates(self, case: str, candidates: Sequence[Candidate]) -> None:
        """Adds the row of each server; the last one is the baseline."""
        print(
            f"\n{case + ' ':50}" + " ".join(f"{name:>13}" for name in self.columns) + "  ratio (spread)", file=self.out
        )
        for candidate in candidates:
            row = self._row(case, candidate, candidates[-1])
            self.values["rows"].append(_finite(row))
            self._print_candidate(row, candidate.best)
        print(file=self.out, flush=True)

    def _row(self, case: str, candidate: Candidate, baseline: Candidate) -> dict:
        is_baseline = candidate is baseline
        row = {"case": case, "what": candidate.name, "setting": candidate.setting, "baseline": is_baseline}
        row |= {"held": candidate.held, "failed": candidate.failed}
        row |= {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
        if not is_baseline:
            row["ratio"] = candidate.held / baseline.held if baseline.held else math.nan
            row["ratio_low"] = candidate.held / baseline.failed
            row["ratio_high"] = candidate.failed / baseline.held if baseline.held else math.inf
        best = candidate.best
        row["seconds"] = best.delay[0] / 1000 if best else math.nan
        return row | {"figures": best._asdict() if best else None}

    def _print_candidate(self, row: dict, best: LoadFigures | None) -> None:
        name = f"{row['what']} ({row['setting']})"
        if best is None:
            print(f"{name:50} held no load", file=self.out)
            return
        cells = [f"{best.streams}", _slashes(best.delay), f"{best.step_streams:.1f}", f"{best.step_ms:.1f}"]
        cells += [f"{best.cpu_ms:.2f}", f"{best.server_cores:.2f}", f"{best.client_cores:.2f}"]
        cells += [f"{best.memory_mb_per_stream:.2f}"]
        spread = "baseline" if row["baseline"] else f"({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        print(
            f"{name:50}" + " ".join(f"{cell:>13}" for cell in cells) + f"  {row['ratio']:.2f} {spread}", file=self.out
        )
        words = f"{best.words} words: first {_slashes(best.first)}, settled {_slashes(best.settled)} ms after their end"
        compute = f"compute of a chunk {_slashes(best.compute, 2)} ms"
        print(f"    {words}; {compute}; memory {best.memory_mb:,.0f} MB", file=self.out)


def _finite(values: dict) -> dict:
    """Returns values for JSON, which has neither NaN nor infinity."""
    row: dict = {}
    for name, value in values.items():
        if isinstance(value, list):
            row[name] = [None if math.isnan(one) else one for one in value]
        elif isinstance(value, dict):
            row[name] = _finite(value)
        else:
            row[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return row


def _slashes(values: Sequence[float], digits: int = 0) -> str:
    return "/".join("-" if math.isnan(value) else f"{value:.{digits}f}" for value in values)


def pick_settings(
    report: ServingReport, case: str, candidate: Candidate, load: Load, arguments: argparse.Namespace, work: Path
) -> None:
    """Finds the setting of a server that holds most of a growing load; prints all of them."""
    candidate.setting, candidate.estimate = next(iter(candidate.settings)), arguments.first
    if not arguments.ramp_seconds:
        return
    found = {}
    for setting in candidate.settings:
        with candidate.open(setting, work) as server:
            first = max(1, min(arguments.max_streams, _allowed_streams(server, load)) * RAMP_BEGIN)
            factor = min(RAMP_FACTOR, arguments.max_streams / first)
            found[setting] = ramp(server, load, first, factor, arguments.ramp_seconds)
        report.fact(f"{case}, {candidate.name}, {setting}: streams of a growing load", found[setting])
    candidate.setting = max(found, key=lambda setting: found[setting])
    candidate.estimate = round(CAUTION * found[candidate.setting])


def _allowed_streams(server: RunningServer, load: Load) -> float:
    """Returns how many streams the cores would hold, if each took as much CPU time as in a small load."""
    hold(server, load, 1, 1.0, 0)  # a first stream is slower
    figures = hold(server, load, PROBE_STREAMS, PROBE_SECONDS, 0)
    return usable_cores() * PROBE_STREAMS / max(figures.server_cores, 0.01)


def search_in_turns(
    report: ServingReport,
    case: str,
    candidates: Sequence[Candidate],
    load: Load,
    arguments: argparse.Namespace,
    work: Path,
    stack: ExitStack,
) -> None:
    """Starts the servers, which run until `stack` is closed, and searches their numbers of streams in turns."""
    for candidate in candidates:
        candidate.server = stack.enter_context(candidate.open(candidate.setting, work))
        hold(candidate.server, load, 2, 2.0, 0)
        candidate.idle_memory = candidate.server.usage().memory_bytes
    for _ in range(max(1, arguments.repeats)):
        for candidate in candidates:
            streams = candidate.next_streams(arguments.max_streams)
            if streams:
                server = candidate.server
                assert server is not None
                candidate.loads.append(hold(server, load, streams, arguments.seconds, candidate.idle_memory))
                report.add_load(case, candidate.name, candidate.loads[-1])
                server.wait_until_idle()


def measure_connections(
    report: ServingReport, case: str, candidate: Candidate, load: Load, count: int, most: int
) -> None:
    """Reports the memory of a server before and after `count` short connections; `most`: streams it takes at a time."""
    server = candidate.server
    assert server is not None
    at_once = max(1, min(CONNECTIONS_AT_ONCE, most // 2))
    errors = short_connections(server, load, min(count, WARM_CONNECTIONS), at_once)
    before = server.usage().memory_bytes
    errors += short_connections(server, load, count, at_once)
    server.wait_until_idle()
    after = server.usage().memory_bytes
    values = {"MB before": before / 1e6, "MB after": after / 1e6, "errors": len(errors), "connections": count}
    report.fact(f"{case}, {candidate.name}: short connections", values)
