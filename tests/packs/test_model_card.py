"""The model card: what an experiment has measured, and nothing else."""

import json
import re
import shutil
import unicodedata

import pytest
from lhotse import CutSet

from asrtool.data.lhotse_sets import open_cuts
from asrtool.files import file_hash
from asrtool.pack_manifest import read_manifest
from asrtool.packs.model_card import model_card
from tests.pack_files import carried_files
from tests.tiny import write_other_weights

FAST = ("--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def cuts(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "test.jsonl.gz"
    CutSet.from_cuts(list(open_cuts(corpus))[:5]).to_file(path)
    return path


@pytest.fixture
def exp(experiment, tmp_path):
    return shutil.copytree(experiment, tmp_path / "exp", ignore=shutil.ignore_patterns("decode"))


def section(card, name):
    return card.split(f"## {name}\n")[1].split("\n## ")[0]


def test_the_card_has_the_scores_of_the_packed_checkpoint(asr, exp, cuts, corpus, tmp_path):
    write_other_weights(exp / "checkpoints/best.pt", exp / "checkpoints/other.pt")
    assert asr("decode", exp, cuts, "--method", "greedy", "--method", "prefix", *FAST)[0] == 0
    assert asr("decode", exp, cuts, "--checkpoint", "other", "--tag", "other", *FAST)[0] == 0
    assert asr("score", *(exp / "decode/test").glob("*"))[0] == 0
    assert asr("decode", exp, cuts, "--tag", "unscored", *FAST)[0] == 0
    command = ("pack", exp, tmp_path / "pack", "--licence", "MIT | see\nbelow", "--train-cuts", corpus)
    assert asr(*command)[0] == 0
    shutil.rmtree(exp / "checkpoints")

    card = (tmp_path / "pack/README.md").read_text(encoding="utf-8")
    results = section(card, "Results")
    for method in ("greedy", "prefix"):
        score = json.loads((exp / f"decode/test/{method}/wer.json").read_text())
        facts = json.loads((exp / f"decode/test/{method}/decode.json").read_text())
        low, high = score["wer_interval"]
        row = f"| test | {score['words']['length']} words | {method} | {score['wer']:.2f} [{low:.2f}, {high:.2f}]"
        assert f"{row} | {facts['rtf']:.4f} | {facts['device']}" in results
    assert "other" not in results and "unscored" not in results
    assert section(card, "Licence").strip() == "MIT | see\nbelow"
    hours = sum(cut.duration for cut in open_cuts(corpus)) / 3600
    assert f"{hours:.1f} hours, 24 utterances" in section(card, "Facts")
    assert "cannot stream" in card and "parameters" in card

    status, out, _ = asr("info", tmp_path / "pack")
    printed = re.sub(r" +", " ", out)
    assert status == 0 and "units 5 (word), blank included" in printed and "test, greedy WER" in printed


def test_results_belong_to_weights_and_not_to_their_name(asr, exp, cuts, tmp_path):
    best, copy = exp / "checkpoints/best.pt", exp / "checkpoints/copy.pt"
    assert asr("decode", exp, cuts, "--tag", "old", *FAST)[0] == 0
    write_other_weights(best, best)  # as of another training in the same folder
    shutil.copy(best, copy)
    assert asr("decode", exp, cuts, "--tag", "new", *FAST)[0] == 0
    assert asr("decode", exp, cuts, "--checkpoint", "copy", "--tag", "copy", *FAST)[0] == 0
    assert asr("score", *(exp / "decode/test").glob("*"))[0] == 0
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    packed = read_manifest(tmp_path / "pack")
    assert [result.method for result in packed.results] == ["greedy-copy", "greedy-new"]
    assert {result.facts["checkpoint_sha256"] for result in packed.results} == {packed.training.checkpoint_sha256}
    status, out, _ = asr("report", exp, "--html", tmp_path / "page.html", "--no-audio")
    assert status == 0, out
    assert "of different weights" in (tmp_path / "page.html").read_text()

    assert asr("pack", tmp_path / "pack", tmp_path / "again")[0] == 0  # the same weights in another file
    again = read_manifest(tmp_path / "again")
    assert again.results == packed.results and again.training == packed.training

    write_other_weights(best, copy)
    assert asr("pack", tmp_path / "pack", tmp_path / "other", "--checkpoint", copy)[0] == 0
    other = read_manifest(tmp_path / "other")
    assert other.results == [] and other.training.checkpoint == "copy.pt"
    assert other.training.checkpoint_sha256 == file_hash(copy) and other.training.steps is None


def test_results_of_earlier_versions_belong_to_the_name_of_their_checkpoint(asr, exp, cuts, tmp_path):
    for tag, checkpoint in (("same", "best.pt"), ("other", "other.pt")):
        assert asr("decode", exp, cuts, "--tag", tag, *FAST)[0] == 0
        path = exp / f"decode/test/greedy-{tag}/decode.json"
        facts = json.loads(path.read_text())
        del facts["checkpoint_sha256"]
        path.write_text(json.dumps(facts | {"checkpoint": checkpoint}))
    assert asr("score", *(exp / "decode/test").glob("*"))[0] == 0
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    assert [result.method for result in read_manifest(tmp_path / "pack").results] == ["greedy-same"]


def test_what_was_not_measured_is_said(asr, exp, tmp_path):
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    card = (tmp_path / "pack/README.md").read_text(encoding="utf-8")
    assert "had not been scored" in section(card, "Results") and "not stated" in section(card, "Licence")
    assert "hours not stated" in card and "nothing but the model" in card


def test_the_card_states_the_latency_of_a_streaming_model(asr, stream_experiment, tokenizer_file, tmp_path):
    graph = carried_files(tmp_path / "lang", tokenizer_file)["graph"]
    assert asr("pack", stream_experiment, tmp_path / "pack", "--graph", graph)[0] == 0
    latency = read_manifest(tmp_path / "pack").latency
    frames = latency.chunk + latency.right
    card = (tmp_path / "pack/README.md").read_text(encoding="utf-8")
    assert f"| latency | {10 * frames} ms at most" in card and "It can stream." in card
    assert "Graph search outputs words of its vocabulary only." in card


@pytest.mark.parametrize("licence", ["\x1b[31mMIT", "MIT\x9b31m", "\x1b]0;title\x07", "MIT\nand\r\x7f more"])
def test_texts_of_a_pack_do_not_control_the_terminal(asr, exp, tmp_path, licence):
    assert asr("pack", exp, tmp_path / "pack", "--licence", licence)[0] == 0
    status, out, _ = asr("info", tmp_path / "pack")
    (line,) = [line for line in out.splitlines() if line.startswith("licence")]
    assert status == 0 and "MIT" in line or "title" in line
    assert not [character for character in out if character != "\n" and unicodedata.category(character) == "Cc"]


@pytest.mark.parametrize("options", [("--set", "seed=2"), ("--vocab-size", 9)])
def test_options_of_a_configuration_have_no_effect_on_a_pack(asr, exp, tmp_path, options):
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    status, _, err = asr("info", tmp_path / "pack", *options)
    assert status == 2 and "no effect on a pack" in err


def test_info_of_an_experiment_folder_is_the_info_of_its_configuration(asr, exp):
    assert asr("info", exp) == asr("info", exp / "config.yaml")


def test_info_of_what_is_no_model_says_what_it_takes(asr, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "it has no config.yaml and no model.json"), ("missing", "it does not exist")):
        status, _, err = asr("info", tmp_path / name)
        expected = f"{tmp_path / name} is neither an experiment folder, a pack nor a configuration file: {reason}"
        assert status == 2 and err.splitlines()[-1].endswith(expected)


