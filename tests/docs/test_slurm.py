"""The Slurm scripts of tools/slurm: what they start on each machine, with a Slurm that only prints."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SLURM = ROOT / "tools" / "slurm"
STUBS = {
    "srun": 'echo "srun $*"',
    "scontrol": "echo node07; echo node08",
}


@pytest.fixture
def submit(tmp_path):
    """submit("train.sbatch", "conf/x.yaml", ..., GPUS_PER_NODE="4") -> the finished process of the batch script."""
    (tmp_path / "bin").mkdir()
    for name, line in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "path.sh").write_text('asrtool() { echo "asrtool $*"; }\n')

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        slurm = {
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "node[07-08]",
            "SLURM_JOB_NUM_NODES": "2",
        }
        inherited = {name: value for name, value in os.environ.items() if "asrtool" not in name.lower()}
        environment = {**inherited, **slurm, **variables, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        command = ["bash", str(SLURM / script), *arguments]
        return subprocess.run(command, env=environment, text=True, capture_output=True)

    return run


def test_training_starts_one_torchrun_on_each_machine_which_meet_on_the_first(submit):
    done = submit("train.sbatch", "conf/x.yaml", "--exp", "exp/x", SLURM_GPUS_ON_NODE="8")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "srun python3 -m torch.distributed.run --nnodes 2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d "
        "--rdzv-endpoint node07:29500 --rdzv-id 17 -m asrtool train conf/x.yaml --exp exp/x --resume\n"
    )


def test_each_task_of_the_array_stores_its_share(submit):
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "20", "SLURM_CPUS_PER_TASK": "4"}
    done = submit("features.sbatch", "cuts.jsonl.gz", "out.jsonl.gz", "--speeds", "0.9,1.0", **task)
    assert done.stdout == "asrtool features cuts.jsonl.gz out.jsonl.gz --speeds 0.9,1.0 --shard 3/20 --jobs 4\n"
    again = submit(
        "features.sbatch", "cuts.jsonl.gz", "out.jsonl.gz", **task | {"SLURM_ARRAY_TASK_COUNT": "1"}, SHARES="20"
    )
    assert "--shard 3/20" in again.stdout


@pytest.mark.parametrize("script", ["train.sbatch", "features.sbatch"])
def test_without_arguments_a_script_says_what_it_needs(submit, script):
    done = submit(script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: error: give ")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = sorted(map(str, Path(SLURM).glob("*.sbatch")))
    done = subprocess.run(["shellcheck", "-s", "bash", "-e", "SC1091", *scripts], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout
