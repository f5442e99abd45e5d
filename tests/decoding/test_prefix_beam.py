import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.prefix_beam import PrefixBeam, ctc_prefix_beam
from asrtool.decoding.search_setup import open_search
from asrtool.text.tokenizer import SPACE, SymbolTokenizer


def random_log_probs(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def collapse(path, blank: int) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def all_sequences(log_probs: torch.Tensor, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Every token sequence with its log-probability, summed over all V^T paths; best first."""
    probs = log_probs.exp().tolist()
    totals = defaultdict(list)
    for path in itertools.product(range(len(probs[0])), repeat=len(probs)):
        totals[collapse(path, blank)].append(math.prod(row[token] for row, token in zip(probs, path, strict=True)))
    return sorted(((key, math.log(math.fsum(terms))) for key, terms in totals.items()), key=lambda item: -item[1])


def plain_prefix_beam(log_probs: torch.Tensor, beam: int) -> list[tuple[tuple[int, ...], float]]:
    """Algorithm 1 of Hannun et al. as printed: every kept prefix with every token, nothing pruned early. Blank is 0."""
    kept = {(): (0.0, -math.inf)}
    for row in log_probs.tolist():
        new = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (in_blank, in_token) in kept.items():
            total = np.logaddexp(in_blank, in_token)
            new[prefix][0] = np.logaddexp(new[prefix][0], total + row[0])
            for token in range(1, len(row)):
                repeated = prefix[-1:] == (token,)
                if repeated:
                    new[prefix][1] = np.logaddexp(new[prefix][1], in_token + row[token])
                longer = new[(*prefix, token)]
                longer[1] = np.logaddexp(longer[1], (in_blank if repeated else total) + row[token])
        kept = dict(sorted(new.items(), key=lambda item: -np.logaddexp(*item[1]))[:beam])
    return [(prefix, float(np.logaddexp(*pair))) for prefix, pair in kept.items()]


@pytest.mark.parametrize(
    "frames, vocabulary, blank", [(1, 2, 0), (3, 3, 0), (4, 4, 2), (5, 3, 1), (5, 4, 0), (5, 4, 3)]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_all_sequences_with_their_exact_probabilities(frames, vocabulary, blank, seed):
    log_probs = random_log_probs(1, frames, vocabulary, seed=seed)
    expected = all_sequences(log_probs[0], blank)
    (found,) = ctc_prefix_beam(log_probs, torch.tensor([frames]), beam=1000, blank=blank, nbest=1000)
    assert [tuple(one.tokens) for one in found] == [tokens for tokens, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-9)


@pytest.mark.parametrize("beam", [1, 2, 3, 8])
@pytest.mark.parametrize("vocabulary, scale", [(2, 1.0), (4, 2.0), (12, 1.0), (12, 4.0), (40, 3.0)])
def test_early_pruning_gives_the_result_of_the_plain_algorithm(beam, vocabulary, scale):
    log_probs = random_log_probs(4, 25, vocabulary, seed=beam, scale=scale)
    for row, found in zip(log_probs, ctc_prefix_beam(log_probs, torch.full((4,), 25), beam, nbest=beam), strict=True):
        expected = plain_prefix_beam(row, beam)
        assert [tuple(one.tokens) for one in found] == [tokens for tokens, _ in expected]
        assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-9)


def test_a_beam_of_one_may_choose_another_token_than_a_repeated_best_one():
    # After two frames "1" ends as often in blank as in 1. Then 1 is the best token, but its probability is shared
    # between "1" and "1 1" (half of 0.5 each), and "1 2" with 0.49 is the best prefix.
    log_probs = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.01, 0.5, 0.49]], dtype=torch.float64).log()
    ((found,),) = ctc_prefix_beam(log_probs[None], torch.tensor([3]), beam=1)
    assert (found.tokens, found.frames) == ([1, 2], [0, 2])
    assert found.score == pytest.approx(math.log(0.49))


def test_prefix_search_sums_over_paths_where_greedy_takes_one():
    # Graves's example: blank blank is the best path (0.36), but "1" has 0.4 * 0.4 + 2 * 0.4 * 0.6 = 0.64.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]], dtype=torch.float64).log()
    ((found,),) = ctc_prefix_beam(log_probs, torch.tensor([2]))
    assert found.tokens == [1]
    assert found.score == pytest.approx(math.log(0.64))
    assert ctc_greedy(log_probs, torch.tensor([2]))[0].tokens == []


def test_clear_log_probs_give_what_greedy_gives_tokens_and_frames():
    path = [0, 2, 2, 0, 2, 3, 3, 1, 0]
    log_probs = torch.full((1, len(path), 4), 1e-6, dtype=torch.float64)
    log_probs[0, range(len(path)), path] = 1.0
    ((found,),) = ctc_prefix_beam(log_probs.log(), torch.tensor([len(path)]))
    assert (found.tokens, found.frames) == ([2, 2, 3, 1], [1, 4, 5, 7])


def test_padding_and_other_utterances_of_the_batch_have_no_influence():
    log_probs = random_log_probs(3, 12, 5)
    lens = torch.tensor([12, 5, 8])
    alone = [ctc_prefix_beam(log_probs[i : i + 1, :n], lens[i : i + 1], nbest=3)[0] for i, n in enumerate(lens)]
    for row, length in zip(log_probs, lens, strict=True):
        row[length:] = float("nan")
    assert ctc_prefix_beam(log_probs, lens, nbest=3) == alone


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 0, 7]])
def test_chunks_give_the_same_as_the_whole(sizes):
    log_probs = random_log_probs(12, 6)
    search = PrefixBeam(beam=4)
    for chunk in log_probs.split(sizes):
        search.advance(chunk)
    (whole,) = ctc_prefix_beam(log_probs[None], torch.tensor([12]), beam=4, nbest=4)
    assert search.best(4) == [(one.tokens, one.score) for one in whole]


@pytest.mark.parametrize("beam, nbest", [(None, 20), (2, 20), (30, 20), (5, 1)])
def test_an_nbest_list_is_as_long_as_asked_and_has_each_text_once(beam, nbest):
    tokenizer = SymbolTokenizer("char", ["<blank>", "a", "b", SPACE])  # "a", "a " and " a" are one text
    options = {"nbest": nbest} | ({"beam": beam} if beam else {})
    search, settings, _ = open_search("prefix", tokenizer, options)
    log_probs = random_log_probs(1, 12, 4)
    (best,) = search(log_probs, torch.tensor([12]))
    assert settings["beam"] == max(nbest, beam or 0) and settings["nbest"] == nbest
    (everything,) = ctc_prefix_beam(log_probs, torch.tensor([12]), settings["beam"], nbest=settings["beam"])
    first = {tokenizer.decode(one.tokens): one for one in reversed(everything)}
    expected = [one for one in everything if first[tokenizer.decode(one.tokens)] is one][:nbest]
    assert [one.tokens for one in (best, *best.others)] == [one.tokens for one in expected]
    assert len(everything) == settings["beam"] and (nbest == 1 or len(expected) < len(everything))


def test_only_blanks_give_the_empty_hypothesis():
    log_probs = torch.full((1, 20, 5), -100.0)
    log_probs[..., 0] = 0.0
    assert ctc_prefix_beam(log_probs, torch.tensor([20])) == [[Hypothesis([], [], 0.0)]]


@pytest.mark.parametrize("frames", [0, 4])
def test_an_utterance_without_frames_gives_the_empty_hypothesis_with_certainty(frames):
    found = ctc_prefix_beam(torch.zeros(2, frames, 3), torch.tensor([0, 0]), nbest=5)
    assert found == [[Hypothesis([], [], 0.0)]] * 2


def test_impossible_tokens_appear_in_no_hypothesis():
    log_probs = random_log_probs(1, 6, 4)
    log_probs[..., 2] = -math.inf
    (found,) = ctc_prefix_beam(log_probs, torch.tensor([6]), beam=50, nbest=50)
    assert all(2 not in one.tokens and math.isfinite(one.score) for one in found)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_frame_that_allows_no_token_is_refused(value):
    with pytest.raises(ValueError, match="allow no token"):
        ctc_prefix_beam(torch.full((1, 2, 3), value), torch.tensor([2]))


def test_a_beam_of_0_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ctc_prefix_beam(torch.zeros(1, 2, 3), torch.tensor([2]), beam=0)
