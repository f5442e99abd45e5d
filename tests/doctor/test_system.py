"""`asrtool doctor system` finds each planted fault of a trained system, and nothing in an intact one."""

import gzip
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from asrtool.config_file import load_config, save_config
from asrtool.doctor.findings import Severity
from asrtool.doctor.system import check_system
from asrtool.errors import UserError
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.decoding.graphs import ARPA, save_word_graph
from tests.doctor.systems import change_checkpoint, codes, require_clean, the_finding, touch
from tests.pack_files import change_manifest, make_pack, relist
from tests.tiny import WORDS, cut_short


@pytest.fixture
def graph(tokenizer_file, tmp_path):
    """Returns a graph for the units of the system."""
    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    return save_word_graph(tmp_path / "graph", load_tokenizer(tokenizer_file), tmp_path / "lm.arpa")


@pytest.fixture
def pack(trained, tokenizer_file, tmp_path):
    """Returns a pack with everything that a pack can carry."""
    return make_pack(tmp_path / "pack", trained, tokenizer_file)


def other_tokenizer():
    """Returns a tokenizer with another unit than the system's."""
    return train_tokenizer("word", [*list(WORDS)[:-1], "nine"])


def test_an_intact_system_has_no_findings(system, graph):
    report = check_system(system, graph)
    assert codes(report) == [] and report.exit_status == 0
    assert report.facts["units"] == 5
    assert "mean of the weights of steps 4, 8" in report.facts["checkpoint"]
    assert "torch" in report.facts["versions"]


def test_all_damaged_checkpoints_are_named(system):
    folder = system / "checkpoints"
    cut_short(folder / "averaged.pt", 0.7)
    cut_short(folder / "step-00000004.pt", 0.7)
    change_checkpoint(folder / "step-00000008.pt", lambda state: state["model"].pop("output.weight"))
    report = check_system(system)
    damaged = [finding.subject for finding in report.findings if finding.code == "damaged-weights"]
    assert sorted(damaged) == [str(folder / "averaged.pt"), str(folder / "step-00000004.pt")]
    assert "other-model" in codes(report)
    remedies = {finding.subject: finding.remedy for finding in report.findings if finding.code == "damaged-weights"}
    assert all("--resume" in remedy for remedy in remedies.values())
    assert "it lacks step 4" in remedies[str(folder / "averaged.pt")]


def test_an_intact_average_is_kept_and_both_names_of_a_damaged_file_are_deleted(system):
    folder = system / "checkpoints"
    best = next(path for path in folder.glob("step-*.pt") if path.samefile(folder / "best.pt"))
    best.write_bytes(best.read_bytes()[:1000])  # under both names
    finding = the_finding(check_system(system), "damaged-weights")
    assert finding.remedy.startswith(f"rm {best} {folder}/best.pt (averaged.pt is intact")
    assert "--resume" not in finding.remedy
    assert f"a new average would lack step {int(best.stem[5:])}, and differ" in finding.remedy


def test_a_damaged_average_is_written_again_by_the_training(system):
    path = system / "checkpoints/averaged.pt"
    cut_short(path, 0.7)
    remedy = the_finding(check_system(system), "damaged-weights").remedy
    assert remedy == f"rm {path}; asrtool train {system}/config.yaml --exp {system} --resume"


@pytest.mark.parametrize("damage", [lambda path: cut_short(path, 0.7), lambda path: path.unlink()])
def test_an_average_without_checkpoints_of_steps_cannot_be_written_again(system, damage):
    for path in system.glob("checkpoints/step-*.pt"):
        path.unlink()
    damage(system / "checkpoints/averaged.pt")
    remedies = [finding.remedy for finding in check_system(system).findings if "averaged.pt" in finding.subject]
    assert len(remedies) == 1 and "copy it again from the original" in remedies[0] and "--resume" not in remedies[0]


def set_checkpoint_of_result(system, name):
    path = system / "decode/test/greedy/decode.json"
    facts = json.loads(path.read_text(encoding="utf-8")) | {"checkpoint": name}
    path.write_text(json.dumps(facts), encoding="utf-8")


def test_a_missing_average_of_which_results_are(system):
    set_checkpoint_of_result(system, "averaged.pt")
    require_clean(system)
    (system / "checkpoints/averaged.pt").unlink()
    finding = the_finding(check_system(system), "missing-checkpoint")
    assert finding.subject == f"{system}/checkpoints/averaged.pt" and "the results of averaged.pt" in finding.cause
    assert finding.examples == (f"{system}/decode/test/greedy",)


def test_missing_checkpoints_of_the_average_and_of_a_result(system):
    path = system / "checkpoints/step-00000004.pt"
    path.unlink()
    set_checkpoint_of_result(system, "averaged.pt")
    report = check_system(system)
    assert codes(report) == []  # a note: the average is there
    assert [finding.examples for finding in report.findings if finding.code == "missing-checkpoint"] == [(path.name,)]
    (system / "checkpoints/averaged.pt").unlink()
    assert codes(check_system(system)) == ["missing-checkpoint"] * 2
    set_checkpoint_of_result(system, "epoch-3.pt")
    subjects = [finding.subject for finding in check_system(system).findings if finding.code == "missing-checkpoint"]
    assert f"{system}/checkpoints/epoch-3.pt" in subjects


def test_the_number_of_parameters_is_the_one_that_the_training_logged(system):
    rows = [json.loads(line) for line in (system / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert check_system(system).facts["parameters"] == f"{rows[0]['parameters']:,}"


def test_weights_that_are_not_finite(system):
    path = system / "checkpoints/averaged.pt"
    change_checkpoint(path, lambda state: state["model"]["output.bias"].fill_(torch.nan))
    finding = the_finding(check_system(system), "weights-not-finite")
    assert finding.subject == str(path) and "output.bias" in finding.cause


def test_a_configuration_that_was_edited_after_the_training(system):
    path = system / "config.yaml"
    config = load_config(path, ["training.lr=1e-4", "training.max_steps=9"])
    save_config(config, path)
    report = check_system(system)
    assert set(codes(report)) == {"config-changed"}
    assert report.findings[0].examples == ("training.lr: 0.003 -> 0.0001",)  # max_steps may be changed


def test_a_configuration_of_another_model(system):
    path = system / "config.yaml"
    save_config(load_config(path, ["model.layers=3"]), path)
    report = check_system(system)
    assert {"other-model", "config-changed"} == set(codes(report))


def test_a_damaged_configuration_and_a_missing_tokenizer_are_both_found(system):
    (system / "config.yaml").write_text("model: [\n", encoding="utf-8")
    (system / "tokenizer.json").unlink()
    assert codes(check_system(system)) == ["damaged-config", "damaged-tokenizer"]


def test_a_tokenizer_of_other_units(system):
    save_tokenizer(other_tokenizer(), system / "tokenizer.json")
    report = check_system(system)
    assert set(codes(report)) == {"other-units"}
    assert "tokenizer.json" in report.findings[0].remedy


def change_log(system, change):
    """Applies `change` to the rows of the log; rows for which it returns False go."""
    path = system / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if change(row)), encoding="utf-8")


def test_a_training_that_has_not_ended_and_its_old_average(system):
    change_log(system, lambda row: row["event"] != "finished")
    report = check_system(system)
    assert codes(report) == ["unfinished-training", "old-average"]
    assert "step is 8 of 8" in report.findings[0].cause
    assert report.findings[0].remedy == f"asrtool train {system}/config.yaml --exp {system} --resume"
    (system / "checkpoints/averaged.pt").unlink()
    the_finding(check_system(system), "unfinished-training")


def test_a_copy_with_new_times_has_no_findings(system):
    for path in sorted(system.rglob("*"), reverse=True):
        touch(path)
    assert codes(check_system(system)) == []


def test_no_checkpoint(system):
    shutil.rmtree(system / "checkpoints")
    the_finding(check_system(system), "no-checkpoint")


@pytest.mark.parametrize(
    ("content", "code"),
    [("[1, 2]", "priors-of-other-units"), ('["a", 1]', "damaged-priors"), ("[1,", "damaged-priors")],
)
def test_priors(system, content, code):
    (system / "priors.json").write_text(content, encoding="utf-8")
    the_finding(check_system(system), code)


def test_unit_counts_of_other_units(system):
    (system / "unit_ngram.json").write_text("[[[], [[77, 1]]]]", encoding="utf-8")
    the_finding(check_system(system), "damaged-unit-counts")


