"""Systems with units in context: with one class for each phone they are phone systems, from the loss to the stream."""

import json

import pytest
import torch
from lhotse import CutSet

from asrtool.experiment import open_experiment
from asrtool.text.context_units import ContextTokenizer, Leaf
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer, untied_tokenizer
from asrtool.training.train import train
from tests.decoding.alignments import align_evenly
from tests.tiny import WORDS, log_rows

LEXICON = Lexicon(
    {
        "one": (("W", "N"), ("W", "U", "N")),
        "two": (("T", "U"),),
        "three": (("R", "I"),),
        "four": (("F", "O"), ("F",)),
    }
)
PHONES = phone_tokenizer(LEXICON, list(WORDS))
ONE_CLASS = ContextTokenizer("triphone", PHONES.symbols, PHONES, {n: [Leaf(n)] for n in range(1, PHONES.size)})
TOKENIZERS = {
    "phones": PHONES,
    "one class": ONE_CLASS,
    "biphones": untied_tokenizer("biphone", PHONES),
    "triphones": untied_tokenizer("triphone", PHONES),
}
OBJECTIVES = {
    "ctc": {"kind": "ctc"},
    "mmi": {"kind": "mmi", "ngram_order": 3},
    "ce": {"kind": "ce"},
    "mmi and ce": {"kind": "mmi", "ce_weight": 0.5, "topology": "modified"},
}
pytestmark = pytest.mark.slow  # trains twelve systems
EAGER = ["--blank-penalty", 8, "--insertion-penalty", -4]  # so that systems that hardly trained recognise words
MODEL = {"mask": "chunk", "chunk_size": 2, "memory": 4}


@pytest.fixture(scope="module")
def aligned(corpus, tmp_path_factory):
    """The tiny corpus, with phones of equal lengths."""
    return align_evenly(corpus, LEXICON, tmp_path_factory.mktemp("aligned") / "cuts.jsonl.gz")


@pytest.fixture(scope="module")
def systems(tiny_config, aligned, tmp_path_factory):
    """systems(units, objective) returns the experiment folder of a short training; a second call the same one."""
    trained = {}

    def system(units: str, objective: str):
        if (units, objective) not in trained:
            folder = tmp_path_factory.mktemp("system")
            save_tokenizer(TOKENIZERS[units], folder / "tokenizer.json")
            data = {"train": str(aligned), "dev": str(aligned), "tokenizer": str(folder / "tokenizer.json")}
            config = tiny_config(data=data, objective=OBJECTIVES[objective], model=MODEL)
            train(config, folder / "exp", device="cpu")
            trained[units, objective] = folder / "exp"
        return trained[units, objective]

    return system


