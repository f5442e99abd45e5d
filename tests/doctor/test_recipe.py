"""`asrtool doctor recipe` finds what is missing, old, or of another configuration, and nothing in a finished recipe."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asrtool.config_file import load_config, save_config
from asrtool.data.feature_store import store_features
from asrtool.doctor.findings import Report, Severity
from asrtool.doctor.recipe import check_recipe
from asrtool.doctor.recipe_list import last_options, list_recipe
from asrtool.errors import UserError
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.decoding.graphs import ARPA, save_word_graph
from tests.doctor.systems import codes, copy_system, the_finding, touch
from tests.tiny import cut_short

ROOT = Path(__file__).parents[2]
STAGES = {0: "prepare data", 1: "compute features", 2: "make units", 4: "train", 5: "decode", 6: "score"}
REAL_RECIPE = f"""set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
. {ROOT}/local/recipe.sh
units=word
conf=conf/tiny.yaml
run_recipe "$@"
"""
DATA_SCRIPT = """mkdir -p data
for name in train test; do printf '' | gzip >data/$name.jsonl.gz; done
echo test >data/scored_sets
"""


class FinishedRecipe:
    """A recipe whose run.sh prints a list of its stages, and the work folder that it would have written."""

    def __init__(self, folder: Path, trained: Path, corpus: Path, tokenizer: Path):
        self.recipe, self.work = folder / "recipe", folder / "work"
        self.conf = self.recipe / "conf/tiny.yaml"
        self.exp, self.lang = self.work / "exp/tiny", self.work / "data/lang"
        self.states = dict.fromkeys(STAGES, "done")
        self.lines: list[str] = []  # further ones that run.sh lists
        self.conf.parent.mkdir(parents=True)
        (self.recipe / "run.sh").write_text('cat "$(dirname "$0")/list"\n', encoding="utf-8")
        shutil.copy(trained / "config.yaml", self.conf)
        self._write_data(corpus, tokenizer)
        self.exp.parent.mkdir()
        copy_system(trained, self.exp.parent).rename(self.exp)
        result = self.exp / "decode/test/greedy"
        (self.exp / "results.txt").write_text("", encoding="utf-8")
        for name in ("decode.json", "hyps.jsonl", "wer.json"):
            touch(result / name)

    def _write_data(self, corpus: Path, tokenizer: Path) -> None:
        data = self.work / "data"
        (data / "fbank").mkdir(parents=True)
        (data / "scored_sets").write_text("test\n", encoding="utf-8")
        for name in ("train", "test"):
            shutil.copy(corpus, data / f"{name}.jsonl.gz")
            store_features(data / f"{name}.jsonl.gz", data / f"fbank/{name}.jsonl.gz", num_bins=20)
        self.lang.mkdir()
        shutil.copy(tokenizer, self.lang / "tokenizer.json")
        touch(self.lang / "tokenizer.json")

    def check(self, *options: str) -> Report:
        """Returns the report, after run.sh was made to list the current states."""
        folders = {"lang": "data/lang", "exp": self.exp, "start": self.exp, "conf": self.conf}
        lines = [f"folder\t{name}\t{path}" for name, path in folders.items()]
        lines += [f"stage\t{number}\t{self.states[number]}\t{title}\t" for number, title in STAGES.items()]
        (self.recipe / "list").write_text("\n".join(lines + self.lines) + "\n", encoding="utf-8")
        return check_recipe(self.recipe, self.work, options or None)


@pytest.fixture
def finished(trained, corpus, tokenizer_file, tmp_path) -> FinishedRecipe:
    """Returns a recipe that ran to the end."""
    return FinishedRecipe(tmp_path, trained, corpus, tokenizer_file)


def test_a_finished_recipe_has_no_findings(finished):
    report = finished.check()
    assert codes(report) == [], report.findings
    assert report.facts["stages"]["4"] == "done: train"


def test_stages_that_are_interrupted_changed_and_missing(finished):
    finished.states |= {2: "changed", 4: "interrupted", 5: "missing", 6: "missing"}
    report = finished.check("--units", "word")
    assert codes(report) == ["interrupted-stage", "changed-stage"]
    note = next(finding for finding in report.findings if finding.severity == Severity.NOTE)
    assert "stages 5, 6" in note.cause
    expected = f"bash {finished.recipe}/run.sh --units word --work {finished.work}"
    assert [finding.remedy for finding in report.findings[:2]] == [expected] * 2


def test_changed_stages_are_one_finding_that_names_the_first_and_the_newer_files(finished, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("old.txt", "new.txt", ".hidden"):
        (corpus / name).write_text("", encoding="utf-8")
    os.utime(corpus / "old.txt", (1000, 1000))
    (finished.work / ".done").mkdir()
    (finished.work / ".done/stage1").write_text("", encoding="utf-8")
    os.utime(finished.work / ".done/stage1", (2000, 2000))
    finished.states |= {1: "changed", 2: "changed", 4: "changed"}
    finished.lines = [f"input\t1\t{corpus}", f"input\t2\t{finished.conf}", "stop\t6"]
    finding = the_finding(finished.check(), "changed-stage")
    assert finding.subject == "stage 1 (compute features)" and finding.examples == (str(corpus / "new.txt"),)
    assert "stages 2, 4 depend on it" in finding.cause
    assert "--stop-stage" not in finding.remedy


def test_stages_that_a_run_does_not_reach_by_default_are_not_noted(finished):
    finished.states |= {6: "missing", 7: "missing", 8: "missing"}
    finished.lines = ["stage\t7\tmissing\tstream\t", "stage\t8\tmissing\texport\t", "stop\t6"]
    notes = [finding for finding in finished.check().findings if finding.code == "stages-to-run"]
    assert [note.examples for note in notes] == [("stage 6: score",)]
    finished.states[6] = "done"
    assert finished.check().findings == []


def test_a_damaged_graph_of_the_recipe(finished, tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    tokenizer = load_tokenizer(finished.lang / "tokenizer.json")
    graph = save_word_graph(finished.lang / "graph", tokenizer, tmp_path / "lm.arpa")
    assert codes(finished.check()) == []
    cut_short(graph / "HLG.fst", 0.5)
    finding = the_finding(finished.check(), "damaged-graph")
    assert finding.subject == str(graph / "HLG.fst") and finding.remedy.endswith(
        "--stage 2 --stop-stage 2 --force true"
    )


def test_all_missing_outputs_are_named(finished):
    (finished.work / "data/fbank/test.jsonl.gz").unlink()
    (finished.exp / "results.txt").unlink()
    report = finished.check()
    missing = {finding.examples: finding.remedy for finding in report.findings if finding.code == "missing-output"}
    assert set(missing) == {("data/fbank/test.jsonl.gz",), ("exp/tiny/results.txt",)}
    assert missing["data/fbank/test.jsonl.gz",].endswith("--stage 1 --stop-stage 1 --force true")
    finished.states[1] = "missing"  # a stage that has not run owes nothing
    assert ("data/fbank/test.jsonl.gz",) not in [finding.examples for finding in finished.check().findings]


def test_outputs_outside_of_the_work_folder_and_sets_with_brackets(finished, tmp_path):
    finished.exp = Path(shutil.move(finished.exp, tmp_path / "elsewhere"))
    for folder in ("data", "data/fbank"):
        (finished.work / folder / "test.jsonl.gz").rename(finished.work / folder / "test[1].jsonl.gz")
    (finished.exp / "decode/test").rename(finished.exp / "decode/test[1]")
    (finished.work / "data/scored_sets").write_text("test[1]\n", encoding="utf-8")
    assert codes(finished.check()) == []
    (finished.exp / "results.txt").unlink()
    assert the_finding(finished.check(), "missing-output").examples == (f"{finished.exp}/results.txt",)


def test_a_set_without_utterances(finished):
    for folder in ("data", "data/fbank"):
        (finished.work / folder / "test.jsonl.gz").write_bytes(gzip.compress(b""))
    assert "unreadable-output" not in codes(finished.check())


def test_features_of_another_manifest(finished, tmp_path):
    manifest = finished.work / "data/train.jsonl.gz"
    shutil.copy(finished.work / "data/fbank/test.jsonl.gz", manifest)
    touch(finished.lang / "tokenizer.json")
    finding = the_finding(finished.check(), "features-of-other-manifest")
    assert finding.subject == str(finished.work / "data/fbank/train.jsonl.gz")


def test_missing_archives_of_features(finished):
    for archive in (finished.work / "data/fbank/feats/test").glob("*/*.lca"):
        archive.unlink()
    assert the_finding(finished.check(), "missing-features").count == 1


def test_a_manifest_that_cannot_be_read(finished):
    (finished.work / "data/fbank/test.jsonl.gz").write_text("no manifest", encoding="utf-8")
    the_finding(finished.check(), "unreadable-output")


def test_units_older_than_the_transcripts(finished):
    tokenizer = finished.lang / "tokenizer.json"
    os.utime(tokenizer, (1000, 1000))
    assert the_finding(finished.check(), "older-than-input").remedy.endswith("--stage 2 --stop-stage 2 --force true")
    touch(tokenizer)
    os.utime(finished.work / "data/train.jsonl.gz", (5e9, 5e9))
    assert codes(finished.check()) == []  # a copy: the units are newer than the start of the training in the log


def test_a_system_of_other_units(finished):
    save_tokenizer(train_tokenizer("word", ["one", "two", "three", "five"]), finished.lang / "tokenizer.json")
    touch(finished.lang / "tokenizer.json")
    the_finding(finished.check(), "trained-with-other-units")


def test_a_configuration_that_was_edited_after_the_training(finished):
    config = load_config(finished.conf, ["training.lr=1e-4", "model.layers=2", "seed=5"])
    save_config(config, finished.conf)
    assert the_finding(finished.check(), "other-configuration").examples == ("training.lr: 0.003 -> 0.0001",)
    finished.lines = ["override\ttraining.lr=3e-3"]  # the options of the run say so
    assert codes(finished.check()) == []
    finished.lines = ["override\ttraining.lr=2e-3"]
    assert the_finding(finished.check(), "other-configuration").examples == ("training.lr: 0.003 -> 0.002",)


def test_a_broken_configuration(finished):
    (finished.recipe / "conf/other.yaml").write_text("modle: {}\n", encoding="utf-8")
    finding = the_finding(finished.check(), "bad-configuration")
    assert "unknown key 'modle'" in finding.cause


def test_a_system_of_other_training_data(finished):
    config = finished.exp / "config.yaml"
    copy = finished.work / "data/copied.jsonl.gz"
    shutil.copy(load_config(config).data.train_manifests[0], copy)
    for path in (finished.conf, config):
        save_config(load_config(path, ["data.train=data/copied.jsonl.gz"]), path)
    shutil.copy(finished.work / "data/fbank/test.jsonl.gz", copy)
    report = finished.check()
    assert "trained-on-other-data" in codes(report)
    copy.unlink()
    assert "missing-manifest" in codes(finished.check())


def test_findings_of_the_system_are_included(finished):
    path = finished.exp / "decode/test/greedy/hyps.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row | {"hyp": "one"}) + "\n" for row in rows), encoding="utf-8")
    the_finding(finished.check(), "stale-score")


@pytest.fixture
def real(tmp_path, tiny_config) -> Path:
    """Returns a recipe that uses the driver of all recipes."""
    recipe = tmp_path / "real"
    (recipe / "local").mkdir(parents=True)
    (recipe / "run.sh").write_text(REAL_RECIPE, encoding="utf-8")
    (recipe / "local/data.sh").write_text(DATA_SCRIPT, encoding="utf-8")
    save_config(tiny_config(), recipe / "conf/tiny.yaml")
    return recipe


def test_the_driver_lists_what_the_doctor_reads(real):
    command = ["bash", real / "run.sh", "--stop-stage", "0", "--seed", "3"]
    subprocess.run(command, check=True, capture_output=True)
    (real / ".done/lang").mkdir()
    (real / ".done/lang/running").write_text("2 (make units)\n", encoding="utf-8")
    run, problem = list_recipe(real, real, last_options(real))
    assert problem is None
    assert last_options(real) == ["--seed", "3"] and run.folders["exp"] == real / "exp/tiny_seed3"
    assert "seed=3" in run.overrides and run.last_stage == 6
    assert (0, real / "local/data.sh") in run.inputs
    states = {stage.number: stage.state for stage in run.stages}
    assert (states[0], states[2], states[4]) == ("done", "interrupted", "missing")
    (real / "local/data.sh").write_text(DATA_SCRIPT + "# changed\n", encoding="utf-8")
    report = check_recipe(real)
    assert codes(report) == ["interrupted-stage", "changed-stage"]
    assert report.findings[1].examples == (str(real / "local/data.sh"),)


def test_the_driver_lists_the_overrides_that_it_derives_from_options(real, tiny_config):
    save_config(tiny_config(training={"warmup_steps": 100, "max_steps": 200}), real / "conf/tiny.yaml")
    run, _ = list_recipe(real, real, ["--steps", "60", "--set", "training.lr=1e-3"])
    assert {"training.max_steps=60", "training.warmup_steps=6", "training.lr=1e-3"} <= set(run.overrides)


def test_the_driver_lists_the_folders_and_the_override_of_topology_hmm(real):
    options = ["--units", "phone", "--topology", "hmm", "--objective", "mmi", "--tag", "mine"]
    run, problem = list_recipe(real, real, options)
    assert problem is None
    assert run.folders["lang"] == real / "data/lang_phone_hmm"
    assert run.folders["exp"] == real / "exp/tiny_phone_mmi_seed1_hmm_mine"
    assert run.folders["start"] == real / "exp/tiny_phone_seed1_hmm_mine"
    assert "objective.topology=hmm" in run.overrides


def test_options_of_the_last_run_that_are_not_utf8(tmp_path):
    (tmp_path / ".done").mkdir()
    (tmp_path / ".done/options").write_bytes(b"--corpus\n/data/caf\xe9\n")
    assert os.fsencode(last_options(tmp_path)[1]) == b"/data/caf\xe9"


def test_recipes_that_cannot_be_asked(real):
    (real / "run.sh").write_text("echo 'error: bad option' >&2; exit 2\n", encoding="utf-8")
    assert "bad option" in the_finding(check_recipe(real), "recipe-does-not-list").cause
    (real / "run.sh").write_text("echo training\n", encoding="utf-8")
    the_finding(check_recipe(real), "recipe-without-driver")
    (real / "run.sh").write_text(
        "printf 'stage\\t0\\tdone\\tdata \\377\\t\\n'\n", encoding="utf-8"
    )  # no folders, no UTF-8
    the_finding(check_recipe(real), "recipe-without-driver")
    with pytest.raises(UserError, match=r"has no run\.sh"):
        check_recipe(real / "conf")


def test_the_command(finished, asr):
    finished.check()
    status, printed, _ = asr("doctor", "recipe", finished.recipe, "--work", finished.work, "--json")
    assert status == 0 and json.loads(printed)["reports"][0]["title"] == "Recipe recipe"
    (finished.exp / "results.txt").unlink()
    status, printed, _ = asr("doctor", "recipe", finished.recipe, "--work", finished.work, "--units", "word")
    assert status == 1 and "run.sh --units word --work" in printed