def test_rates_of_phones_are_not_called_words_and_tagged_results_are_left_out(asr, exp, cuts, tmp_path):
    assert asr("decode", exp, cuts, *FAST)[0] == 0
    folder = exp / "decode/test/greedy"
    shutil.copytree(folder, exp / "decode/test/greedy-b10l6")
    assert asr("score", folder, exp / "decode/test/greedy-b10l6")[0] == 0
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    manifest = read_manifest(tmp_path / "pack")
    assert len(manifest.results) == 2  # `asrtool report` of the pack has both
    results = [
        result.model_copy(update={"method": "greedy", "score": result.score | {"token_type": unit}})
        for result, unit in zip(manifest.results, ("words", "phones"), strict=True)
    ]
    table = section(model_card(manifest.model_copy(update={"results": results})), "Results")
    length = manifest.results[0].score["words"]["length"]
    assert "WER" not in table and "error rate in %" in table
    assert f"| test | {length} words | greedy |" in table and f"| test | {length} phones | greedy |" in table
    assert "b10l6" not in (tmp_path / "pack/README.md").read_text() + asr("info", tmp_path / "pack")[1]
    shutil.rmtree(folder)
    assert asr("pack", exp, tmp_path / "tagged")[0] == 0
    assert "has results with a tag only" in section((tmp_path / "tagged/README.md").read_text(), "Results")