@pytest.fixture(scope="module")
def arpa(corpus, tmp_path_factory):
    """A 2-gram of the tiny corpus."""
    from click.testing import CliRunner

    from asrtool.cli import cli

    path = tmp_path_factory.mktemp("lm") / "2gram.arpa"
    result = CliRunner().invoke(cli, ["lm", "train", str(corpus), str(path), "--order", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    return path


def read_hyps(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "hyps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_of_one_class_is_that_of_the_phones(systems, objective):
    plain, context = (log_rows(systems(units, objective), "train", "dev") for units in ("phones", "one class"))
    assert len(plain) == len(context) > 0
    for one, other in zip(plain, context, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


@pytest.mark.parametrize("objective", ["ctc", "ce"])
def test_graph_search_of_one_class_is_that_of_the_phones(systems, asr, corpus, arpa, objective):
    rows = []
    for units in ("phones", "one class"):
        exp = systems(units, objective)
        graph = exp / "graph"
        assert asr("graph", graph, "--tokenizer", exp / "tokenizer.json", "--lm", arpa)[0] == 0
        options = ["--method", "graph", "--graph", graph, *EAGER, "--device", "cpu", "--workers", 0, "--jobs", 1]
        if objective == "ce":
            options += ["--priors", exp / "priors.json"]
        assert asr("decode", exp, corpus, *options, "--name", "test")[0] == 0
        rows.append(read_hyps(exp / "decode/test/graph"))
    for plain, context in zip(*rows, strict=True):
        assert context["hyp"] == plain["hyp"]
        assert context["score"] == pytest.approx(plain["score"], abs=1e-3)
    assert any(row["hyp"] for row in rows[0])


def test_alignments_of_one_class_are_those_of_the_phones(systems, asr, corpus, tmp_path):
    lines = []
    for units in ("phones", "one class"):
        out = tmp_path / f"{units}.jsonl"
        assert asr("align", systems(units, "mmi"), corpus, out, "--device", "cpu", "--workers", 0)[0] == 0
        lines.append(out.read_text())
    assert lines[0] == lines[1] and '"unit"' in lines[0]


@pytest.mark.parametrize("units", ["biphones", "triphones"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_systems_align_their_units_in_the_contexts_of_the_words(systems, asr, corpus, tmp_path, units, objective):
    exp = systems(units, objective)
    assert asr("align", exp, corpus, tmp_path / "out.jsonl", "--device", "cpu", "--workers", 0)[0] == 0
    tokenizer = TOKENIZERS[units]
    for cut in CutSet.from_file(tmp_path / "out.jsonl"):
        alignment = cut.supervisions[0].alignment
        found = [tokenizer.symbols.index(item.symbol) for item in alignment["unit"]]
        phones = [tokenizer.phone_of[unit] for unit in found]
        assert found == tokenizer.context_units(phones)
        assert [item.symbol for item in alignment["word"]] == cut.supervisions[0].text.split()


@pytest.mark.parametrize("units", ["biphones", "triphones"])
def test_systems_decode_stream_and_export(systems, asr, corpus, arpa, tmp_path, units):
    exp = systems(units, "mmi")
    graph = exp / "graph"
    assert asr("graph", graph, "--tokenizer", exp / "tokenizer.json", "--lm", arpa)[0] == 0
    assert (graph / "phones.txt").read_text().split("\n")[1] == "<blank> 1"
    options = ["--method", "graph", "--graph", graph, *EAGER, "--name", "test"]
    assert asr("decode", exp, corpus, *options, "--device", "cpu", "--workers", 0)[0] == 0
    assert asr("stream", exp, corpus, *options)[0] == 0
    decoded = {row["id"]: row["hyp"] for row in read_hyps(exp / "decode/test/graph")}
    streamed = {row["id"]: row["hyp"] for row in read_hyps(exp / "stream/test/graph")}
    assert streamed == decoded and any(decoded.values())
    assert {word for hyp in decoded.values() for word in hyp.split()} <= set(WORDS)
    assert asr("decode", exp, corpus, "--name", "test", "--device", "cpu", "--workers", 0)[0] == 0
    assert all(row["token_type"] == "phones" for row in read_hyps(exp / "decode/test/greedy"))
    assert asr("export", exp, tmp_path / "export")[0] == 0
    tokens = (tmp_path / "export/tokens.txt").read_text().split("\n")
    assert len(tokens) - 1 == TOKENIZERS[units].size


def test_priors_are_those_of_the_units_in_context(systems):
    plain, context = (json.loads((systems(u, "ce") / "priors.json").read_text()) for u in ("phones", "biphones"))
    tokenizer = TOKENIZERS["biphones"]
    assert len(context) == tokenizer.size
    for phone, seconds in enumerate(plain):
        units = [unit for unit, of in enumerate(tokenizer.phone_of) if of == phone]
        assert sum(context[unit] for unit in units) == pytest.approx(seconds, abs=0.01)
    assert sum(value > 0 for value in context) > sum(value > 0 for value in plain)


def test_labels_of_cross_entropy_are_the_units_in_the_context_of_the_alignment(systems, aligned):
    from asrtool.data.loading import SpeechDataset
    from asrtool.data.sampling import OrderedSampler

    config = open_experiment(systems("biphones", "ce"), device="cpu").config
    batches = list(OrderedSampler(aligned, 10.0))
    plain = [SpeechDataset(config, PHONES, training=False)[batch].labels for batch in batches]
    context = [SpeechDataset(config, TOKENIZERS["biphones"], training=False)[batch].labels for batch in batches]
    phone_of = torch.tensor([*TOKENIZERS["biphones"].phone_of, -1])  # -1: padding
    for phones, units in zip(plain, context, strict=True):
        known = phones >= 0
        assert torch.equal(known, units >= 0)
        assert torch.equal(phone_of[units[known]], phones[known])
        assert units.max() > PHONES.size