CALIBRATION = {
    "words": [{"intercept": 0.0, "acoustic": 1.0}],
    "utterances": {"intercept": 0.0, "weight": 1.0, "length_weight": 0.0},
    "checkpoint": "averaged.pt",
    "cuts": "data/dev.jsonl.gz",
}


def test_a_calibration_older_than_the_weights(system):
    path = system / "calibration.json"
    path.write_text(json.dumps({"format": 2, "methods": {"greedy": CALIBRATION}}), encoding="utf-8")
    require_clean(system)
    change_log(system, lambda row: row.update(time="2099-01-01T00:00:00+00:00") is None)
    report = check_system(system)
    assert codes(report) == ["old-calibration", "stale-result"]
    finding = next(finding for finding in report.findings if finding.code == "old-calibration")
    assert finding.remedy == f"asrtool calibrate {system} data/dev.jsonl.gz --method greedy"


NAMES = ["x; touch pwned", "$(touch pwned)", "n" * 5000, "a\0b", "/dev/zero"]


@pytest.mark.parametrize("name", NAMES)
def test_recorded_names_may_be_anything(system, name):
    calibration = CALIBRATION | {"cuts": name}
    other = CALIBRATION | {"checkpoint": name}
    text = json.dumps({"format": 2, "methods": {"greedy": calibration, name[:20]: other}})
    (system / "calibration.json").write_text(text, encoding="utf-8")
    path = system / "decode/test/greedy/decode.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts |= {"checkpoint": name, "options": {"cuts": name, "graph": name}, "command": name}
    path.write_text(json.dumps(facts), encoding="utf-8")
    change_log(system, lambda row: row.update(time="2099-01-01T00:00:00+00:00") is None)
    finding = the_finding(check_system(system), "old-calibration")
    assert shlex.split(finding.remedy)[3] == name


def test_a_folder_whose_name_has_shell_operators(system, tmp_path):
    folder = tmp_path / "a; touch pwned"
    shutil.move(system, folder)
    for name in ("averaged.pt", "step-00000004.pt"):
        cut_short(folder / "checkpoints" / name, 0.5)
    (folder / "decode/test/greedy/wer.json").unlink()
    remedies = [finding.remedy for finding in check_system(folder).findings]
    assert len(remedies) == 3 and all(f"'{folder}" in remedy for remedy in remedies)


def test_a_link_to_a_checkpoint_that_is_gone(system):
    (system / "checkpoints/step-00000001.pt").symlink_to("gone.pt")
    the_finding(check_system(system), "damaged-weights")


def test_progress_of_a_strangers_checkpoint(system):
    (system / "checkpoints/averaged.pt").unlink()
    for path in (system / "checkpoints").glob("*.pt"):
        change_checkpoint(path, lambda state: state.update(progress={"step": 3, "seconds": "many"}))
    assert check_system(system).facts["checkpoint"] == "best.pt: step 3"


def test_a_damaged_calibration(system):
    (system / "calibration.json").write_text('{"format": 2, "methods": {"greedy": {}}}', encoding="utf-8")
    the_finding(check_system(system), "damaged-calibration")


def test_results(system):
    result = system / "decode/test/greedy"
    hypotheses = result / "hyps.jsonl"
    hypotheses.write_text(hypotheses.read_text(encoding="utf-8").replace("one", "two"), encoding="utf-8")
    finding = the_finding(check_system(system), "stale-score")
    assert finding.remedy == f"asrtool score {result}"
    (result / "wer.json").unlink()
    assert codes(check_system(system)) == []
    assert "not-scored" in [finding.code for finding in check_system(system).findings]
    (result / "parts").mkdir()
    the_finding(check_system(system), "interrupted-result")
    hypotheses.unlink()
    assert codes(check_system(system)) == ["interrupted-result", "missing-hypotheses"]


