"""An experiment of arms and seeds is run once, and continued where it stopped."""

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
from tests.tools.stub import CLAIM, calls, cells


def test_every_arm_runs_once_with_every_seed(run: Callable, tmp_path: Path) -> None:
    text = "arms: {one: {set: [training.lr=0.1], options: [--finals, 0.1]}, two: {}}"
    status, _, said, started = run(text, "--jobs", "2", "--threads", "1")
    assert status == 0
    assert sorted(started) == [(arm, seed) for arm in ("one", "two") for seed in (1, 2, 3)]
    assert said.count(": started") == 6 and said.count(": finished after") == 6
    arguments = next(arguments for arm, seed, arguments in calls(tmp_path) if (arm, seed) == ("one", 2))
    assert arguments[:2] == ["train", str(tmp_path / "conf" / "model.yaml")]
    assert arguments[2:5] == ["--exp", str(tmp_path / "one" / "2"), "--resume"]
    settings = [after for before, after in zip(arguments, arguments[1:], strict=False) if before == "--set"]
    assert settings == ["training.max_steps=900", "training.lr=0.1", "seed=2"]
    assert arguments[-2:] == ["--finals", "0.1"]
    status, table, _, started = run(text)
    assert (status, started) == (0, [])
    assert cells(table, "`one`")["seeds finished"] == "3 of 3"


def test_part_of_the_arms_and_seeds(run: Callable) -> None:
    text = "arms: {one: {after: two}, two: {after: three}, three: {}, four: {}}"
    _, table, _, started = run(text, "--only", "two", "--seeds", "7")
    assert started == [("three", 7), ("two", 7)]
    assert cells(table, "`four`")["seeds finished"] == "0 of 1"


def test_what_was_interrupted_or_cut_short_by_a_crash_is_continued(run: Callable, tmp_path: Path) -> None:
    text = "arms: {one: {options: [--end, interrupted]}}"
    _, table, said, _ = run(text, "--seeds", "1")
    assert "interrupted after" in said and cells(table, "`one`")["seeds finished"] == "0 of 1"
    with open(tmp_path / "one" / "1" / "log.jsonl", "a") as log:
        log.write('{"event": "tra')
    assert run(text, "--seeds", "1")[3] == [("one", 1)]


def test_failed_run_is_a_result_and_stops_nothing(run: Callable) -> None:
    text = "arms: {one: {options: [--end, failed]}, two: {}, three: {options: [--end, stopped]}}"
    status, table, said, started = run(text, "--seeds", "1,2")
    assert status == 0 and len(started) == 6
    assert cells(table, "`one`")["failed"] == "2" and cells(table, "`one`")["final dev loss"] == "-"
    assert cells(table, "`three`")["failed"] == "2" and cells(table, "`three`")["final dev loss"] == "diverged"
    assert cells(table, "`two`")["failed"] == "0"
    assert "- `one`, seed 2 failed: no luck in WORK/one/2" in table and "no luck in" in said
    assert "- `three`, seed 1 diverged: no luck" in table
    assert run(text, "--seeds", "1,2")[3] == []
    retried = run(text, "--seeds", "1,2", "--retry-failed", "--only", "one")
    assert retried[3] == [("one", 1), ("one", 2)]
    assert cells(retried[1], "`one`")["failed"] == "0"


def test_arm_starts_from_the_warmup_of_its_seed(run: Callable, tmp_path: Path) -> None:
    text = "arms: {main: {after: warm, processes: 2}, warm: {options: [--phase, warmup]}}"
    _, table, _, started = run(text, "--jobs", "2")
    order = {name: started.index(name) for name in started}
    assert all(order["warm", seed] < order["main", seed] for seed in (1, 2, 3))
    assert cells(table, "`main`")["seeds finished"] == "3 of 3"
    arguments = next(arguments for arm, seed, arguments in calls(tmp_path) if (arm, seed) == ("main", 3))
    warm = tmp_path / "warm" / "3" / "checkpoints" / "warmup.pt"
    assert arguments[arguments.index("--init-from") + 1] == str(warm)


def test_arm_whose_warmup_failed_fails_for_want_of_its_checkpoint(run: Callable) -> None:
    _, table, _, _ = run("arms: {main: {after: warm}, warm: {options: [--end, failed]}}", "--seeds", "1")
    assert "`main`, seed 1 failed: checkpoint not found: WORK/warm/1/checkpoints/warmup.pt" in table


