"""The way of hybrid systems: alignments and graph of a Kaldi system, from the data folder to words.

The "Kaldi system" of the tiny corpus has a phone of three states for each word, and silence.
"""

import json
from itertools import groupby

import kaldifst
import numpy as np
import pytest
import torch

from asrtool.config import Config
from asrtool.data.features import count_frames
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.data.shards import entries_with_dicts
from asrtool.streaming.search_setup import open_streaming_search
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.train import train
from tests.kaldi_files import THREE_STATES, binary_archive, binary_model, text_archive, write_alignments
from tests.tiny import WORDS, make_config

PHONES = ["SIL", *WORDS]
SILENCE_FRAMES = 10  # at the beginning of each utterance
MODEL = binary_model(
    [(list(range(1, len(PHONES) + 1)), THREE_STATES)],
    [(phone + 1, state, 3 * phone + state) for phone in range(len(PHONES)) for state in range(3)],
)


def transitions(phone: str, frames: int) -> list[int]:
    """Transition ids of a phone, its states of equal lengths: each state's arc to the next one, then its self-loop."""
    states = [3 * PHONES.index(phone) + 3 * frame // frames for frame in range(frames)]
    return [2 * state + (2 if n == 0 or state != states[n - 1] else 1) for n, state in enumerate(states)]


def hclg() -> str:
    """Any words and silences in any order, each with a cost of 5."""
    lines = []
    next_state = 1
    for label in range(len(PHONES)):
        source = 0
        for state in range(3):
            first, loop = 2 * (3 * label + state) + 2, 2 * (3 * label + state) + 1
            lines.append(f"{source} {next_state} {first} {label if state == 0 else 0} {5 if state == 0 else 0}")
            lines.append(f"{next_state} {next_state} {loop} 0")
            source, next_state = next_state, next_state + 1
        lines.append(f"{source} 0 0 0")
    return "\n".join([*lines, "0\n"])


@pytest.fixture(scope="module")
def kaldi(corpus, tmp_path_factory):
    """A folder with Kaldi's data (data), alignments (ali) and graph (graph) of the tiny corpus."""
    root = tmp_path_factory.mktemp("kaldi")
    (root / "data").mkdir()
    wavs, texts, aligned = [], [], {}
    for entry, cut_dict in entries_with_dicts(corpus):
        text = cut_dict["supervisions"][0]["text"]
        wavs.append(f"{entry.id} {cut_dict['recording']['sources'][0]['source']}\n")
        texts.append(f"{entry.id} {text}\n")
        frames = count_frames(cut_dict["recording"]["num_samples"], 16000) - 2  # as with snip_edges
        bounds = np.linspace(SILENCE_FRAMES, frames, len(text.split()) + 1).astype(int)
        aligned[entry.id] = transitions("SIL", SILENCE_FRAMES)
        for word, length in zip(text.split(), np.diff(bounds).tolist(), strict=True):
            aligned[entry.id] += transitions(word, length)
    (root / "data" / "wav.scp").write_text("".join(wavs))
    (root / "data" / "text").write_text("".join(texts))
    names = sorted(aligned)
    parts = [{name: aligned[name] for name in part} for part in (names[:9], names[9:])]
    write_alignments(root / "ali", MODEL, binary_archive(parts[0]), text_archive(parts[1]))
    (root / "graph").mkdir()
    assert kaldifst.compile(hclg()).write(str(root / "graph" / "HCLG.fst"))
    words = ["<eps>", *WORDS, "#0"]
    (root / "graph" / "words.txt").write_text("".join(f"{word} {label}\n" for label, word in enumerate(words)))
    return root


@pytest.fixture
def prepared(asr, kaldi, tmp_path):
    """A folder with the manifest cuts.jsonl.gz, the units pdfs.json and the graph hclg, which asrtool wrote."""
    out = tmp_path / "cuts.jsonl.gz"
    assert asr("prepare", "kaldi", kaldi / "data", out, "--kaldi-alignments", kaldi / "ali")[0] == 0
    assert (
        asr("tokenizer", tmp_path / "pdfs.json", "--type", "pdf", "--kaldi-model", kaldi / "ali" / "final.mdl")[0] == 0
    )
    units = ("--tokenizer", tmp_path / "pdfs.json")
    status, message, _ = asr("graph", tmp_path / "hclg", *units, "--kaldi-graph", kaldi / "graph")
    assert status == 0 and "HLG.fst" in message and "4 words" in message
    return tmp_path


def merge_repeats(text: str) -> list[str]:
    return [word for word, _ in groupby(text.split())]


def config(folder, **changes) -> Config:
    changes.setdefault("objective", {"kind": "ce"})
    data = {"dev": str(folder / "cuts.jsonl.gz")}
    return make_config(folder / "cuts.jsonl.gz", folder / "pdfs.json", data=data, **changes)


def test_frames_are_labelled_with_their_pdfs(prepared):
    """Kaldi's frames are a frame later than ours, whose first one is centred 7.5 ms before Kaldi's."""
    settings = config(prepared)
    dataset = SpeechDataset(settings, load_tokenizer(prepared / "pdfs.json"), training=False)
    (batch,) = load_batches(dataset, OrderedSampler(prepared / "cuts.jsonl.gz", 1000.0), 0)
    cut_dicts = {entry.id: cut_dict for entry, cut_dict in entries_with_dicts(prepared / "cuts.jsonl.gz")}
    for name, labels, length, num_targets, targets in zip(
        batch.ids, batch.labels, batch.feature_lens, batch.target_lens, batch.targets, strict=True
    ):
        words = cut_dicts[name]["supervisions"][0]["text"].split()
        bounds = np.linspace(SILENCE_FRAMES, int(length) - 2, len(words) + 1).astype(int)
        pdfs = [(transition - 1) // 2 for transition in transitions("SIL", SILENCE_FRAMES)]
        for word, frames in zip(words, np.diff(bounds).tolist(), strict=True):
            pdfs += [(transition - 1) // 2 for transition in transitions(word, frames)]
        expected = torch.tensor([pdfs[0], *pdfs, pdfs[-1]]) + 1
        changed = labels[:length] != expected
        assert changed.sum() <= 1 + len(words) * 3  # where rounding moves a bound by a frame
        runs = torch.unique_consecutive(expected)
        assert targets[:num_targets].tolist() == runs.tolist() and len(runs) == 3 + 3 * len(words)


def test_objectives_without_alignments_are_refused(prepared):
    from asrtool.errors import UserError

    for objective in ({"kind": "ctc"}, {"kind": "ce", "intermediate_ctc": 0.3}):
        with pytest.raises(UserError, match="set objective.kind=ce and objective.intermediate_ctc=0"):
            train(config(prepared, objective=objective), prepared / "exp", device="cpu")


def test_a_system_learns_from_kaldi_and_decodes_in_its_graph(asr, prepared):
    training = {"max_steps": 80, "validate_every": 40, "lr": 1e-2}
    train(config(prepared, training=training), prepared / "exp", device="cpu")
    priors = json.loads((prepared / "exp" / "priors.json").read_text())
    assert len(priors) == 1 + 3 * len(PHONES) and priors[0] == pytest.approx(0, abs=0.1)
    assert sum(priors[1:4]) == pytest.approx(24 * SILENCE_FRAMES / 100, rel=0.1)
    cuts = prepared / "cuts.jsonl.gz"
    assert asr("decode", prepared / "exp", cuts, "--method", "graph", "--graph", prepared / "hclg")[0] == 0
    rows = [json.loads(line) for line in (prepared / "exp/decode/cuts/graph/hyps.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    # a word is a tone: where it is repeated, the tone goes on
    assert sum(merge_repeats(row["ref"]) == merge_repeats(row["hyp"]) for row in rows) >= 20
    hotwords = prepared / "hotwords.txt"
    hotwords.write_text("two\n")
    options = ("--method", "graph", "--graph", prepared / "hclg", "--hotwords", hotwords, "--tag", "hotwords")
    status, _, message = asr("decode", prepared / "exp", cuts, *options)
    assert status == 2 and "graph of a Kaldi system, which has no pronunciations" in message


def test_streams_say_that_they_cannot_hear_silence_in_a_graph_of_kaldi(prepared, caplog):
    units = load_tokenizer(prepared / "pdfs.json")
    open_streaming_search("graph", units, {"graph": prepared / "hclg"}, "ctc")
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not known what is silence" in message and "without trailing silence" in message


def test_searches_without_the_graph_are_refused(asr, prepared):
    train(config(prepared, training={"max_steps": 4}), prepared / "exp", device="cpu")
    for method in ("greedy", "prefix"):
        status, _, message = asr("decode", prepared / "exp", prepared / "cuts.jsonl.gz", "--method", method)
        assert status == 2 and "the model's units are pdfs of Kaldi; use --method graph" in message
    status, _, message = asr("align", prepared / "exp", prepared / "cuts.jsonl.gz", prepared / "aligned.jsonl.gz")
    assert status == 2 and "pdfs of Kaldi, which words alone do not give" in message
    status, _, message = asr("graph", prepared / "other", "--tokenizer", prepared / "pdfs.json")
    assert status == 2 and "graph --kaldi-graph" in message


def test_utterances_that_kaldi_did_not_align_are_bad(asr, kaldi, tmp_path):
    aligned = {"a-00": transitions("SIL", 50)}
    folder = write_alignments(tmp_path / "ali", MODEL, binary_archive(aligned), compress=False)
    out = tmp_path / "cuts.jsonl.gz"
    status, _, message = asr("prepare", "kaldi", kaldi / "data", out, "--kaldi-alignments", folder)
    assert status == 1 and "b-01: no alignment in" in message and not out.exists()
