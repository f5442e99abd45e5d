"""Bonuses of hotwords in prefix search, compared with a matcher that looks at the whole text each time."""

import itertools
import random
import re
from types import SimpleNamespace

import pytest
import torch

from asrtool.decoding.fusion import WordFusion
from asrtool.decoding.hotword_fusion import HotwordFusion
from asrtool.decoding.hotwords import Hotword
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.text.tokenizer import SPACE
from tests.decoding.test_prefix_fusion import Bigram, all_sequences, random_log_probs, sentence_score

BPE = ["<blank>", SPACE + "a", SPACE + "ab", "a", "b", SPACE]
CHARACTERS = ["<blank>", "a", "b", SPACE]
WORDS = ["<blank>", "a", "ab", "ba", "b"]


def units(symbols) -> SimpleNamespace:
    """What the fusion reads of a tokenizer with these symbols."""
    has_spaces = any(SPACE in symbol for symbol in symbols)
    return SimpleNamespace(symbols=symbols, units_are_words=symbols is WORDS, has_spaces=has_spaces)


def text_of(symbols, tokens) -> str:
    """The words of a token sequence, joined and surrounded as they are written."""
    if not any(symbol.startswith(SPACE) for symbol in symbols):
        return " ".join(symbols[token] for token in tokens)
    return re.sub(" +", " ", "".join(symbols[token] for token in tokens).replace(SPACE, " ")).lstrip(" ")


def naive_score(text: str, hotwords: list[Hotword], is_end: bool) -> float:
    """The best tiling of the words of `text` by phrases; unless it ends there, the last one may be a part of a phrase.

    The last word of `text` goes on unless a space follows it.
    """
    best = 0.0
    words = text.split(" ")
    complete = words if is_end else words[:-1]
    for first in range(len(words)):
        before = tiling(words[:first], hotwords)
        best = max(best, before)
        rest = " ".join(words[first:])
        best = max([best, *(before + part(hotword, rest) for hotword in hotwords if not is_end)])
    return max(best, tiling(complete, hotwords))


def tiling(words: list[str], hotwords: list[Hotword]) -> float:
    if not words:
        return 0.0
    options = [tiling(words[:-1], hotwords)]
    for hotword in hotwords:
        n = len(hotword.words)
        if tuple(words[-n:]) == hotword.words:
            options.append(tiling(words[:-n], hotwords) + n * hotword.weight)
    return max(options)


def part(hotword: Hotword, text: str) -> float:
    """The bonus of the beginning `text` of a phrase, 0 where it is none."""
    if not str(hotword).startswith(text):
        return 0.0
    *whole, last = text.split(" ")
    return hotword.weight * (len(whole) + len(last) / len(hotword.words[len(whole)]))


def random_hotwords(draw: random.Random) -> list[Hotword]:
    phrases = {
        tuple("".join(draw.choices("ab", k=draw.randint(1, 3))) for _ in range(draw.randint(1, 3))) for _ in range(4)
    }
    return [Hotword(words, draw.choice([0.5, 1.0, 2.5])) for words in sorted(phrases)]


@pytest.mark.parametrize("symbols", [BPE, CHARACTERS, WORDS], ids=["bpe", "characters", "words"])
@pytest.mark.parametrize("seed", range(8))
def test_every_prefix_scores_what_a_matcher_of_whole_texts_finds(symbols, seed):
    draw = random.Random(seed)
    hotwords = random_hotwords(draw)
    fusion = HotwordFusion(hotwords, units(symbols))
    for _ in range(40):
        tokens = draw.choices(range(1, len(symbols)), k=draw.randint(1, 9))
        state, score = fusion.start, 0.0
        for n, token in enumerate(tokens, 1):
            gain, state = fusion.extend(state, token)
            score += gain
            text = text_of(symbols, tokens[:n])
            if symbols is WORDS:  # a word is one unit, so that none goes on
                expected = max(
                    naive_score(text, hotwords, True), *(part_of_words(text.split(), h, hotwords) for h in hotwords)
                )
            else:
                expected = naive_score(text, hotwords, False)
            assert score == pytest.approx(expected), (tokens[:n], text)
            assert gain <= fusion.max_gain + 1e-9
            assert score + fusion.end(state) == pytest.approx(naive_score(text.strip(), hotwords, True)), text


def part_of_words(words: list[str], hotword: Hotword, hotwords: list[Hotword]) -> float:
    """The best score with the last words as the beginning of a phrase."""
    scores = [0.0]
    for n in range(1, min(len(words), len(hotword.words)) + 1):
        if tuple(words[-n:]) == hotword.words[:n]:
            scores.append(tiling(words[:-n], hotwords) + n * hotword.weight)
    return max(scores)


