"""Greedy and prefix search chunk by chunk, and the words that units spell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.decoding.fusion import UnitFusion
from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.lm.ngram_files import load_lm
from asrtool.streaming.ctc_search import GrowingWords, StreamingGreedy, StreamingPrefix, WordAssembler
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import PhoneTokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.decoding.graphs import random_log_probs

TEXTS = ["she sells sea shells", "the shells she sells", "he sees the sea"]
WORD, CHAR = (train_tokenizer(kind, TEXTS) for kind in ("word", "char"))
NO_SPACE = train_tokenizer("char", ["กาแฟ", "ฟา"])  # its texts are single words
PHONE = PhoneTokenizer(["<blank>", "SIL", "A", "B"], Lexicon({"ab": (("A", "B"),)}), "SIL")


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer("bpe", TEXTS, vocab_size=16)


def pieces(log_probs, cuts):
    return np.split(log_probs, sorted(cuts))


def feed(search, log_probs, cuts):
    parts = [search.advance(piece) for piece in pieces(log_probs, cuts)]
    return parts, search.finish()


def offline(log_probs, method):
    batch, lens = torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)])
    return ctc_greedy(batch, lens)[0] if method == "greedy" else ctc_prefix_beam(batch, lens, beam=4)[0][0]


def new(method, tokenizer=WORD, **more):
    assembler = WordAssembler(tokenizer)
    return StreamingGreedy(assembler, **more) if method == "greedy" else StreamingPrefix(assembler, beam=4, **more)


@pytest.mark.parametrize("method", ["greedy", "prefix"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), frames=st.integers(1, 30), cuts=st.lists(st.integers(0, 30), max_size=8))
def test_the_result_of_chunks_is_that_of_the_whole_utterance(method, seed, frames, cuts):
    log_probs = random_log_probs(frames, 6, seed)
    parts, found = feed(new(method), log_probs, cuts)
    expected = offline(log_probs, method)
    assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert parts[-1].words == [WORD.symbols[token] for token in found.tokens] and parts[-1].frames == frames


@pytest.mark.parametrize("method", ["greedy", "prefix"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), tokenizer=st.sampled_from([WORD, CHAR, NO_SPACE, PHONE]))
def test_final_words_never_change(method, seed, tokenizer):
    log_probs = random_log_probs(30, tokenizer.size, seed)
    parts, found = feed(new(method, tokenizer), log_probs, range(1, 30))
    words, _ = WordAssembler(tokenizer).words(found.tokens, found.frames)
    assert words == tokenizer.decode(found.tokens).split()
    finals = [part.num_final for part in parts]
    assert finals == sorted(finals)
    assert all(part.words[: part.num_final] == words[: part.num_final] for part in parts)
    assert all(len(part.words) == len(part.word_frames) for part in parts)


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_words_become_final_while_the_utterance_goes_on(method):
    log_probs = np.full((24, 6), -9.0, dtype=np.float32)
    log_probs[16:] = -2.0  # less sure of these: what is still in the beam differs here
    log_probs[range(24), [2, 0, 3, 0] * 6] = 0.0
    parts, found = feed(new(method), log_probs, range(4, 24, 4))
    assert 8 <= parts[-1].num_final <= len(found.tokens) == 12


def test_a_language_model_has_the_same_effect_as_offline(tmp_path):
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=5\n\n\\1-grams:\n-1 <unk>\n-99 <s>\n-1 </s>\n-0.1 sea\n-2 she\n\n\\end\\\n"
    )
    fusion = UnitFusion(load_lm(tmp_path / "lm.arpa"), WORD.symbols, 0.8)
    log_probs = random_log_probs(20, WORD.size, 5)
    _, found = feed(new("prefix", fusion=fusion), log_probs, [3, 4, 11])
    ((expected, *_),) = ctc_prefix_beam(torch.from_numpy(log_probs)[None], torch.tensor([20]), beam=4, fusion=fusion)
    assert (found.tokens, found.score) == (expected.tokens, pytest.approx(expected.score))


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_without_a_frame_there_are_no_words(method):
    parts, found = feed(new(method), np.zeros((0, 6), dtype=np.float32), [])
    assert (parts[0].words, parts[0].num_final, parts[0].trailing, found.tokens) == ([], 0, 0, [])


@given(st.data())
def test_assembled_words_are_those_of_the_whole_text(bpe, data):
    tokenizer = data.draw(st.sampled_from([WORD, CHAR, NO_SPACE, PHONE, bpe]))
    tokens = data.draw(st.lists(st.integers(1, tokenizer.size - 1), max_size=8))
    words, frames = WordAssembler(tokenizer).words(tokens, range(len(tokens)))
    assert words == tokenizer.decode(tokens).split() and frames == sorted(frames)


@given(st.data())
def test_words_that_grow_are_those_of_all_tokens(bpe, data):
    tokenizer = data.draw(st.sampled_from([WORD, CHAR, NO_SPACE, PHONE, bpe]))
    assembler = WordAssembler(tokenizer)
    growing = GrowingWords(assembler)
    tokens = data.draw(st.lists(st.integers(1, tokenizer.size - 1), max_size=12))
    for end in sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=5))):
        words, frames = assembler.words(tokens[:end], range(end))
        assert growing.update(tokens[:end], list(range(end))) == (words, frames, assembler.num_complete(tokens[:end]))


@pytest.mark.parametrize(
    "text, whole", [("", 0), ("she", 0), ("she\u2581", 1), ("she\u2581s", 1), ("she\u2581s\u2581\u2581", 2)]
)
def test_a_word_of_characters_is_complete_when_the_next_one_begins(text, whole):
    assert WordAssembler(CHAR).num_complete([CHAR.symbols.index(character) for character in text]) == whole


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_blank_and_silence_at_the_end_are_counted(method):
    log_probs = np.full((6, 6), -20.0, dtype=np.float32)
    log_probs[range(6), [0, 2, 0, 0, 5, 0]] = 0.0
    for silences, trailing in (((), [0, 1, 0, 1]), ((5,), [0, 1, 3, 4])):
        parts, _ = feed(new(method, silences=silences), log_probs, [2, 3, 5])
        assert [part.trailing for part in parts] == trailing
