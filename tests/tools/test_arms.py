"""An experiment of arms and seeds is run once, continued where it stopped, and told in a table that can be believed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import load_tool

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "arms.py"

# Stands in for asrtool: two dev losses, the last one that of --finals for the seed, and an end as --end says.
STUB = """
import argparse, json, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ("command", "conf"):
    parser.add_argument(name)
for name in ("--exp", "--threads", "--finals", "--init-from", "--phase"):
    parser.add_argument(name)
parser.add_argument("--set", action="append")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--end", default="finished")
given = parser.parse_args()
folder = pathlib.Path(given.exp)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with open(folder.parents[1] / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([folder.parent.name, int(folder.name), sys.argv[1:]]) + "\\n")
if given.init_from and not pathlib.Path(given.init_from).is_file():
    sys.exit(f"asrtool: error: checkpoint not found: {given.init_from}")
log = folder / "log.jsonl"
again = log.exists()
if again:  # as asrtool does after a crash
    log.write_text("".join(line for line in log.read_text().splitlines(True) if line.endswith("\\n")))
seed = int(given.set[-1].removeprefix("seed="))
finals = [float(final) for final in (given.finals or "0.5").split(",")]
final = finals[(seed - 1) % len(finals)]
with open(log, "a") as out:
    for step, factor in ((100, 2), (200, 1)):
        out.write(json.dumps({"event": "train", "step": step, "loss": 1.0, "hours": 0.75 * step / 100}) + "\\n")
        out.write(json.dumps({"event": "dev", "step": step, "loss": factor * final}) + "\\n")
    if given.end == "stopped":
        out.write(json.dumps({"event": "stopped", "step": 200}) + "\\n")
    if given.end == "finished" or again:
        (folder / "checkpoints" / "warmup.pt").touch()
        out.write(json.dumps({"event": "finished", "step": 200}) + "\\n")
        sys.exit(0)
if given.end == "waits":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("wrote a checkpoint")
        sys.exit(130)
print("asrtool: error: no luck in", folder)
print("=====")
sys.exit(130 if given.end == "interrupted" else 1)
"""
CLAIM = """
name: A claim
claim: one is better
seeds: [1, 2, 3]
conf: conf/model.yaml
set: [training.max_steps=900]
"""


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool as a module, with the stand-in for asrtool."""
    module = load_tool("arms", monkeypatch)
    import arms_run

    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "model.yaml").write_text("model: {layers: 2}\n")
    module.real_launcher = arms_run.launcher
    # -S: a Python without site-packages starts sooner.
    monkeypatch.setattr(arms_run, "launcher", lambda processes: [sys.executable, "-S", str(tmp_path / "stub.py")])
    monkeypatch.setattr(arms_run, "POLL", 0.01)
    return module


