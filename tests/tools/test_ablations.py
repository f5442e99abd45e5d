"""The runs of an ablation, variants x seeds, run once and continue where they stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import TOOLS
from tests.tools.stub import ABLATION, calls, cells


def test_every_variant_runs_once_with_every_seed(run: Callable, tmp_path: Path) -> None:
    text = "variants: {one: {set: [training.lr=0.1], options: [--finals, 0.1]}, two: {}}"
    status, _, log, started = run(text, "--jobs", "2", "--threads", "1")
    assert status == 0
    assert sorted(started) == [(variant, seed) for variant in ("one", "two") for seed in (1, 2, 3)]
    assert log.count(": started") == 6 and log.count(": finished after") == 6
    arguments = next(arguments for variant, seed, arguments in calls(tmp_path) if (variant, seed) == ("one", 2))
    assert arguments[:2] == ["train", str(tmp_path / "conf" / "model.yaml")]
    assert arguments[2:5] == ["--exp", str(tmp_path / "one" / "2"), "--resume"]
    settings = [after for before, after in zip(arguments, arguments[1:], strict=False) if before == "--set"]
    assert settings == ["training.max_steps=900", "training.lr=0.1", "seed=2"]
    assert arguments[-2:] == ["--finals", "0.1"]
    status, table, _, started = run(text)
    assert (status, started) == (0, [])
    assert cells(table, "`one`")["seeds finished"] == "3 of 3"


def test_only_and_seeds_select_variants_and_seeds(run: Callable) -> None:
    text = "variants: {one: {after: two}, two: {after: three}, three: {}, four: {}}"
    _, table, _, started = run(text, "--only", "two", "--seeds", "7")
    assert started == [("three", 7), ("two", 7)]
    assert cells(table, "`four`")["seeds finished"] == "0 of 1"


def test_an_interrupted_run_is_continued_also_after_a_crash(run: Callable, tmp_path: Path) -> None:
    text = "variants: {one: {options: [--end, interrupted]}}"
    _, table, log, _ = run(text, "--seeds", "1")
    assert "interrupted after" in log and cells(table, "`one`")["seeds finished"] == "0 of 1"
    with open(tmp_path / "one" / "1" / "log.jsonl", "a") as log:
        log.write('{"event": "tra')
    assert run(text, "--seeds", "1")[3] == [("one", 1)]


def test_a_failed_run_is_a_result_and_stops_no_other_run(run: Callable) -> None:
    text = "variants: {one: {options: [--end, failed]}, two: {}, three: {options: [--end, stopped]}}"
    status, table, log, started = run(text, "--seeds", "1,2")
    assert status == 0 and len(started) == 6
    assert cells(table, "`one`")["failed"] == "2" and cells(table, "`one`")["final dev loss"] == "-"
    assert cells(table, "`three`")["failed"] == "2" and cells(table, "`three`")["final dev loss"] == "diverged"
    assert cells(table, "`two`")["failed"] == "0"
    assert "- `one`, seed 2 failed: no luck in WORK/one/2" in table and "no luck in" in log
    assert "- `three`, seed 1 diverged: no luck" in table
    assert run(text, "--seeds", "1,2")[3] == []
    retried = run(text, "--seeds", "1,2", "--retry-failed", "--only", "one")
    assert retried[3] == [("one", 1), ("one", 2)]
    assert cells(retried[1], "`one`")["failed"] == "0"


def test_a_variant_starts_from_the_warmup_of_its_seed(run: Callable, tmp_path: Path) -> None:
    text = "variants: {main: {after: warm, processes: 2}, warm: {options: [--phase, warmup]}}"
    _, table, _, started = run(text, "--jobs", "2")
    order = {name: started.index(name) for name in started}
    assert all(order["warm", seed] < order["main", seed] for seed in (1, 2, 3))
    assert cells(table, "`main`")["seeds finished"] == "3 of 3"
    arguments = next(arguments for variant, seed, arguments in calls(tmp_path) if (variant, seed) == ("main", 3))
    warm = tmp_path / "warm" / "3" / "checkpoints" / "warmup.pt"
    assert arguments[arguments.index("--init-from") + 1] == str(warm)


def test_a_variant_whose_warmup_failed_fails_without_its_checkpoint(run: Callable) -> None:
    _, table, _, _ = run("variants: {main: {after: warm}, warm: {options: [--end, failed]}}", "--seeds", "1")
    assert "`main`, seed 1 failed: checkpoint not found: WORK/warm/1/checkpoints/warmup.pt" in table


def test_several_processes_are_started_by_torchrun(ablations: ModuleType) -> None:
    assert ablations.real_launcher(1) == [sys.executable, "-m", "asrtool"]
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "-m", "asrtool"]
    assert ablations.real_launcher(8) == [sys.executable, *many]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("variants: {one: {}}\ncompares: []", [], "unknown key 'compares' (did you mean 'compare'?)"),
        ("variants: {one: {sets: []}}", [], "unknown key 'variants.one.sets' (did you mean 'set'?)"),
        ("variants: {one: {}}\ncompare: [[one, tow]]", [], "there is no variant 'tow'"),
        ("variants: {one: {after: tow}, two: {}}", [], "there is no variant 'tow' (did you mean 'two'?)"),
        ("variants: {one: {after: two}, two: {after: one}}", [], "one after two after one"),
        ("variants: {one: {}}", ["--only", "two"], "there is no variant 'two'"),
        ("variants: {one: {}}", ["--seeds", "1,b"], "'b'"),
        ("variants: {one: {}}", ["--chdir", "nowhere"], "nowhere is not a folder"),
        ("variants: {one: {set: [training.lrr=1]}}", [], "unknown key 'training.lrr'"),
        ("variants: {one: {}}\nexpect: [one << 2]", [], "'one << 2' is not one of 'A < B'"),
        ("variants: {one: {}}\nexpect: [one = 2]", [], "'one = 2' is not one of 'A < B'"),
        ("variants: {one: {}}\nexpect: [tow < 2]", [], "there is no variant 'tow'"),
        ("variants: {one: {}}\nexpect: [one < tow]", [], "there is no variant 'tow'"),
        ("variants: {one: {}}", ["--scale", "full"], "has no settings 'full'"),
        (
            "variants: {one: {}, two: {set: [model.layers=3]}}\ncompare: [[one, two]]\nequal: [parameters]",
            [],
            "one and two have 1,",
        ),
        (
            "variants: {one: {}, two: {set: [model.mask=sliding, model.right_context=1]}}\n"
            "compare: [[one, two]]\nequal: [latency]",
            [],
            "latencies of 120 and inf ms",
        ),
        ("variants: {}", [], "variants: "),
        ("variants: {a/b: {}}", [], "variants.a/b"),
        ("variants: [", [], "not YAML"),
    ],
)
def test_a_wrong_definition_prints_one_line_before_anything_runs(
    run: Callable, text: str, options: list, message: str
) -> None:
    status, _, error, started = run(text, *options)
    assert (status, started) == (2, [])
    assert message in error and len(error.splitlines()) == 1


def test_runs_on_other_data_are_refused(run: Callable, tmp_path: Path) -> None:
    text = "variants: {one: {}}"
    assert run(text, "--seeds", "1")[3] == [("one", 1)]
    status, _, _, started = run(text, "--seeds", "1,2", "--data", "old")  # the first one did not record its data
    assert (status, started) == (0, [("one", 2)])
    status, _, error, started = run(text, "--seeds", "1,2", "--data", "new")
    assert (status, started) == (2, []) and "other settings" in error and "one/2" in error
    assert run(text, "--seeds", "1,2", "--list")[0] == 0  # data that are not named are not compared


def test_settings_of_the_command_line_are_those_of_all_runs(run: Callable, tmp_path: Path) -> None:
    run("set: [training.lr=0.1]\nvariants: {one: {}, two: {}}", "--seeds", "1", "--set", "training.lr=0.2")
    for variant, _, arguments in calls(tmp_path):
        settings = [after for before, after in zip(arguments, arguments[1:], strict=False) if before == "--set"]
        assert settings == ["training.lr=0.1", "training.lr=0.2", "seed=1"], variant


def test_settings_that_changed_are_refused(run: Callable, tmp_path: Path) -> None:
    text = "variants: {one: {options: [--finals, 0.1]}}"
    run(text, "--seeds", "1")
    for other in (
        "variants: {one: {options: [--finals, 0.2]}}",
        "variants: {one: {set: [training.lr=1], options: [--finals, 0.1]}}",
    ):
        status, _, error, started = run(other, "--seeds", "1")
        assert (status, started) == (2, []) and "other settings" in error
    (tmp_path / "conf" / "model.yaml").write_text("model: {layers: 3}\n")
    assert run(text, "--seeds", "1")[0] == 2


def test_ctrl_c_reaches_the_trainings_and_the_same_command_continues(run: Callable, tmp_path: Path) -> None:
    text = "variants: {one: {options: [--end, waits]}, two: {}}"
    (tmp_path / "ablation.yaml").write_text(ABLATION + text)
    driver = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import ablations, ablation_runs\n"
    driver += f"ablation_runs.launcher = lambda processes: [sys.executable, {str(tmp_path / 'stub.py')!r}]\n"
    driver += "ablations.section = lambda *_: 'the table'\n"  # without torch, which takes seconds to import
    (tmp_path / "driver.py").write_text(driver + "sys.exit(ablations.main())\n")
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "ablation.yaml"), "--work", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(TOOLS.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    log = tmp_path / "one" / "1" / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        time.sleep(0.05)
    status, _, error, _ = run(text)  # a second one meanwhile
    assert status == 2 and "is being trained already" in error
    process.send_signal(signal.SIGINT)
    table, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "Traceback" not in error and "the same command continues" in error
    assert "wrote a checkpoint" in (tmp_path / "one" / "1.log").read_text()
    assert table == "the table\n"
    assert run(text, "--seeds", "1")[3] == [("one", 1), ("two", 1)]


def test_ablations_share_variants_with_the_same_name_and_settings(run: Callable, tmp_path: Path) -> None:
    text, results = "variants: {one: {set: [training.lr=0.1]}}", tmp_path / "results.md"
    options = ("--seeds", "1", "--results", str(results), "--command", "make {ablation}")
    other = "name: Another\nset: [training.max_steps=900, training.lr=0.1]\nvariants: {one: {}, two: {}}"  # later wins
    status, _, _, started = run(text, *options, others=[other])
    assert (status, started) == (0, [("one", 1), ("two", 1)])
    assert "make ablation\n" in results.read_text() and "make other0\n" in results.read_text()
    assert results.read_text().count("| `one` | 1 of 1 |") == 2
    status, _, error, started = run(text, "--seeds", "2", others=["variants: {one: {}}"])
    assert (status, started) == (2, []) and "variant 'one' has other settings in another ablation" in error


def test_settings_of_the_full_scale_replace_those_of_the_small(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "conf" / "full.yaml").write_text("model: {layers: 4}\n")
    text = """
