"""Systems of the two-state topology, from training to search, streams, alignment and export."""

import json
from itertools import groupby

import pytest
import torch
from lhotse import CutSet

from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.text.context_units import ContextTokenizer, Leaf
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer, untied_tokenizer
from asrtool.training.resume import InitialWeights
from asrtool.training.train import train
from tests.decoding.alignments import align_evenly
from tests.tiny import WORDS, log_rows

LEXICON = Lexicon(
    {"one": (("W", "N"), ("W", "U", "N")), "two": (("T", "U"),), "three": (("R", "I"),), "four": (("F",),)}
)
PHONES = phone_tokenizer(LEXICON, list(WORDS), "SIL")
TOKENIZERS = {
    "phones": PHONES,
    "one class": ContextTokenizer("triphone", PHONES.symbols, PHONES, {n: [Leaf(n)] for n in range(1, PHONES.size)}),
    "biphones": untied_tokenizer("biphone", PHONES),
}
OBJECTIVES = {
    "ctc": {"kind": "ctc", "intermediate_ctc": 0.3},
    "mmi": {"kind": "mmi", "ngram_order": 3},
    "ce": {"kind": "ce"},
}
MODEL = {"mask": "chunk", "chunk_size": 2, "memory": 4}
pytestmark = pytest.mark.slow  # trains systems


@pytest.fixture(scope="module")
def systems(tiny_config, corpus, tmp_path_factory):
    """systems(units, objective) returns the experiment folder of a short training; a second call the same one."""
    aligned = align_evenly(corpus, LEXICON, tmp_path_factory.mktemp("aligned") / "cuts.jsonl.gz")
    trained = {}

    def system(units: str, objective: str):
        if (units, objective) not in trained:
            folder = tmp_path_factory.mktemp("system")
            save_tokenizer(TOKENIZERS[units], folder / "tokenizer.json")
            data = {"train": str(aligned), "dev": str(aligned), "tokenizer": str(folder / "tokenizer.json")}
            config = tiny_config(data=data, objective={"topology": "hmm", **OBJECTIVES[objective]}, model=MODEL)
            train(config, folder / "exp", device="cpu")
            trained[units, objective] = folder / "exp"
        return trained[units, objective]

    return system


@pytest.fixture(scope="module")
def learned(tiny_config, corpus, tmp_path_factory):
    """A system that has learned the tones of the tiny corpus by MMI, from random weights, without alignments."""
    folder = tmp_path_factory.mktemp("learned")
    save_tokenizer(PHONES, folder / "tokenizer.json")
    config = tiny_config(
        data={"tokenizer": str(folder / "tokenizer.json"), "batch_seconds": 60},
        objective={"kind": "mmi", "topology": "hmm", "ngram_order": 2},
        model=MODEL,
        training={"max_steps": 150, "validate_every": 50, "lr": 0.01, "warmup_steps": 10},
    )
    train(config, folder / "exp", device="cpu")
    return folder / "exp"