@pytest.mark.parametrize(
    ("text", "bonus"),
    [
        ("ART", 2.0),
        ("PARTY", 0.0),
        ("PART", 0.0),
        ("ARTS", 0.0),
        ("MODERN ART", 2.0),
        ("NEW YORK", 6.0),
        ("NEW YORKER", 0.0),
        ("NEW ZEALAND NEW YORK CITY", 7.5),
        ("YORK CITY", 5.0),
    ],
)
def test_phrases_match_whole_words_only_and_do_not_overlap(text, bonus):
    hotwords = [Hotword(("ART",), 2.0), Hotword(("NEW", "YORK"), 3.0)]
    hotwords += [Hotword(("YORK", "CITY"), 2.5), Hotword(("NEW", "YORK", "CITY"), 2.5)]
    symbols = ["<blank>", SPACE, *sorted({*text} - {" "})]
    fusion = HotwordFusion(hotwords, units(symbols))
    tokens = [symbols.index(SPACE if character == " " else character) for character in text]
    assert sentence_score(fusion, tokens) == pytest.approx(bonus)


@pytest.mark.parametrize(
    "text, bonus", [("กาแฟ", 3.0), ("เอากาแฟเย็น", 3.0), ("กาแ", 0.5), ("ฟกาแฟกาแฟ", 6.0), ("", 0.0)]
)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_without_spaces_phrases_may_be_anywhere_in_the_text(text, bonus, length):
    pieces = [text[n : n + length] for n in range(0, len(text), length)]
    symbols = ["<blank>", "ก", *dict.fromkeys(piece for piece in pieces if piece != "ก")]
    fusion = HotwordFusion([Hotword(("กาแฟ",), 3.0), Hotword(("าแ",), 0.5)], units(symbols))
    assert sentence_score(fusion, map(symbols.index, pieces)) == pytest.approx(bonus)
    state = fusion.start
    for piece in pieces:
        gain, state = fusion.extend(state, symbols.index(piece))
        assert gain <= fusion.max_gain


@pytest.mark.parametrize("symbols", [BPE, CHARACTERS], ids=["bpe", "characters"])
@pytest.mark.parametrize("with_lm", [False, True])
def test_a_wide_beam_finds_all_sequences_with_their_bonuses(symbols, with_lm):
    inner = WordFusion(Bigram(), symbols, 0.7) if with_lm else None
    hotwords = [Hotword(("ab",), 1.5), Hotword(("a", "b"), 1.0)]
    fusion = HotwordFusion(hotwords, units(symbols), inner)
    log_probs = random_log_probs(4, len(symbols), 3)
    expected = {}
    for tokens, score in all_sequences(log_probs).items():
        bonus = naive_score(text_of(symbols, tokens).strip(), hotwords, True)
        expected[tokens] = score + bonus + (sentence_score(inner, tokens) if inner else 0.0)
    (found,) = ctc_prefix_beam(log_probs[None], torch.tensor([4]), beam=3000, nbest=3000, fusion=fusion)
    assert {tuple(one.tokens): one.score for one in found} == pytest.approx(expected, abs=1e-9)


def test_hotwords_change_the_best_sequence_only_where_the_audio_allows_it():
    symbols = ["<blank>", SPACE, "a", "b", "c"]
    log_probs = torch.full((3, 5), -9.0, dtype=torch.float64)
    log_probs[[0, 1, 2], [2, 3, 0]] = 0.0  # a b
    log_probs[1, 4] = -1.0  # b, or c with less probability
    best = {}
    for name, hotwords in {"none": [], "near": ["ac"], "far": ["cc"]}.items():
        fusion = HotwordFusion([Hotword((word,), 3.0) for word in hotwords], units(symbols)) if hotwords else None
        ((found,),) = ctc_prefix_beam(log_probs[None], torch.tensor([3]), fusion=fusion)
        best[name] = "".join(symbols[token] for token in found.tokens)
    assert best == {"none": "ab", "near": "ac", "far": "ab"}


def test_the_sizes_of_chunks_do_not_change_the_result():
    from asrtool.decoding.prefix_beam import PrefixBeam

    fusion = HotwordFusion([Hotword(("ab", "a"), 2.0)], units(BPE))
    log_probs = random_log_probs(20, len(BPE), 5)
    whole, chunks = PrefixBeam(4, fusion=fusion), PrefixBeam(4, fusion=fusion)
    whole.advance(log_probs)
    for chunk in log_probs.split([3, 0, 7, 10]):
        chunks.advance(chunk)
    assert whole.best(4) == chunks.best(4)
    assert len({tuple(tokens) for tokens, _ in itertools.chain(whole.best(4))}) == 4