def test_a_result_of_other_transcripts(system, corpus, tmp_path):
    rows = [json.loads(line) for line in gzip.decompress(corpus.read_bytes()).splitlines()]
    rows[0]["supervisions"][0]["text"] = "four four"
    cuts = tmp_path / "cuts.jsonl.gz"
    cuts.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows[:-1]).encode()))
    path = system / "decode/test/greedy/decode.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts | {"options": {"cuts": str(corpus)}}), encoding="utf-8")
    require_clean(system)
    path.write_text(json.dumps(facts | {"options": {"cuts": str(cuts)}}), encoding="utf-8")
    finding = the_finding(check_system(system), "stale-result")
    assert set(finding.examples) == {rows[0]["id"], rows[-1]["id"]}


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("asrtool decode exp/a 'b c'; rm -rf /", "asrtool decode {system} 'b c;' rm -rf /"),
        ("rm -rf /", "asrtool decode {system} CUTS --method greedy, where CUTS is the manifest of test"),
        ("asrtool decode 'x", "asrtool decode {system} CUTS --method greedy, where CUTS is the manifest of test"),
    ],
)
def test_a_recorded_command_is_shown_without_shell_operators(system, command, remedy):
    result = system / "decode/test/greedy"
    facts = json.loads((result / "decode.json").read_text(encoding="utf-8"))
    (result / "decode.json").write_text(json.dumps(facts | {"command": command}), encoding="utf-8")
    (result / "hyps.jsonl").unlink()
    assert the_finding(check_system(system), "missing-hypotheses").remedy == remedy.format(system=system)


@pytest.fixture
def copied(system, graph, corpus, tmp_path):
    """Returns a copied work folder, and the original: a training and a result with a graph and recorded paths."""
    original = tmp_path / "my work"
    (original / "data").mkdir(parents=True)
    shutil.copy(corpus, original / "data/test.jsonl.gz")
    shutil.move(graph, original / "data/graph")
    shutil.move(system, original / "exp")
    path = original / "exp/config.yaml"
    config = load_config(path, ["data.train=data/test.jsonl.gz"])
    save_config(config, path)
    for weights in (original / "exp/checkpoints").glob("*.pt"):
        change_checkpoint(weights, lambda state: state.update(config=config.model_dump(mode="json")))
    path = original / "exp/decode/test/greedy/decode.json"
    options = {"cuts": str(original / "data/test.jsonl.gz"), "graph": str(original / "data/graph")}
    command = "asrtool decode exp data/test.jsonl.gz --method greedy"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts |= {"options": options, "cuts": "data/test.jsonl.gz", "command": command}
    path.write_text(json.dumps(facts), encoding="utf-8")
    return Path(shutil.copytree(original, tmp_path / "copy/work")), original


def test_the_graph_and_the_manifest_of_a_copied_work_folder_are_checked(copied):
    copy, original = copied
    require_clean(copy / "exp")
    cut_short(copy / "data/graph/HLG.fst", 0.3)
    assert the_finding(check_system(copy / "exp"), "damaged-graph").subject == f"{copy}/data/graph/HLG.fst"
    shutil.copy(original / "data/graph/HLG.fst", copy / "data/graph/HLG.fst")
    rows = gzip.decompress((copy / "data/test.jsonl.gz").read_bytes()).splitlines(keepends=True)
    (copy / "data/test.jsonl.gz").write_bytes(gzip.compress(b"".join(rows[:-1])))
    finding = the_finding(check_system(copy / "exp"), "stale-result")
    assert finding.remedy == f"cd {copy} && asrtool decode exp data/test.jsonl.gz --method greedy --overwrite"


def test_commands_change_into_the_folder_that_their_paths_are_relative_to(copied, monkeypatch):
    _, work = copied
    cut_short(work / "exp/checkpoints/averaged.pt", 0.7)
    remedy = the_finding(check_system(work / "exp"), "damaged-weights").remedy
    path = shlex.quote(f"{work}/exp/checkpoints/averaged.pt")
    command = "asrtool train exp/config.yaml --exp exp --resume"
    assert remedy == f"rm {path}; cd '{work}' && {command}"
    shutil.move(work / "data/test.jsonl.gz", work / "data/other.jsonl.gz")
    remedy = the_finding(check_system(work / "exp"), "damaged-weights").remedy
    assert remedy.endswith("--resume (in the folder with data/test.jsonl.gz)")
    shutil.move(work / "data/other.jsonl.gz", work / "data/test.jsonl.gz")
    monkeypatch.chdir(work)
    assert the_finding(check_system(Path("exp")), "damaged-weights").remedy.endswith(f"averaged.pt; {command}")


