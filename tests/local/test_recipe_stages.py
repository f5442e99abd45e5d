"""Single stages of the recipes, with a stand-in for `asrtool` that prints its arguments."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = """
set -euo pipefail
driver={driver}
. "$driver/train.sh"
. "$driver/decode.sh"
. "$driver/recipe_stages.sh"
asrtool() {{ echo "asrtool $*"; if [ "$1" = align ]; then touch "$4"; fi; }}
begin_stage() {{ :; }}
finish_stage() {{ :; }}
stages_fingerprint=fingerprint
exp=exp/mine graph=lang/graph start=exp/ctc aligned=data/aligned/mine features=data sets="dev test" launcher="" ranks=1
precision=auto final_conf=conf.yaml config_options=(--set "seed=2") train_options=(--set "seed=2" --resume)
"""


@pytest.fixture
def call(tmp_path, environment):
    """call("stage_export") -> the lines that the function prints in a work folder, in which conf.yaml is `conf`."""

    def run(function, conf="{}"):
        (tmp_path / "conf.yaml").write_text(conf)
        script = STAND_INS.format(driver=ROOT / "local") + function
        done = subprocess.run(
            ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_the_table_of_all_systems_is_not_a_file_of_the_checkout(call, tmp_path):
    (tmp_path / "exp/mine").mkdir(parents=True)
    (tmp_path / "exp/mine/results.txt").touch()
    assert call("stage_export")[-1] == "asrtool report exp/mine --out exp/RESULTS.md"
    tracked = subprocess.run(["git", "check-ignore", "egs/librispeech/exp/RESULTS.md"], cwd=ROOT, check=False)
    assert tracked.returncode == 0


def test_cross_entropy_aligns_the_manifests_of_the_configuration_once(call):
    conf = "data: {train: data/fbank/train.jsonl.gz, dev: data/fbank/dev.jsonl.gz}"
    lines = call("train_with_alignments", conf)
    assert lines[:2] == [
        f"asrtool align exp/ctc data/fbank/{name}.jsonl.gz data/aligned/mine/{name}.jsonl.gz --precision auto"
        for name in ("train", "dev")
    ]
    (training,) = lines[2:]
    assert training.startswith("asrtool train conf.yaml --exp exp/mine --set seed=2 --resume --set objective.kind=ce")
    assert "data.train=data/aligned/mine/train.jsonl.gz" in training
    assert call("train_with_alignments", conf) == [training]


def test_cross_entropy_trains_on_all_corpora_with_their_weights(call):
    conf = """data:
  train: [{manifest: one/train.jsonl.gz, weight: 3}, {manifest: two/train.jsonl.gz, weight: 1}]
  dev: {near: one/dev.jsonl.gz, same: one/train.jsonl.gz}
"""
    lines = call("train_with_alignments", conf)
    folder = "data/aligned/mine"
    assert lines[:3] == [
        f"asrtool align exp/ctc one/train.jsonl.gz {folder}/train.jsonl.gz --precision auto",
        f"asrtool align exp/ctc two/train.jsonl.gz {folder}/1_train.jsonl.gz --precision auto",
        f"asrtool align exp/ctc one/dev.jsonl.gz {folder}/dev.jsonl.gz --precision auto",
    ]
    assert f'{{"manifest": "{folder}/train.jsonl.gz", "weight": 3.0}}' in lines[3]
    assert f'{{"manifest": "{folder}/1_train.jsonl.gz", "weight": 1.0}}' in lines[3]
    assert f'data.dev={{"near": "{folder}/dev.jsonl.gz", "same": "{folder}/train.jsonl.gz"}}' in lines[3]


def test_all_models_of_the_recipes_are_opened_in_the_precision_of_the_option(call, tmp_path):
    (tmp_path / "exp/mine/aligned").mkdir(parents=True)
    (tmp_path / "exp/mine/config.yaml").touch()
    lines = call("tune_decoding exp/mine 1 data/dev.jsonl.gz")
    lines += call('decode_once exp/mine lang "" 1 "greedy graph neural" "" data/dev.jsonl.gz data/test.jsonl.gz')
    lines += call('decode_once exp/mine lang "" 1 graph _adapted data/test.jsonl.gz --adapted exp/mine/adapted/test')
    lines += call('stream_sets exp/mine "" "greedy graph" data/test.jsonl.gz')
    models = [line for line in lines if line.split()[1] in ("tune", "decode", "align", "stream")]
    assert len(models) == 8 and all("--precision auto" in line for line in models)
    rescored = [line for line in lines if line.startswith("asrtool rescore")]
    assert len(rescored) == 2 and all("--precision" not in line for line in rescored)


def test_alignments_of_another_precision_are_replaced(call, tmp_path):
    align = "align_once exp/ctc aligned mine data/train.jsonl.gz aligned/train.jsonl.gz"
    assert len(call(align)) == 1 and call(align) == []
    assert call(f"precision=fp32; {align}")[0].endswith("--precision fp32")
