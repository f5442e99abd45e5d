"""Language models in prefix beam search."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from asrtool.decoding.fusion import UnitFusion, WordFusion, check_unit_lm, check_word_lm
from asrtool.decoding.prefix_beam import PrefixBeam, ctc_prefix_beam
from asrtool.decoding.search_setup import open_fusion
from asrtool.errors import UserError
from asrtool.lm.ngram_files import load_lm
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import SPACE, PhoneTokenizer, SymbolTokenizer

SYMBOLS = ["<blank>", "a", "b", "c"]
PIECES = ["<blank>", SPACE + "a", "b", SPACE, "c"]


class Bigram:
    """A made-up bigram whose ln probabilities depend on both words."""

    start = "<s>"

    def score(self, state, word):
        return -0.3 - (hash_of(state) * 7 + hash_of(word) * 3) % 11 / 4, word


def hash_of(word):
    return sum(map(ord, word)) + len(word)


def random_log_probs(frames, vocabulary, seed=0, scale=2.0):
    draw = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(frames, vocabulary, generator=draw, dtype=torch.float64)).log_softmax(-1)


def sentence_score(fusion, tokens):
    """All gains of a token sequence, its end included."""
    total, state = 0.0, fusion.start
    for token in tokens:
        gain, state = fusion.extend(state, token)
        total += gain
    return total + fusion.end(state)


def all_sequences(log_probs):
    """Every token sequence with its log-probability, summed over all paths."""
    totals = defaultdict(float)
    for path in itertools.product(range(log_probs.size(1)), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token)
        totals[tokens] += math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
    return {tokens: math.log(total) for tokens, total in totals.items()}


def plain_search(log_probs, beam, fusion):
    """Algorithm 1 of Hannun et al. with every token tried on every prefix."""
    kept = {(): (0.0, -math.inf, fusion.start)}
    for row in log_probs.tolist():
        new = {}
        for prefix, (in_blank, in_token, state) in kept.items():
            total = np.logaddexp(in_blank, in_token)
            add(new, prefix, 0, total + row[0], state)
            for token in range(1, len(row)):
                gain, after = fusion.extend(state, token)
                repeated = prefix[-1:] == (token,)
                if repeated:
                    add(new, prefix, 1, in_token + row[token], state)
                add(new, (*prefix, token), 1, (in_blank if repeated else total) + row[token] + gain, after)
        kept = dict(sorted(new.items(), key=lambda item: -np.logaddexp(*item[1][:2]))[:beam])
    scores = [(prefix, np.logaddexp(*pair[:2]) + fusion.end(pair[2])) for prefix, pair in kept.items()]
    return sorted(scores, key=lambda item: -item[1])


def add(new, prefix, place, score, state):
    entry = new.setdefault(prefix, [-math.inf, -math.inf, state])
    entry[place] = np.logaddexp(entry[place], score)


FUSIONS = [
    UnitFusion(Bigram(), SYMBOLS, 0.8),
    UnitFusion(Bigram(), SYMBOLS, 0.5, penalty=-1.0),
    UnitFusion(Bigram(), SYMBOLS, 0.0),
    WordFusion(Bigram(), PIECES, 0.7, penalty=0.3),
    WordFusion(Bigram(), PIECES, 0.7, penalty=-2.0),
]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_all_sequences_with_the_scores_of_both_models(fusion, seed):
    log_probs = random_log_probs(5, len(fusion.symbols), seed)
    expected = {tokens: score + sentence_score(fusion, tokens) for tokens, score in all_sequences(log_probs).items()}
    (found,) = ctc_prefix_beam(log_probs[None], torch.tensor([5]), beam=2000, nbest=2000, fusion=fusion)
    assert {tuple(one.tokens): one.score for one in found} == pytest.approx(expected, abs=1e-9)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("vocabulary, penalty", [(4, 0.0), (12, -1.5), (30, 0.5)])
def test_stopping_early_among_the_tokens_does_not_change_the_result(beam, vocabulary, penalty):
    fusion = UnitFusion(Bigram(), [f"u{n}" for n in range(vocabulary)], 0.9, penalty)
    for seed in range(3):
        log_probs = random_log_probs(25, vocabulary, seed)
        search = PrefixBeam(beam, fusion=fusion)
        for chunk in log_probs.split([7, 0, 18]):
            search.advance(chunk)
        expected = plain_search(log_probs, beam, fusion)
        assert [tuple(tokens) for tokens, _ in search.best(beam)] == [tokens for tokens, _ in expected]
        assert [score for _, score in search.best(beam)] == pytest.approx([score for _, score in expected], abs=1e-9)


def test_with_weight_and_penalty_of_0_the_result_is_that_without_a_language_model():
    log_probs, lens = random_log_probs(30, 4, 7)[None], torch.tensor([30])
    fused = ctc_prefix_beam(log_probs, lens, beam=4, nbest=4, fusion=FUSIONS[2])
    assert [one.tokens for one in fused[0]] == [one.tokens for one in ctc_prefix_beam(log_probs, lens, 4, nbest=4)[0]]


def test_words_are_scored_when_they_end():
    fusion, lm = WordFusion(Bigram(), PIECES, 1.0), Bigram()
    words = lm.score("<s>", "ab")[0] + lm.score("ab", "c")[0] + lm.score("c", "</s>")[0]
    assert sentence_score(fusion, [1, 2, 3, 4]) == pytest.approx(words)  # _a b _ c
    assert sentence_score(fusion, [3]) == sentence_score(fusion, []) == lm.score("<s>", "</s>")[0]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_frame_that_allows_no_token_is_refused(value):
    with pytest.raises(ValueError, match="allow no token"):
        ctc_prefix_beam(torch.full((1, 2, 4), value), torch.tensor([2]), fusion=FUSIONS[0])


def model(folder, words):
    """A unigram model of `words`, as read from ARPA."""
    rows = "".join(f"-1\t{word}\n" for word in ("<unk>", "<s>", "</s>", *words))
    path = folder / "lm.arpa"
    path.write_text(f"\\data\\\nngram 1={3 + len(words)}\n\n\\1-grams:\n{rows}\n\\end\\\n", encoding="utf-8")
    return load_lm(path), path


CHARACTERS = SymbolTokenizer("char", ["<blank>", "a", "b", SPACE])
NO_SPACE = SymbolTokenizer("char", ["<blank>", "a", "b"])
WORDS = SymbolTokenizer("word", ["<blank>", "ab", "ba"])
PHONES = PhoneTokenizer(["<blank>", "a", "b"], Lexicon({"ab": (("a", "b"),)}))


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [(CHARACTERS, ["a", "b"]), (CHARACTERS, ["a", "b", SPACE]), (NO_SPACE, ["a", "b"]), (WORDS, ["ab", "other"])],
)
def test_a_language_model_over_the_units_is_accepted(tmp_path, tokenizer, words):
    lm, path = model(tmp_path, words)
    check_unit_lm(lm, tokenizer, path)


@pytest.mark.parametrize(
    ("tokenizer", "words", "complaint"),
    [
        (
            CHARACTERS,
            ["ab", "ba"],
            "contains none of the model's units, such as 'a'; was it trained for another system",
        ),
        (CHARACTERS, ["A", "B"], "contains none of the model's units, such as 'a'; it has them in upper case"),
        (CHARACTERS, ["a", "b", "ab"], "'ab' is not one of the model's units; train it on units"),
        (NO_SPACE, ["a", "b", "ab"], "'ab' is not one of the model's units; .* leave --lm-units out"),
        (PHONES, ["a", "b", "ab"], "'ab' is not one of the model's units; .* for words, use --method graph"),
        (WORDS, ["AB"], "it has them in upper case"),
        (WORDS, ["a", "b"], "contains none of the model's units, such as 'ab'"),
    ],
)
def test_a_language_model_over_other_units_is_refused(tmp_path, tokenizer, words, complaint):
    lm, path = model(tmp_path, words)
    with pytest.raises(UserError, match=complaint) as raised:
        check_unit_lm(lm, tokenizer, path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "tokenizer, words", [(CHARACTERS, ["xyz", "ab"]), (CHARACTERS, ["a"]), (NO_SPACE, ["a", "ab"])]
)
def test_a_word_language_model_with_some_word_in_the_units_is_accepted(tmp_path, tokenizer, words):
    lm, path = model(tmp_path, words)
    check_word_lm(lm, tokenizer, path)


def test_a_model_of_units_without_a_space_needs_its_option(tmp_path):
    lm, path = model(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match="all of its words are units of the model, which have no space; add --lm-units"):
        check_word_lm(lm, NO_SPACE, path)
    assert open_fusion(NO_SPACE, {"lm": path, "lm_units": True})[1]["lm_units"]
    assert open_fusion(WORDS, {"lm": model(tmp_path, ["ab"])[1]})[1]["lm_units"]
    assert not open_fusion(NO_SPACE, {"lm": model(tmp_path, ["ab", "ba"])[1]})[1]["lm_units"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["AB", "BA"], "cannot write 'AB' or any other of its words; in lower case they can"),
        (["xyz"], "'xyz'.*other units"),
    ],
)
def test_a_word_language_model_without_any_word_in_the_units_is_refused(tmp_path, words, complaint):
    lm, path = model(tmp_path, words)
    with pytest.raises(UserError, match=complaint):
        check_word_lm(lm, CHARACTERS, path)