def test_a_graph_is_rebuilt_from_the_files_beside_it(graph, tokenizer_file, tmp_path):
    shutil.copy(tokenizer_file, graph.parent / "tokenizer.json")
    cut_short(graph / "HLG.fst", 0.5)
    remedy = the_finding(check_system(graph), "damaged-graph").remedy
    assert remedy.startswith(f"asrtool graph {graph} --tokenizer {tmp_path}/tokenizer.json --lm {tmp_path}/lm.arpa")
    (tmp_path / "lm.arpa").unlink()
    assert "from the same tokenizer and language model" in the_finding(check_system(graph), "damaged-graph").remedy


def test_a_graph_of_other_units_and_a_damaged_one(system, graph, tmp_path):
    other = save_word_graph(tmp_path / "other", other_tokenizer(), tmp_path / "lm.arpa")
    finding = the_finding(check_system(system, other), "graph-of-other-units")
    assert str(other) in finding.remedy
    assert finding.cause.endswith("than the units of the model: unit 1 is nine in the graph, and four in the model")
    cut_short(graph / "HLG.fst", 0.5)
    the_finding(check_system(graph), "damaged-graph")
    (graph / "graph.json").write_text("{}", encoding="utf-8")
    the_finding(check_system(graph), "damaged-graph")


def test_an_intact_pack_and_its_graph(pack):
    report = check_system(pack)
    assert codes(report) == []
    assert report.facts["licence"] == "CC BY 4.0"
    assert codes(check_system(pack / "graph")) == []


def test_all_damaged_files_of_a_pack_are_named(pack):
    cut_short(pack / "model.safetensors", 0.5)
    (pack / "tokenizer.json").unlink()
    (pack / "priors.json").write_text((pack / "priors.json").read_text().replace("5", "6", 1), encoding="utf-8")
    (pack / "graph/extra.txt").write_text("", encoding="utf-8")
    report = check_system(pack)
    found = {(finding.code, finding.subject) for finding in report.of(Severity.ERROR)}
    assert ("damaged-file", str(pack / "model.safetensors")) in found
    assert ("missing-file", str(pack / "tokenizer.json")) in found
    assert ("damaged-file", str(pack / "priors.json")) in found
    assert ("unlisted-file", str(pack / "graph/extra.txt")) in found


def test_a_link_in_a_pack(pack, tmp_path):
    shutil.move(pack / "priors.json", tmp_path / "priors.json")
    (pack / "priors.json").symlink_to(tmp_path / "priors.json")
    the_finding(check_system(pack), "not-a-file")


def test_an_unlisted_link_to_a_folder_in_a_pack(pack, tmp_path):
    (pack / "graph/more").symlink_to(tmp_path, target_is_directory=True)
    assert ("unlisted-file", str(pack / "graph/more")) in {(f.code, f.subject) for f in check_system(pack).findings}


def test_a_pack_that_contradicts_its_files(pack):
    change_manifest(pack, lambda content: content["features"].update(num_bins=40))
    the_finding(check_system(pack), "pack-does-not-open")
    change_manifest(pack, lambda content: content.pop("licence"))
    the_finding(check_system(pack), "damaged-manifest")


def test_priors_of_a_pack_for_other_units(pack):
    (pack / "priors.json").write_text("[1, 2]", encoding="utf-8")
    relist(pack, "priors.json")
    the_finding(check_system(pack), "priors-of-other-units")


def test_other_versions_are_a_note(system):
    for name in ("averaged.pt",):
        change_checkpoint(system / "checkpoints" / name, lambda state: state["versions"].update(torch="1.0.0"))
    report = check_system(system)
    assert report.exit_status == 0
    assert [finding.code for finding in report.findings] == ["other-versions"]


def test_a_folder_that_is_no_system(tmp_path):
    with pytest.raises(UserError, match="neither a training, nor a pack, nor a decoding graph"):
        check_system(tmp_path)


def test_the_command_prints_and_returns_the_status(system, graph, asr):
    status, printed, _ = asr("doctor", "system", system, graph)
    assert status == 0 and printed.count("no errors, no warnings") == 2
    cut_short(system / "checkpoints/averaged.pt", 0.5)
    status, printed, _ = asr("doctor", "system", system, "--json")
    document = json.loads(printed)
    assert status == document["status"] == 1
    assert document["reports"][0]["findings"][0]["code"] == "damaged-weights"
    assert asr("doctor", "system", system / "none")[0] == 2
