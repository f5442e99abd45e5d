"""The whole LibriSpeech recipe, stages 0 to 8, on two chapters of real speech: what each stage must write."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from asrtool.lm.arpa import write_arpa
from asrtool.lm.corpus import build_corpus
from asrtool.lm.ngram_files import read_ngrams
from asrtool.lm.ngram_training import train_ngrams
from asrtool.text.lexicon import Lexicon, write_lexicon
from asrtool.text.lexicon_building import read_dictionary
from tests.egs.recipes import ROOT, run, tiny_config

TRAIN, DEV = "32/21631", "1737/146161"  # SPEAKER/CHAPTER: 20 utterances of 4.5 minutes, 18 of 3
NOT_IN_CMUDICT = {"BEAVER'S": "B IY1 V ER0 Z", "SINGSONG": "S IH1 NG S AO2 NG", "SQUIRREL'S": "S K W ER1 AH0 L Z",
                  "SEAMED": "S IY1 M D"}  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.corpus]
# The greedy hypotheses of such a model are empty
METHODS = ["prefix", "graph", "rescored", "neural", "neural_fmllr", "neural_fmllr_adapted"]


def chapters() -> Path:
    """Returns the folder with both chapters; skips the test if ASRTOOL_CORPORA does not have it."""
    part = Path(os.environ.get("ASRTOOL_CORPORA", "none")) / "librispeech-train-clean-5" / "train-clean-5"
    if not all((part / chapter).is_dir() for chapter in (TRAIN, DEV)):
        pytest.skip(f"no real speech: set ASRTOOL_CORPORA to a folder that has librispeech-train-clean-5 with {TRAIN}")
    return part


def make_language(folder: Path, transcripts: list[list[str]]) -> Path:
    """Writes a folder for --lm from the transcripts alone: a 3-gram, a 4-gram and a lexicon with stress."""
    folder.mkdir()
    for order, name in [(3, "3-gram.pruned.1e-7.arpa.gz"), (4, "4-gram.arpa.gz")]:
        write_arpa(train_ngrams(build_corpus(transcripts), order, [0]), folder / name)
    cmudict = read_dictionary("cmudict", case="upper").pronunciations
    words = sorted({word for line in transcripts for word in line})
    pronunciations = {word: cmudict.get(word) or (tuple(NOT_IN_CMUDICT[word].split()),) for word in words}
    write_lexicon(Lexicon(pronunciations), folder / "librispeech-lexicon.txt")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Runs phones, CTC after a warmup, then MMI, with a model that streams; returns work folder, options and output."""
    pytest.importorskip("pocketsphinx", reason="needs CMUdict: pip install pocketsphinx")
    part, work = chapters(), tmp_path_factory.mktemp("two chapters")
    for name, chapter in [("train-clean-5", TRAIN), ("dev-clean-2", DEV)]:
        link = work / "corpus" / name / chapter
        link.parent.mkdir(parents=True)
        link.symlink_to(part / chapter)
    lines = [line for file in (work / "corpus").glob("*/*/*/*.trans.txt") for line in file.read_text().splitlines()]
    language = make_language(work / "language", [line.split()[1:] for line in lines])
    conf = tiny_config(work, ROOT / "egs/librispeech/conf/transformer_small.yaml")
    config = yaml.safe_load(conf.read_text())
    config["model"] |= {"normalise": "global", "mask": "chunk", "chunk_size": 8, "memory": 16}
    conf.write_text(yaml.safe_dump(config))
    options = ["--corpus-dir", work / "corpus", "--speeds", "0.9,1.0"]
    options += ["--units", "phone", "--objective", "mmi", "--lm", language, "--warmup-hours", 0.005]
    options += ["--work", work, "--conf", conf, "--fmllr", "true"]
    options += ["--decode", "prefix graph rescored neural fmllr adapted"]
    options += ["--neural", "--epochs 1 --dim 16 --layers 1 --vocab-size 60"]
    return work, options, run("librispeech", *options)


def test_all_stages_run_and_a_second_call_repeats_none(recipe):
    _, options, output = recipe
    completed = re.findall(r"^Stage (\d): wrote", output, re.MULTILINE)
    assert completed == list("012345678")
    assert run("librispeech", *options).count("already done and unchanged") == 9


