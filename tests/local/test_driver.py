"""The driver of the recipes, with a stand-in for `asrtool` that writes the files of each command at once."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """#!/usr/bin/env bash
# Toy.
set -euo pipefail
cd "$(dirname "$0")"
. ../../local/recipe.sh
units=phone lexicon=cmudict decode=greedy lm_order=2 rescore_order=2
run_recipe "$@"
"""
STAND_IN = r"""
ASRTOOL_ROOT=$(dirname "$driver")
export ASRTOOL_ROOT
asrtool() {
    local last=${!#} out="" word
    echo "asrtool $*"
    case "$1 $2" in
    "train "*)
        for word in "$@"; do
            if [ "$out" = --exp ]; then break; fi
            out=$word
        done
        mkdir -p "$word/checkpoints"
        cp "$ASRTOOL_ROOT/tokenizer.json" "$word"
        if [ ! -f "$word/checkpoints/averaged.pt" ]; then date +%N >"$word/checkpoints/averaged.pt"; fi
        touch "$word/checkpoints/step-1.pt"
        ;;
    "align "*)
        if [ "${ALIGNED:-true}" = true ]; then mkdir -p "$(dirname "$4")" && touch "$4"; fi
        return "${ALIGN_STATUS:-0}"
        ;;
    "lm train-neural") sleep "${SECONDS_OF_NEURAL:-0}"; date +%N >"$lang/neural.pt" ;;
    "tokenizer "*) cp "$ASRTOOL_ROOT/tokenizer.json" "$3" ;;
    "tree "*) cp "$ASRTOOL_ROOT/tokenizer.json" "$3" ;;
    "lexicon "*) echo "one W AH N" >"$lang/lexicon.txt" ;;
    "graph "*) mkdir -p "$2" && touch "$2/graph.json" ;;
    "fmllr train") mkdir -p "$4" && date +%N >"$4/train.pt" ;;
    "score "*) echo WER ;;
    esac
}
"""
DATA = "echo x >data/train.jsonl.gz\nprintf 'test\\ndev\\n' >data/scored_sets\n"


class Recipe:
    """A recipe in a checkout of its own; `work` is its work folder."""

    def __init__(self, root: Path, environment: dict[str, str]):
        self.root, self.work = root, root / "work"
        self.environment = environment
        shutil.copytree(ROOT / "local", root / "local")
        files = {
            "egs/toy/run.sh": RUN,
            "egs/toy/conf/train.yaml": "features: {source: stored}\n",
            "egs/toy/local/data.sh": DATA,
            "local/path.sh": STAND_IN,
            "tokenizer.json": '{"type": "word", "symbols": ["<blank>", "one"]}',
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def start(self, *options: object, **variables: str) -> subprocess.Popen:
        command = ["bash", str(self.root / "egs/toy/run.sh"), "--work", str(self.work), *map(str, options)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=self.environment | variables, text=True, **pipes)

    def run(self, *options: object, status: int = 0, **variables: str) -> str:
        """Returns the output of the recipe."""
        process = self.start(*options, **variables)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == status, output
        return output

    def stages(self, *options: object) -> list[int]:
        """Returns the numbers of the stages that ran."""
        lines = self.run(*options).splitlines()
        return [int(line[6]) for line in lines if line.startswith("Stage ") and ": wrote " in line]

    def retrain(self, name: str) -> None:
        """Replaces the weights of a system, as another training does."""
        (self.work / "exp" / name / "checkpoints/averaged.pt").write_text(str(time.monotonic_ns()))


@pytest.fixture
def recipe(tmp_path, environment):
    return Recipe(tmp_path, environment)


def test_words_of_an_option_may_be_on_several_lines(recipe):
    changes = " \ntraining.max_steps=7\n\ttraining.warmup_steps=2 "
    output = recipe.run("--decode", "greedy\t\nprefix\n", "--set", changes)
    assert "--set training.max_steps=7 --set training.warmup_steps=2 " in output
    assert "--method greedy --method prefix" in output
    listed = (recipe.work / ".done/options").read_text().splitlines()
    assert listed == ["--set", "training.max_steps=7 training.warmup_steps=2", "--decode", "greedy prefix"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decode", "*"], "neural, fmllr or adapted, not '[*]'"),
        (["--decode", " \n"], "--decode needs a method"),
        (["--decode", "greedy\tfmllr"], "--decode fmllr needs a model"),
        (["--set", "seed=2"], "--set seed=2: .* --seed"),
        (["--set", "training.lr=0.1\nseed=2"], "--set seed=2: .* --seed"),
        (["--lm-text", "none.txt"], "--lm-text: no such file: /.*/none.txt"),
        (["--lm-text", "conf/train.yaml none.txt"], "--lm-text: no such file: /.*/none.txt"),
        (["--vocab_size leaves", "5"], "unknown option --vocab_size leaves"),
        (["--stage", "5"], "--stage 5: no data in .*, which stage 0 writes"),
        (["--stage", "7", "--stop-stage", "8"], "--stage 7: no data in .*, which stage 0 writes"),
        (["--work", ""], "--work: cannot create directory"),
        (["--work", "/dev/null"], "--work: cannot create directory"),
        (["--work", "/dev/null/x"], "--work: cannot create directory"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_status_2_before_any_stage(recipe, options, message):
    (line,) = recipe.run(*options, status=2).splitlines()
    assert re.search(rf"run\.sh: error: .*{message}", line)


def test_a_text_that_was_moved_away_does_not_hold_up_the_stages_that_do_not_read_it(recipe):
    recipe.run("--lm-text", "none.txt", "--stage", 3, "--stop-stage", 4)


@pytest.mark.parametrize("objective", ["mmi", "ce"])
def test_a_system_whose_starting_system_was_trained_again_is_refused_until_it_is_moved_away(recipe, objective):
    options = ["--objective", objective]
    assert recipe.stages(*options) == [0, 1, 2, 4, 5, 6]
    assert recipe.stages(*options) == []
    recipe.retrain("train_seed1")
    assert f"changed\ttrain with objective {objective}" in recipe.run(*options, "--list", "true")
    output = recipe.run(*options, status=2)
    assert "exp/train_seed1/checkpoints/averaged.pt has now: give another --tag" in output.splitlines()[-1]
    shutil.rmtree(recipe.work / f"exp/train_{objective}_seed1")
    output = recipe.run(*options)
    assert "Stage 4: wrote" in output and ("asrtool align" in output) == (objective == "ce")
    assert recipe.stages(*options) == []


def test_a_starting_system_that_is_removed_changes_nothing_until_it_is_needed(recipe):
    recipe.stages("--objective", "mmi")
    shutil.rmtree(recipe.work / "exp/train_seed1")
    assert recipe.stages("--objective", "mmi") == []


def test_a_system_that_from_names_counts_by_its_weights(recipe):
    recipe.stages()
    options = ["--objective", "mmi", "--from", recipe.work / "exp/train_seed1"]
    assert recipe.stages(*options) == [4, 5, 6]
    assert recipe.stages(*options) == []
    recipe.retrain("train_seed1")
    assert "was trained from other weights" in recipe.run(*options, status=2)
    assert recipe.stages(*options, "--tag", "again") == [4, 5, 6]


def test_units_in_context_are_grown_again_after_their_phone_system_was_trained_again(recipe):
    options = ["--units", "biphone"]
    assert recipe.stages(*options) == [0, 1, 2, 4, 5, 6]
    assert recipe.stages(*options) == []
    recipe.retrain("train_seed1")
    output = recipe.run(*options)
    assert "asrtool align" in output and "asrtool tree" in output
    assert recipe.stages(*options) == []


def test_units_in_context_are_not_grown_from_a_system_with_other_phones(recipe):
    recipe.stages("--units", "biphone")
    (recipe.root / "tokenizer.json").write_text('{"type": "word", "symbols": ["<blank>", "two"]}')
    output = recipe.run("--units", "biphone", "--stress", "drop", status=2)
    assert "exp/train_seed1 was trained with other phones" in output.splitlines()[-1]


@pytest.mark.parametrize("options", [["--objective", "ce"], ["--units", "biphone"]])
def test_cuts_that_cannot_be_aligned_do_not_stop_a_recipe_but_a_failed_alignment_does(recipe, options):
    assert "stopped with exit status 1" in recipe.run(*options, status=1, ALIGN_STATUS="1", ALIGNED="false")
    assert "stopped with exit status 3" in recipe.run(*options, status=3, ALIGN_STATUS="3")
    assert "Stage 6: wrote" in recipe.run(*options, ALIGN_STATUS="1")


def test_pronunciations_are_counted_once_for_the_graph_of_each_system(recipe):
    options = ["--decode", "graph", "--pronunciation-hours", "2.5"]
    output = recipe.run(*options)
    counted = "asrtool lexicon exp/train_seed1/pronunciations/words.txt"
    assert "--max-hours 2.5" in output and output.count(counted) == 1
    decoded = [line for line in output.splitlines() if line.startswith("asrtool decode")]
    assert decoded and all("--graph exp/train_seed1/graph" in line for line in decoded)
    assert counted not in recipe.run(*options, "--stage", 5, "--force", "true")
    assert "exp/train_seed2/pronunciations" in recipe.run(*options, "--seed", 2)
    for others in (["--pronunciation-hours", "0"], ["--units", "word"]):
        output = recipe.run("--decode", "graph", *others)
        assert "words.txt" not in output and "--graph data/lang" in output


def test_pronunciations_of_units_in_context_are_counted_in_the_alignment_of_the_phone_system(recipe):
    output = recipe.run("--units", "biphone", "--decode", "graph")
    assert output.count("asrtool align") == 1 and "--aligned data/lang_biphone/aligned/train.jsonl.gz" in output


NEURAL = ["--decode", "graph rescored neural"]


def test_the_neural_language_model_is_trained_again_with_other_options_or_units(recipe, tmp_path):
    assert recipe.run(*NEURAL).count("lm train-neural") == 1
    assert "lm train-neural" not in recipe.run(*NEURAL, "--seed", 2)
    assert "lm train-neural" not in recipe.run(*NEURAL, "--force", "true", "--stage", 4)
    output = recipe.run(*NEURAL, "--neural", "--epochs 3")
    assert "--epochs 3" in output and "Stage 5: wrote" in output
    (tmp_path / "text.txt").write_text("one\n")
    output = recipe.run(*NEURAL, "--neural", "--epochs 3", "--lm-text", tmp_path / "text.txt")
    assert output.count("lm train-neural") == 1


def test_two_seeds_at_once_train_one_neural_language_model(recipe):
    recipe.stages("--stop-stage", 2)
    started = [recipe.start(*NEURAL, "--seed", seed, SECONDS_OF_NEURAL="2") for seed in (1, 2)]
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "".join(outputs).count("lm train-neural") == 1


def test_the_gmm_of_speaker_transforms_is_trained_once_for_the_data_and_units(recipe):
    options = ["--fmllr", "true"]
    assert recipe.run(*options).count("fmllr train") == 1
    assert "fmllr train" not in recipe.run(*options, "--seed", 2)
    assert recipe.run(*options, "--stress", "drop").count("fmllr train") == 1
    assert "exp/fmllr_biphone" in recipe.run(*options, "--units", "biphone")
    assert "fmllr train" not in recipe.run(*options, "--stress", "drop", "--seed", 3)


def test_systems_with_and_without_stored_features_do_not_repeat_each_other(recipe):
    (recipe.root / "egs/toy/conf/direct.yaml").write_text("features: {source: on_the_fly}\n")
    direct = ["--conf", "conf/direct.yaml"]
    assert recipe.stages() == [0, 1, 2, 4, 5, 6]
    assert recipe.stages(*direct) == [4, 5, 6]
    assert recipe.stages() == recipe.stages(*direct) == []
    assert recipe.stages("--speeds", "1.0") == [1, 4, 5, 6]
    assert recipe.stages(*direct) == []
    assert recipe.stages("--lm-words", 5, "--speeds", "1.0") == [2, 4, 5, 6]
    assert recipe.stages(*direct, "--lm-words", 5) == [4, 5, 6]


def test_names_of_sets_may_be_on_separate_lines(recipe):
    output = recipe.run("--stop-stage", 8)
    assert "asrtool lm perplexity data/lang/graph.arpa.gz data/dev.jsonl.gz" in output
    assert "--cuts data/fbank/test.jsonl.gz" in output
    assert "asrtool features data/dev.jsonl.gz" in output


def test_list_writes_nothing(recipe):
    recipe.work.mkdir()
    recipe.run("--objective", "mmi", "--list", "true")
    assert os.listdir(recipe.work) == []


def test_a_system_that_from_names_is_never_trained(recipe):
    recipe.stages()
    other = recipe.work / "other"
    other.mkdir()
    (other / "config.yaml").write_text("{}\n")
    for name in ("nowhere", "other", "exp"):
        output = recipe.run("--objective", "mmi", "--from", recipe.work / name, status=2)
        (line,) = output.splitlines()
        assert f"--from: no trained system in {recipe.work / name}" in line
    assert not (recipe.work / "nowhere").exists() and sorted(path.name for path in other.iterdir()) == ["config.yaml"]
    relative = recipe.run("--objective", "ce", "--from", "exp/train_seed1", status=2)  # to --work, not to the caller
    assert "no trained system in" in relative
    recipe.run("--objective", "mmi", "--from", recipe.work / "nowhere", "--list", "true")


@pytest.mark.parametrize("objective", ["mmi", "ce"])
def test_a_pack_that_from_names_counts_by_its_weights_and_is_only_read(recipe, objective):
    recipe.stages()
    pack = recipe.work / "pack"
    pack.mkdir()
    for name in ("model.json", "config.yaml", "model.safetensors"):
        (pack / name).write_text("{}\n")
    options = ["--objective", objective, "--from", pack]
    output = recipe.run(*options)
    assert f"--exp {pack}" not in output
    assert (f"--init-from {pack}/model.safetensors" if objective == "mmi" else f"asrtool align {pack} ") in output
    assert recipe.stages(*options) == []
    assert sorted(path.name for path in pack.iterdir()) == ["config.yaml", "model.json", "model.safetensors"]
    (pack / "model.safetensors").write_text("others")
    assert "was trained from other weights than" in recipe.run(*options, status=2)


def test_a_warmup_is_refused_before_a_training_that_starts_from_another_system(recipe):
    recipe.stages()
    output = recipe.run("--objective", "mmi", "--from", recipe.work / "exp/train_seed1", "--warmup-hours", 1, status=2)
    assert len(output.splitlines()) == 1 and "--warmup-hours is for a training from random weights" in output
    assert not (recipe.work / "exp/train_seed1/warmup").exists()


CONTRADICTIONS = [
    (["--set", "objective.kind=mmi"], "objective.kind mmi, and --objective is ctc"),
    (["--set", "objective.kind=ce", "--objective", "mmi"], "objective.kind ce, and --objective is mmi"),
    (["--conf", "conf/of_mmi.yaml"], "objective.kind mmi, and --objective is ctc"),
    (["--conf", "conf/of_mmi.yaml", "--objective", "ce"], "objective.kind mmi, and --objective is ce"),
]


@pytest.mark.parametrize(("options", "message"), CONTRADICTIONS)
def test_a_configuration_of_another_objective_than_the_option_is_refused(recipe, options, message):
    (recipe.root / "egs/toy/conf/of_mmi.yaml").write_text("base: train.yaml\nobjective: {kind: mmi}\n")
    output = recipe.run(*options, status=2)
    assert len(output.splitlines()) == 1 and message in output


@pytest.mark.parametrize("options", [["--set", "objective.kind=mmi"], ["--conf", "conf/of_mmi.yaml"]])
def test_the_start_of_a_configuration_of_mmi_is_trained_with_ctc(recipe, options):
    (recipe.root / "egs/toy/conf/of_mmi.yaml").write_text("base: train.yaml\nobjective: {kind: mmi}\n")
    output = recipe.run(*options, "--objective", "mmi", "--units", "biphone", "--warmup-hours", 1)
    trainings = [line.split() for line in output.splitlines() if line.startswith("asrtool train ")]
    kinds = [[word for word in words if word.startswith("objective.kind=")][-1] for words in trainings]
    assert kinds == [f"objective.kind={kind}" for kind in ("ctc", "ctc", "ctc", "mmi")]  # phones, warmup, start


def test_the_configuration_of_mmi_beside_the_one_of_ctc_is_used_for_mmi_alone(recipe):
    (recipe.root / "egs/toy/conf/train_mmi.yaml").write_text("base: train.yaml\nobjective: {kind: mmi}\n")
    output = recipe.run("--objective", "mmi")
    trainings = [line.split() for line in output.splitlines() if line.startswith("asrtool train ")]
    assert [Path(words[2]).name for words in trainings] == ["train.yaml", "train_mmi.yaml"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", "08"),
        ("--steps", "99999999999999999999"),
        ("--lm-order", "99999999999999999999"),
        ("--rescore-order", "09"),
        ("--jobs", "1e3"),
        ("--ranks", "99999999999999999999"),
        ("--seed", "01"),
        ("--tag", "hmm"),
        ("--tag", "fmllr"),
        ("--tag", "hmm_mine"),
    ],
)
def test_numbers_that_the_shell_reads_otherwise_and_tags_of_other_systems_are_refused(recipe, option, value):
    output = recipe.run(option, value, status=2)
    assert len(output.splitlines()) == 1 and "error: " + option in output


def test_large_seeds_and_tags_that_only_resemble_those_of_other_systems_are_taken(recipe):
    recipe.run("--seed", 2**62, "--tag", "hmmer", "--steps", 1, "--stop-stage", 4)
    assert (recipe.work / f"exp/train_seed{2**62}_hmmer/checkpoints/averaged.pt").is_file()