variants: {one: {set: [training.lr=0.1], minutes: 3}, two: {}}
full: {seeds: [5], conf: conf/full.yaml, set: [], variants: {two: {conf: conf/model.yaml, set: [training.lr=0.2]}}}
"""
    _, table, _, started = run(text, "--scale", "full")
    assert started == [("one", 5), ("two", 5)] and "## An ablation, full scale" in table
    given = [arguments for *_, arguments in calls(tmp_path)]
    assert [Path(arguments[1]).name for arguments in given] == ["full.yaml", "model.yaml"]
    settings = [part for arguments in given for part in arguments if "=" in part]
    assert settings == ["training.lr=0.1", "seed=5", "training.lr=0.2", "seed=5"]


def test_list_prints_the_runs_that_are_left_and_runs_none(run: Callable) -> None:
    text = "variants: {one: {minutes: 3}, two: {minutes: 5, processes: 4}}"
    run(text, "--only", "one", "--seeds", "1")
    status, listed, _, started = run(text, "--list", "--jobs", "2")
    assert (status, started) == (0, [])
    assert "5 runs to do, 2 processes at a time: about 18 minutes" in listed  # (2 x 3 + 3 x 5 x 2) / 2
    assert "the time is unknown" in run("variants: {one: {}}", "--list")[1]


def test_runs_with_several_processes_run_alone(run: Callable) -> None:
    text = "variants: {one: {processes: 2}, two: {processes: 8}, three: {}}"
    _, _, log, _ = run(text, "--jobs", "2", "--seeds", "1")
    events = [line.split(": ")[1].split(" ")[0] for line in log.splitlines()]
    assert events == ["started", "finished"] * 3