def test_published_error_rates_on_the_official_dev_set_are_below_the_own_ones(recipe):
    _, _, output = recipe
    assert re.search(r"^neural_fmllr_adapted:.*^chain TDNN-F \(run_tdnn_1k\) +10\.64 +7\.17$", output, re.M | re.S)


def test_data_and_features_have_the_two_chapters(recipe):
    from lhotse import CutSet

    work, _, _ = recipe
    speakers = {"train": TRAIN.split("/")[0], "dev": DEV.split("/")[0]}
    for name, utterances in [("train", 20), ("dev", 18)]:
        cuts = list(CutSet.from_file(work / f"data/{name}.jsonl.gz"))
        assert len(cuts) == utterances and {cut.supervisions[0].speaker for cut in cuts} == {speakers[name]}
        stored = list(CutSet.from_file(work / f"data/fbank/{name}.jsonl.gz"))
        assert len(stored) == utterances * (2 if name == "train" else 1)
        assert stored[0].load_features().shape == (stored[0].num_frames, 80)


def test_the_lexicon_has_phones_without_stress_and_the_given_language_models_are_used(recipe):
    work, _, _ = recipe
    lang = work / "data/lang_phone"
    assert "BEAVER'S B IY V ER Z" in (lang / "lexicon.txt").read_text()
    compiled, given = (read_ngrams(path) for path in (lang / "rescore.npz", work / "language/4-gram.arpa.gz"))
    assert compiled.words == given.words and (compiled.trie.keys == given.trie.keys).all()
    assert json.loads((lang / "graph/graph.json").read_text())["sizes"]["HLG"]["states"] > 0


def test_a_warmup_ctc_and_mmi_were_trained(recipe):
    work, _, output = recipe
    for exp in ["tiny_phone_seed1_fmllr", "tiny_phone_mmi_seed1_fmllr"]:
        for name in ["config.yaml", "loss.png", "checkpoints/averaged.pt"]:
            assert (work / "exp" / exp / name).is_file(), (exp, name)
    assert "initialised from exp/tiny_phone_seed1_fmllr/warmup/checkpoints/warmup.pt" in output
    assert "initialised from exp/tiny_phone_seed1_fmllr/checkpoints/averaged.pt" in output


def test_every_method_has_hypotheses_and_a_score(recipe):
    work, _, _ = recipe
    exp = work / "exp/tiny_phone_mmi_seed1_fmllr"
    scores = re.findall(r"^(\w+):\ndev (PER|WER) ", (exp / "results.txt").read_text(), re.MULTILINE)
    assert scores == [(method, "PER" if method == "prefix" else "WER") for method in METHODS]
    for method in METHODS:
        folder = exp / "decode/dev" / method
        assert len((folder / "hyps.jsonl").read_text().splitlines()) == 18
        assert json.loads((folder / "wer.json").read_text())["set"] == "dev"
    hypotheses = [json.loads(line)["hyp"] for line in (exp / "decode/dev/neural_fmllr/hyps.jsonl").open()]
    adapted = json.loads((exp / "fmllr_adapted/dev/1737.json").read_text())
    assert adapted["source"].endswith("decode/dev/neural_fmllr")
    assert adapted["utterances"] == sum(map(bool, hypotheses))  # by minimum Bayes risk they may all be empty
    assert (adapted["steps"] > 0) == any(hypotheses)


def test_streaming_has_latencies_and_the_same_words_as_decoding(recipe):
    work, _, _ = recipe
    for method in ["prefix", "graph"]:
        folder = work / "exp/tiny_phone_mmi_seed1_fmllr/stream/dev" / method
        facts = json.loads((folder / "stream.json").read_text())
        assert facts["offline"]["same_percent"] >= 99.9 and (folder / "wer.json").is_file()


def test_the_export_and_the_table_are_there(recipe):
    work, _, _ = recipe
    assert list((work / "exp/tiny_phone_mmi_seed1_fmllr/export").glob("*.onnx"))
    page = (work / "exp/RESULTS.md").read_text()
    assert "| `tiny_phone_mmi_seed1_fmllr` |" in page and "\nasrtool adapt exp/tiny_phone_mmi_seed1_fmllr " in page
