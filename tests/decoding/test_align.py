"""Forced alignment."""

import numpy as np
import pytest
import torch
from lhotse import CutSet

from asrtool.decoding.align import align
from asrtool.decoding.alignment import align_texts
from asrtool.errors import DataError
from asrtool.experiment import open_experiment
from asrtool.text import spoken_text
from asrtool.text.context_units import ContextTokenizer, Leaf
from asrtool.text.lexicon import Lexicon, read_lexicon, write_lexicon
from asrtool.text.tokenizer import SPACE, SymbolTokenizer, save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer, train_tokenizer
from asrtool.training.train import train
from tests.tiny import WORDS, make_experiment


def certain(labels: str, tokenizer: SymbolTokenizer) -> torch.Tensor:
    """Log-probabilities (T, V) that are sure of these symbols; "." is the blank."""
    numbers = [0 if symbol == "." else tokenizer.symbols.index(symbol) for symbol in labels]
    return torch.nn.functional.one_hot(torch.tensor(numbers), tokenizer.size).float().mul(20).log_softmax(1)


@pytest.fixture
def tokenizer():
    return train_tokenizer("char", ["ab c"])


def test_blanks_between_two_units_are_divided_between_them_up_to_a_pause(tokenizer):
    labels = "....a..bb......" + SPACE + "c.a.."
    units, words = align_texts(
        certain(labels, tokenizer)[None], torch.tensor([len(labels)]), ["ab ca"], tokenizer, "ctc", 0.4
    )[0]
    assert [(tokenizer.symbols[u.index], u.begin, u.end) for u in units] == [
        ("a", 2, 6),  # two blanks before, one of the two behind
        ("b", 6, 11),
        (SPACE, 13, 16),  # two frames between are a pause
        ("c", 16, 18),
        ("a", 18, 21),
    ]
    assert [(w.index, w.begin, w.end) for w in words] == [(0, 2, 11), (1, 13, 21)]
    assert all(unit.score == pytest.approx(0, abs=1e-6) for unit in units)


def test_utterances_of_a_batch_are_aligned_independently(tokenizer):
    labels = ["a.b..", "c.", "b.b"]
    lens = torch.tensor([len(text) for text in labels])
    log_probs = torch.nn.utils.rnn.pad_sequence([certain(text, tokenizer) for text in labels], batch_first=True)
    texts = ["ab", "abc", "bb"]
    first, second, third = align_texts(log_probs, lens, texts, tokenizer, "ctc", 0)
    assert [(u.begin, u.end) for u in first[0]] == [(0, 1), (2, 3)]
    assert second is None  # three units, two frames
    assert [(u.begin, u.end) for u in third[0]] == [(0, 1), (2, 3)]
    assert align_texts(log_probs[2:, :2], torch.tensor([2]), ["bb"], tokenizer, "ctc", 0) == [None]
    assert align_texts(log_probs[2:, :2], torch.tensor([2]), ["bb"], tokenizer, "modified", 0) != [None]


@pytest.mark.parametrize("pronounced, expected", [("a.b", [1, 2]), ("c..", [3])])
def test_the_best_of_several_pronunciations_is_aligned(tokenizer, monkeypatch, pronounced, expected):
    symbols = [tokenizer.symbols.index(symbol) for symbol in "abc"]
    pronunciations = [[[symbols[0], symbols[1]], [symbols[2]]]]
    monkeypatch.setattr(tokenizer, "pronunciation_units", lambda _: pronunciations)
    units, words = align_texts(certain(pronounced, tokenizer)[None], torch.tensor([3]), ["word"], tokenizer, "ctc", 0)[
        0
    ]
    assert [unit.index for unit in units] == [symbols[n - 1] for n in expected] and len(words) == 1


def test_a_manifest_gets_its_alignments_and_a_ctm(tiny_config, tmp_path):
    config = tiny_config()
    train(config, tmp_path / "exp", device="cpu")
    cuts = list(CutSet.from_file(config.data.train))
    out, ctm = tmp_path / "out.jsonl.gz", tmp_path / "out.ctm"
    said = align(open_experiment(tmp_path / "exp", device="cpu"), config.data.train, out, ctm, workers=0)
    aligned = {cut.id: cut for cut in CutSet.from_file(out)}
    assert said == f"{len(cuts)} cuts aligned" and len(aligned) == len(cuts)
    for cut in cuts:
        words = aligned[cut.id].supervisions[0].alignment["word"]
        assert [item.symbol for item in words] == cut.supervisions[0].text.split()
        times = [time for item in words for time in (item.start, item.start + item.duration)]
        assert (np.diff(times) > -1e-6).all() and times[0] >= 0 and times[-1] <= cut.duration + 1e-4
        assert all(item.duration > 0 and np.isfinite(item.score) for item in words)
    lines = [line.split() for line in ctm.read_text().splitlines()]
    assert len(lines) == sum(len(cut.supervisions[0].text.split()) for cut in cuts)
    assert all(len(line) == 6 and 0 < float(line[5]) <= 1 for line in lines)