@pytest.fixture
def run(arms: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> Callable[..., tuple]:
    """run(rest of the claim, options..., others=those of others) -> exit status, stdout, stderr, (arm, seed) of each
    training started."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(text: str, *options: str, others: Sequence[str] = ()) -> tuple:
        claims = {"claim": CLAIM + text} | {f"other{n}": CLAIM + other for n, other in enumerate(others)}
        for name, claim in claims.items():
            (tmp_path / f"{name}.yaml").write_text(claim)
        before = len(calls(tmp_path))
        paths = [str(tmp_path / f"{name}.yaml") for name in claims]
        monkeypatch.setattr(sys, "argv", ["arms.py", *paths, "--work", str(tmp_path), *options])
        status = arms.main()
        out, err = capsys.readouterr()
        return status, out, err, [(arm, seed) for arm, seed, _ in calls(tmp_path)[before:]]

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def calls(work: Path) -> list:
    """What the stand-in was called with: arm, seed and arguments."""
    path = work / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cells(text: str, arm: str) -> dict[str, str]:
    """A row of the table, by column."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return dict(zip(rows[0], next(row for row in rows if row[0] == arm), strict=True))


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


def test_table_holds_what_can_be_computed_by_hand(run: Callable) -> None:
    text = """
threshold: 0.5
arms:
  one: {options: [--finals, "0.1,0.2,0.6"]}
  two: {options: [--finals, "0.5,0.7,0.9"]}
  gone: {options: [--finals, "0.4,nan,0.6"]}
compare: [[one, two], [one, gone]]
"""
    _, table, _, _ = run(text)
    one, two, gone = (cells(table, f"`{name}`") for name in ("one", "two", "gone"))
    # Mean 0.3, deviation sqrt(0.14 / 2) = 0.264575, t(2) = 4.302653, half 0.657242; and 0.7, 0.2, half 0.496828.
    assert one["final dev loss"] == "0.3 [-0.3572, 0.9572]"
    assert two["final dev loss"] == "0.7 [0.2032, 1.197]"
    # Mean 0.5, deviation 0.141421, t(1) = 12.706205, half 1.270620.
    assert gone["final dev loss"] == "0.5 [-0.7706, 1.771], 1 diverged"
    # Differences -0.4, -0.5, -0.3: mean -0.4, deviation 0.1, half 0.248414; and -0.3, 0: mean -0.15, half 1.905931.
    assert cells(table, "`one` - `two`")["final dev loss"] == "-0.4 [-0.6484, -0.1516]"
    assert cells(table, "`one` - `gone`")["final dev loss"] == "-0.15 [-2.056, 1.756], 1 diverged"
    below = "dev loss below 0.5 at step"  # a dev loss of twice the final one at step 100, the final one at 200
    assert (one[below], two[below], gone[below]) == ("100 (2 of 3)", "never (0 of 3)", "never (1 of 3)")
    assert (one["steps"], one["hours of audio"], one["best"], one["failed"]) == ("200", "1.50", "0.1", "0")
    assert "arms.py" in table and "1 threads" in table
    _, table, _, _ = run(text, "--seeds", "1")
    assert cells(table, "`one`")["final dev loss"] == "0.1 [n/a]"
    assert cells(table, "`one` - `two`")["final dev loss"] == "-0.4 [n/a]"


def test_section_is_put_in_its_place_and_nothing_else_is_touched(run: Callable, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    options = ("--results", str(results), "--seeds", "1")
    results.write_text("# Results\n\nBefore.\n")
    run("arms: {one: {}}", *options)
    first = results.read_text()
    assert first.startswith("# Results\n\nBefore.\n\n<!-- arms: A claim from here -->\n\n## A claim\n")
    assert first.endswith("<!-- arms: A claim to here -->\n")
    results.write_text(first + "\nAfter.\n")
    run("arms: {one: {}, two: {}}", *options)
    second = results.read_text()
    assert second.startswith("# Results\n\nBefore.\n\n<!-- arms") and second.endswith("to here -->\n\nAfter.\n")
    assert second.count("from here") == second.count("to here") == 1 and "`two`" in second
    results.write_text("<!-- arms: A claim from here -->\nno end\n")
    status, _, error, _ = run("arms: {one: {}}", *options)
    assert status == 2 and "need both" in error
    assert results.read_text() == "<!-- arms: A claim from here -->\nno end\n"


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
            "arms: {one: {}, two: {set: [model.mask=sliding, model.right=1]}}\ncompare: [[one, two]]\nequal: [latency]",
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
    driver = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import arms, arms_run\n"
    driver += f"arms_run.launcher = lambda processes: [sys.executable, {str(tmp_path / 'stub.py')!r}]\n"
    driver += "arms.section = lambda *_: 'the table'\n"  # without torch, which takes seconds to import
    (tmp_path / "driver.py").write_text(driver + "sys.exit(arms.main())\n")
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "claim.yaml"), "--work", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
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


def test_verdict_is_that_of_all_expectations_and_has_its_reason(run: Callable) -> None:
    text = """
arms:
  one: {options: [--finals, "0.1,0.2,0.1"]}
  two: {options: [--finals, "0.5,0.7,0.6"]}
  gone: {options: [--end, failed]}
why: {confirmed: So it is., contradicted: Who knows.}
"""
    table = run(text + "expect: [one < two]", "--only", "one")[1]
    assert "**Verdict: open** (`one < two` open, 3 of 6 runs to go)." in table
    table = run(text + "expect: [one < two, gone > 2]")[1]
    assert "**Verdict: confirmed** (`one < two` confirmed, difference [" in table
    assert "`gone > 2` confirmed, 3 of 3 seeds). So it is." in table
    assert "**Verdict: contradicted** (`two < one` contradicted" in run(text + "expect: [two < one, one < 2]")[1]
    table = run(text + "expect: [two < one]\nmeasure: mean")[1]  # of two losses, of which the first is twice the last
    assert cells(table, "`one`")["mean dev loss"].startswith("0.2 [") and "Mean dev loss: of all" in table


def test_picture_is_drawn_and_shown_in_the_results(run: Callable, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    text = "arms: {one: {}, gone: {options: [--end, failed]}}\nexpect: [one < 2]"
    run(text, "--seeds", "1,2", "--results", str(results), "--pictures", str(tmp_path / "pictures"))
    assert (tmp_path / "pictures" / "claim.png").read_bytes().startswith(b"\x89PNG")
    assert "![dev losses of A claim](pictures/claim.png)" in results.read_text()
    assert not list(tmp_path.rglob(".tmp-*"))


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


def test_gradients_of_the_lowest_and_the_highest_block_are_compared(run: Callable, tmp_path: Path) -> None:
    run("arms: {one: {}}", "--seeds", "1")
    with open(tmp_path / "one" / "1" / "log.jsonl", "a") as log:
        for step, low in ((1, 3.0), (2, 1.0)):
            row = {"event": "layers", "step": step, "layer_001": low, "layer_012": 2.0, "output": 9.0}
            log.write(json.dumps(row) + "\n")
    table = run("arms: {one: {}}", "--seeds", "1")[1]
    assert cells(table, "`one`")["lowest / highest gradient"] == "1.5, then 0.5"