@pytest.fixture(scope="module")
def arpa(corpus, tmp_path_factory):
    """A 1-gram of the tiny corpus."""
    from click.testing import CliRunner

    from asrtool.cli import cli

    path = tmp_path_factory.mktemp("lm") / "1gram.arpa"
    result = CliRunner().invoke(cli, ["lm", "train", str(corpus), str(path), "--order", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    return path


@pytest.fixture(scope="module")
def graph(learned, arpa):
    """The decoding graph of the system that has learned."""
    from asrtool.graphs.build import build_graph

    folder = learned / "graph"
    build_graph(folder, learned / "tokenizer.json", lm=arpa, topology="hmm")
    return folder


def read_hyps(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "hyps.jsonl").read_text().splitlines()]


def _without_repetitions(text: str) -> list[str]:
    return [word for word, _ in groupby(text.split())]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_of_one_class_is_that_of_the_phones(systems, objective):
    plain, context = (log_rows(systems(units, objective), "train", "dev") for units in ("phones", "one class"))
    assert len(plain) == len(context) > 0
    for one, other in zip(plain, context, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert plain[-1]["loss"] < plain[0]["loss"]


def test_it_learns_and_recognises_the_words_in_the_graph_and_in_streams(learned, asr, corpus, graph):
    options = ["--method", "graph", "--graph", graph, "--acoustic-scale", 2, "--name", "test"]
    assert asr("decode", learned, corpus, *options, "--device", "cpu", "--workers", 0, "--jobs", 1)[0] == 0
    rows = read_hyps(learned / "decode/test/graph")
    # A word that is repeated is one longer tone: only the number of its repetitions may be wrong
    right = [_without_repetitions(row["hyp"]) == _without_repetitions(row["ref"]) for row in rows]
    assert sum(right) >= 0.8 * len(rows)
    assert asr("stream", learned, corpus, *options)[0] == 0
    assert {row["id"]: row["hyp"] for row in read_hyps(learned / "stream/test/graph")} == {
        row["id"]: row["hyp"] for row in rows
    }


def test_greedy_streams_give_the_units_of_greedy_search(learned, asr, corpus):
    assert asr("decode", learned, corpus, "--name", "test", "--device", "cpu", "--workers", 0)[0] == 0
    assert asr("stream", learned, corpus, "--name", "test", "--method", "greedy")[0] == 0
    decoded = {row["id"]: row["hyp"] for row in read_hyps(learned / "decode/test/greedy")}
    assert {row["id"]: row["hyp"] for row in read_hyps(learned / "stream/test/greedy")} == decoded
    assert set(" ".join(decoded.values()).split()) <= {"W", "N", "U", "T", "R", "I", "F"}
    assert any(decoded.values())


def test_the_pause_before_the_first_word_is_aligned_with_silence(learned, asr, corpus, tmp_path):
    assert asr("align", learned, corpus, tmp_path / "out.jsonl", "--device", "cpu", "--workers", 0)[0] == 0
    begins_with_silence = 0
    for cut in CutSet.from_file(tmp_path / "out.jsonl"):
        alignment = cut.supervisions[0].alignment
        symbols = [item.symbol for item in alignment["unit"]]
        spoken = [symbol for symbol in symbols if symbol != "SIL"]
        assert [item.symbol for item in alignment["word"]] == cut.supervisions[0].text.split()
        assert set(spoken) <= set(PHONES.symbols)
        ends = [round(item.start + item.duration, 3) for item in alignment["unit"]]
        starts = [round(item.start, 3) for item in alignment["unit"]]
        assert starts == [0.0, *ends[:-1]]  # without a blank, units leave no gaps
        begins_with_silence += symbols[0] == "SIL"
    assert begins_with_silence > 0


def test_priors_have_a_number_for_each_output(systems):
    priors = json.loads((systems("biphones", "ce") / "priors.json").read_text())
    assert len(priors) == 2 * TOKENIZERS["biphones"].size
    silence = TOKENIZERS["biphones"].silence
    assert priors[0] == priors[1] == 0 and priors[2 * silence] > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_systems_in_context_align_and_export(systems, asr, corpus, tmp_path, objective):
    exp = systems("biphones", objective)
    assert asr("align", exp, corpus, tmp_path / "out.jsonl", "--device", "cpu", "--workers", 0)[0] == 0
    tokenizer = TOKENIZERS["biphones"]
    for cut in CutSet.from_file(tmp_path / "out.jsonl"):
        found = [tokenizer.symbols.index(item.symbol) for item in cut.supervisions[0].alignment["unit"]]
        assert found == tokenizer.context_units([tokenizer.phone_of[unit] for unit in found])
    if objective == "mmi":
        assert asr("export", exp, tmp_path / "export")[0] == 0
        facts = json.loads((tmp_path / "export/export.json").read_text())
        assert facts["outputs"] == {"count": 2 * tokenizer.size, "topology": "hmm"}
        assert facts["units"]["count"] == tokenizer.size and facts["units"]["blank"] is None


def test_what_needs_a_blank_is_refused_in_one_line(learned, asr, corpus, arpa, tmp_path):
    status, _, err = asr("decode", learned, corpus, "--method", "prefix", "--device", "cpu")
    assert status == 2 and "--method prefix is for models with a blank" in err
    status, _, err = asr("export", learned, tmp_path / "export", "--runtime", "sherpa-onnx")
    assert status == 2 and "for models with a blank" in err
    assert asr("graph", tmp_path / "ctc", "--tokenizer", learned / "tokenizer.json", "--lm", arpa)[0] == 0
    status, _, err = asr("decode", learned, corpus, "--method", "graph", "--graph", tmp_path / "ctc", "--device", "cpu")
    assert status == 2 and "has the topology ctc, and the model hmm" in err and "--topology hmm" in err


def test_weights_of_another_topology_need_a_new_output_layer(tiny_config, learned, tmp_path):
    data = {"tokenizer": str(learned / "tokenizer.json")}
    config = tiny_config(data=data, model=MODEL)
    initial = InitialWeights(learned / "checkpoints/averaged.pt")
    with pytest.raises(
        UserError, match="has the outputs of topology 'hmm', and objective.topology is ctc; --new-output"
    ):
        train(config, tmp_path / "exp", device="cpu", initial=initial)
    initial = InitialWeights(learned / "checkpoints/averaged.pt", new_output=True)
    train(config, tmp_path / "exp", device="cpu", initial=initial)
    model = open_experiment(tmp_path / "exp", device="cpu").model
    assert model.output.out_features == PHONES.size


def test_a_probability_of_silence_needs_a_unit_of_silence(tiny_config, tmp_path):
    with pytest.raises(UserError, match="objective.silence_probability is given, and no unit is silence"):
        train(tiny_config(objective={"silence_probability": 0.5}), tmp_path / "exp", device="cpu")


def test_a_model_without_a_blank_expects_all_outputs_alike(systems):
    state = torch.load(sorted((systems("phones", "ce") / "checkpoints").glob("*.pt"))[0], weights_only=True)
    assert state["model"]["output.bias"].shape == (2 * PHONES.size,)
    assert state["model"]["output.bias"].abs().max() < 1  # a blank would begin at 3 or more
