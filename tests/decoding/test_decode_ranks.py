"""Several processes find together what one finds alone, whoever of them is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import asrtool
from asrtool.decoding import decode as decoding
from asrtool.decoding import partial_results
from asrtool.decoding.decode import decode
from asrtool.decoding.search_setup import open_search
from asrtool.errors import UserError
from asrtool.experiment import open_experiment

SECONDS = 4.0  # in a batch: the corpus makes about a dozen of them


def run(experiment, corpus, out, method="greedy"):
    found = open_experiment(experiment, device="cpu")
    search, settings, _ = open_search(method, found.tokenizer, {})
    return decode(found, corpus, out, "test", method, search, settings, batch_seconds=SECONDS, workers=0)


@pytest.fixture(scope="module")
def single(experiment, corpus, tmp_path_factory):
    """single(method) -> the folder that one process leaves"""
    folder = tmp_path_factory.mktemp("single")
    for method in ("greedy", "prefix"):
        run(experiment, corpus, folder / method, method)
    return lambda method: folder / method


@pytest.fixture
def as_rank(experiment, corpus, tmp_path, monkeypatch):
    """as_rank(1) -> what `decode` returns as rank 1 of 2; its folder is tmp_path"""
    monkeypatch.setattr(partial_results, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(decoding, "FILE_SECONDS", 0.0)  # a part a batch

    def call(rank):
        with monkeypatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", "2")
            return run(experiment, corpus, tmp_path)

    return call


def same(one, other):
    """Whether two folders have the same hypotheses, and nothing beside them but decode.json.

    Words with times and confidences are left out: the command writes them, `decode` only if it is given a describer.
    """
    names = [sorted(path.name for path in folder.iterdir() if path.name != ".lock") for folder in (one, other)]
    assert names == 2 * [["decode.json", "hyps.jsonl"]]
    return hypotheses(one) == hypotheses(other)


def hypotheses(folder):
    rows = [json.loads(line) for line in (folder / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in ("words", "confidence")} for row in rows]


def torchrun(experiment, corpus, *command):
    """`asrtool decode` in two processes of torchrun; `command` is what torchrun is to run, with options before it."""
    root = str(Path(asrtool.__file__).parents[1])
    options = ["--batch-seconds", str(SECONDS), "--workers", "0", "--device", "cpu"]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
        + ["decode", str(experiment), str(corpus), "--method", "greedy", "--method", "prefix", *options],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=180,
    )


def link(experiment, folder):
    """The same experiment under another name, for results of its own."""
    folder.mkdir()
    for path in experiment.iterdir():
        if path.name != "decode":
            (folder / path.name).symlink_to(path)
    return folder


def test_the_first_rank_joins_the_results_of_all_ranks(as_rank, single, tmp_path):
    assert as_rank(1) is None and not (tmp_path / "hyps.jsonl").exists()
    facts = as_rank(0)
    assert same(tmp_path, single("greedy"))
    alone = json.loads((single("greedy") / "decode.json").read_text(encoding="utf-8"))
    assert (facts["ranks"], alone["ranks"]) == (2, 1)
    assert all(facts[name] == alone[name] for name in ("set", "method", "utterances", "audio_seconds", "checkpoint"))
    assert facts["rtf"] == pytest.approx(facts["seconds"] / facts["audio_seconds"], abs=1e-3)


def test_a_missing_rank_is_named_and_may_come_later(as_rank, single, tmp_path):
    with pytest.raises(UserError, match="rank 1 of 0 to 1 wrote nothing into .* repeat the command"):
        as_rank(0)
    assert as_rank(1) is None
    assert as_rank(0)["utterances"] == 24 and same(tmp_path, single("greedy"))


def test_a_rank_that_is_restarted_after_the_end_does_nothing(as_rank, single, tmp_path):
    as_rank(1)
    facts = as_rank(0)
    assert as_rank(1) is None and same(tmp_path, single("greedy"))
    assert as_rank(0) == facts and same(tmp_path, single("greedy"))


@pytest.mark.slow
def test_torchrun_gives_the_result_of_one_process(experiment, corpus, single, tmp_path):
    exp = link(experiment, tmp_path / "exp")
    done = torchrun(exp, corpus, "-m", "asrtool")
    assert done.returncode == 0, done.stderr
    assert all(same(exp / "decode" / "cuts" / method, single(method)) for method in ("greedy", "prefix"))
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["cuts greedy", "cuts prefix"]
    assert all("24 utterances" in line and line.endswith(", 2 processes") for line in lines)


KILL = """
import os, signal
from asrtool.decoding import decode as decoding
from asrtool.decoding import partial_results
decoding.FILE_SECONDS = 0.0
rank, calls, real = int(os.environ["RANK"]), [], decoding.Experiment.log_probs
def log_probs(self, batch):
    calls.append(1)
    if len(calls) == 4 and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(f"LOG/{rank}", "a") as log:
        log.write(f"{batch.position.batch}\\n")
    return real(self, batch)
decoding.Experiment.log_probs = log_probs
from asrtool.cli import main
main()
"""


@pytest.mark.slow
def test_a_killed_rank_resumes_under_torchrun(experiment, corpus, single, tmp_path):
    exp = link(experiment, tmp_path / "exp")
    (tmp_path / "killed.py").write_text(KILL.replace("LOG", str(tmp_path)), encoding="utf-8")
    done = torchrun(exp, corpus, "--max-restarts", "1", str(tmp_path / "killed.py"))
    assert done.returncode == 0 and f"{-signal.SIGKILL}" in done.stderr, done.stderr
    assert all(same(exp / "decode" / "cuts" / method, single(method)) for method in ("greedy", "prefix"))
    decoded = [int(line) for line in (tmp_path / "1").read_text(encoding="utf-8").split()]
    assert decoded == 2 * sorted(set(decoded)) and len(decoded) > 8  # by both methods, each batch once