def test_several_processes_are_torchruns_business(arms: ModuleType) -> None:
    assert arms.real_launcher(1) == [sys.executable, "-m", "asrtool"]
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "-m", "asrtool"]
    assert arms.real_launcher(8) == [sys.executable, *many]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("arms: {one: {}}\ncompares: []", [], "unknown key 'compares' (did you mean 'compare'?)"),
        ("arms: {one: {sets: []}}", [], "unknown key 'arms.one.sets' (did you mean 'set'?)"),
        ("arms: {one: {}}\ncompare: [[one, tow]]", [], "there is no arm 'tow'"),
        ("arms: {one: {after: tow}, two: {}}", [], "there is no arm 'tow' (did you mean 'two'?)"),
        ("arms: {one: {after: two}, two: {after: one}}", [], "one after two after one"),
        ("arms: {one: {}}", ["--only", "two"], "there is no arm 'two'"),
        ("arms: {one: {}}", ["--seeds", "1,b"], "'b'"),
        ("arms: {one: {}}", ["--chdir", "nowhere"], "nowhere is not a folder"),
        ("arms: {one: {set: [training.lrr=1]}}", [], "unknown key 'training.lrr'"),
        ("arms: {one: {}}\nexpect: [one << 2]", [], "'one << 2' is not one of 'A < B'"),
        ("arms: {one: {}}\nexpect: [one = 2]", [], "'one = 2' is not one of 'A < B'"),
        ("arms: {one: {}}\nexpect: [tow < 2]", [], "there is no arm 'tow'"),
        ("arms: {one: {}}\nexpect: [one < tow]", [], "there is no arm 'tow'"),
        ("arms: {one: {}}", ["--scale", "full"], "has no settings 'full'"),
        (
            "arms: {one: {}, two: {set: [model.layers=3]}}\ncompare: [[one, two]]\nequal: [parameters]",
            [],
            "one and two have 1,",
        ),
        (
            "arms: {one: {}, two: {set: [model.mask=sliding, model.right_context=1]}}\ncompare: [[one, two]]\nequal: [latency]",
            [],
            "latencies of 120 and inf ms",
        ),
        ("arms: {}", [], "arms: "),
        ("arms: {a/b: {}}", [], "arms.a/b"),
        ("arms: [", [], "not YAML"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(run: Callable, text: str, options: list, message: str) -> None:
    status, _, error, started = run(text, *options)
    assert (status, started) == (2, [])
    assert message in error and len(error.splitlines()) == 1


def test_settings_that_changed_are_refused(run: Callable, tmp_path: Path) -> None:
    text = "arms: {one: {options: [--finals, 0.1]}}"
    run(text, "--seeds", "1")
    for other in (
        "arms: {one: {options: [--finals, 0.2]}}",
        "arms: {one: {set: [training.lr=1], options: [--finals, 0.1]}}",
    ):
        status, _, error, started = run(other, "--seeds", "1")
        assert (status, started) == (2, []) and "other settings" in error
    (tmp_path / "conf" / "model.yaml").write_text("model: {layers: 3}\n")
    assert run(text, "--seeds", "1")[0] == 2


def test_ctrl_c_reaches_the_trainings_and_the_same_command_continues(run: Callable, tmp_path: Path) -> None:
    text = "arms: {one: {options: [--end, waits]}, two: {}}"
    (tmp_path / "claim.yaml").write_text(CLAIM + text)
    driver = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import arms, arms_run\n"
    driver += f"arms_run.launcher = lambda processes: [sys.executable, {str(tmp_path / 'stub.py')!r}]\n"
    driver += "arms.section = lambda *_: 'the table'\n"  # without torch, which takes seconds to import
    (tmp_path / "driver.py").write_text(driver + "sys.exit(arms.main())\n")
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "claim.yaml"), "--work", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(TOOLS.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while len((tmp_path / "one" / "1" / "log.jsonl").read_text().splitlines() if calls(tmp_path) else "") < 4:
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


def test_claims_share_the_arms_they_have_in_common(run: Callable, tmp_path: Path) -> None:
    text, results = "arms: {one: {set: [training.lr=0.1]}}", tmp_path / "results.md"
    options = ("--seeds", "1", "--results", str(results), "--command", "make {claim}")
    other = "name: Another\nset: [training.max_steps=900, training.lr=0.1]\narms: {one: {}, two: {}}"  # later wins
    status, _, _, started = run(text, *options, others=[other])
    assert (status, started) == (0, [("one", 1), ("two", 1)])
    assert "make claim\n" in results.read_text() and "make other0\n" in results.read_text()
    assert results.read_text().count("| `one` | 1 of 1 |") == 2
    status, _, error, started = run(text, "--seeds", "2", others=["arms: {one: {}}"])
    assert (status, started) == (2, []) and "arm 'one' has other settings in another claim" in error


def test_full_scale_lays_its_settings_over_the_small(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "conf" / "full.yaml").write_text("model: {layers: 4}\n")
    text = """
arms: {one: {set: [training.lr=0.1], minutes: 3}, two: {}}
full: {seeds: [5], conf: conf/full.yaml, set: [], arms: {two: {conf: conf/model.yaml, set: [training.lr=0.2]}}}
"""
    _, table, _, started = run(text, "--scale", "full")
    assert started == [("one", 5), ("two", 5)] and "## A claim, full scale" in table
    given = [arguments for *_, arguments in calls(tmp_path)]
    assert [Path(arguments[1]).name for arguments in given] == ["full.yaml", "model.yaml"]
    settings = [part for arguments in given for part in arguments if "=" in part]
    assert settings == ["training.lr=0.1", "seed=5", "training.lr=0.2", "seed=5"]


def test_list_says_what_there_is_to_do_and_does_nothing(run: Callable) -> None:
    text = "arms: {one: {minutes: 3}, two: {minutes: 5, processes: 4}}"
    run(text, "--only", "one", "--seeds", "1")
    status, listed, _, started = run(text, "--list", "--jobs", "2")
    assert (status, started) == (0, [])
    assert "5 runs to do, 2 processes at a time: about 18 minutes" in listed  # (2 x 3 + 3 x 5 x 2) / 2
    assert "nobody has measured" in run("arms: {one: {}}", "--list")[1]


def test_runs_of_several_processes_do_not_run_beside_others(run: Callable) -> None:
    text = "arms: {one: {processes: 2}, two: {processes: 8}, three: {}}"
    _, _, said, _ = run(text, "--jobs", "2", "--seeds", "1")
    events = [line.split(": ")[1].split(" ")[0] for line in said.splitlines()]
    assert events == ["started", "finished"] * 3