def test_cuts_that_cannot_be_aligned_are_all_named(tiny_config, tmp_path):
    config = tiny_config()
    train(config, tmp_path / "exp", device="cpu")
    cuts = list(CutSet.from_file(config.data.train))
    for cut, text in zip(cuts[:3], ["", "no such words", cuts[2].supervisions[0].text + " one" * 300], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(tmp_path / "bad.jsonl.gz")
    with pytest.raises(DataError) as error:
        align(
            open_experiment(tmp_path / "exp", device="cpu"),
            tmp_path / "bad.jsonl.gz",
            tmp_path / "o.jsonl.gz",
            workers=0,
        )
    listed = "\n".join(error.value.problems)
    assert all(cut.id in listed for cut in cuts[:3]) and len(error.value.problems) == 3
    assert len(list(CutSet.from_file(tmp_path / "o.jsonl.gz"))) == len(cuts) - 3


PHONES = phone_tokenizer(Lexicon({word: ((word[0].upper() + word[1],),) for word in WORDS}), list(WORDS))
IN_CONTEXT = ContextTokenizer("biphone", PHONES.symbols, PHONES, {n: [Leaf(n)] for n in range(1, PHONES.size)})


@pytest.fixture
def with_new_words(tiny_config, corpus, tmp_path, monkeypatch):
    """with_new_words(tokenizer): an experiment, and the tiny corpus with two words that its lexicon lacks."""
    phones = {word: PHONES.lexicon.pronunciations[word][0] for word in WORDS}
    predicted = {"twone": phones["two"] + phones["one"]}
    monkeypatch.setattr(
        spoken_text, "predict_pronunciations", lambda words, *_: {w: predicted[w] for w in words if w in predicted}
    )
    cuts = list(CutSet.from_file(corpus))
    cuts[5].supervisions[0].text = "twone four twone"
    cuts[11].supervisions[0].text = "one zebra"
    CutSet.from_cuts(cuts).to_file(tmp_path / "new.jsonl.gz")

    def make(tokenizer):
        save_tokenizer(tokenizer, tmp_path / "phones.json")
        return (
            make_experiment(tmp_path / "exp", tiny_config(), tmp_path / "phones.json"),
            tmp_path / "new.jsonl.gz",
            cuts,
        )

    return make


@pytest.mark.parametrize("tokenizer", [PHONES, IN_CONTEXT], ids=["phones", "phones in context"])
def test_words_that_the_lexicon_lacks_are_aligned_by_predicted_pronunciations(with_new_words, asr, tmp_path, tokenizer):
    exp, manifest, cuts = with_new_words(tokenizer)
    out = tmp_path / "out.jsonl"
    status, _, err = asr("align", exp, manifest, out, "--workers", 0, "--device", "cpu")
    assert status == 1 and f"{cuts[11].id}: words without units" in err and cuts[5].id not in err
    assert "1 words pronounced by g2p: twone" in err
    aligned = {cut.id: cut.supervisions[0].alignment for cut in CutSet.from_file(out)}
    assert len(aligned) == len(cuts) - 1
    assert [item.symbol for item in aligned[cuts[5].id]["word"]] == ["twone", "four", "twone"]
    assert [item.symbol for item in aligned[cuts[5].id]["unit"]] == ["Tw", "On", "Fo", "Tw", "On"]


def test_the_pronunciations_of_aligned_words_are_counted_for_a_lexicon(with_new_words, asr, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    several = {word: (("X", "Y"), *PHONES.lexicon.pronunciations[word]) for word in WORDS}
    write_lexicon(Lexicon(several), tmp_path / "source.txt")
    exp, manifest, _ = with_new_words(PHONES)
    aligned = tmp_path / "out.jsonl"
    asr("align", exp, manifest, aligned, "--workers", 0, "--device", "cpu", "--no-g2p")
    status, out, _ = asr("lexicon", aligned, lexicon, "--source", tmp_path / "source.txt", "--aligned", aligned)
    words = " ".join(cut.supervisions[0].text for cut in CutSet.from_file(aligned)).split()
    assert status == 0 and f"out.jsonl: {len(words)} words counted" in out
    weighted = read_lexicon(lexicon)
    for word in WORDS:
        assert weighted.pronunciations[word] == (PHONES.lexicon.pronunciations[word][0], ("X", "Y"))
        assert weighted.probabilities[word, ("X", "Y")] == pytest.approx(1 / (words.count(word) + 1), rel=1e-5)


def test_words_that_the_lexicon_lacks_are_refused_where_this_is_asked_for(with_new_words, asr, tmp_path):
    exp, manifest, cuts = with_new_words(PHONES)
    options = ["--workers", 0, "--device", "cpu", "--no-g2p"]
    status, _, err = asr("align", exp, manifest, tmp_path / "out.jsonl", *options)
    assert status == 1 and all(f"{cuts[number].id}: words without units" in err for number in (5, 11))
    assert len(list(CutSet.from_file(tmp_path / "out.jsonl"))) == len(cuts) - 2
    status, _, err = asr("align", exp, tmp_path / "talk.wav", tmp_path / "talk.txt", *options)
    assert status == 2 and "--no-g2p has no effect here: it is for manifests" in err
