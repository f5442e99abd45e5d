"""A stand-in for asrtool for tests of tools/ablations.py, and readers of its records."""

import json
from pathlib import Path

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
ABLATION = """
name: An ablation
hypothesis: one is better
seeds: [1, 2, 3]
conf: conf/model.yaml
set: [training.max_steps=900]
"""


def calls(work: Path) -> list:
    """Returns variant, seed and arguments of each call of the stand-in."""
    path = work / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cells(text: str, variant: str) -> dict[str, str]:
    """Returns a row of the table, by column."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return dict(zip(rows[0], next(row for row in rows if row[0] == variant), strict=True))
