"""Words of hypotheses with times and confidences."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asrtool.decoding.calibration import MethodCalibration, UtteranceMap, WordMap
from asrtool.decoding.confidence import MAX_MARGIN, acoustic_posteriors, empty_posterior
from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.unit_chain import FrameSpan, window_log_probs
from asrtool.decoding.words import WordDescriber
from asrtool.text.tokenizer_training import train_tokenizer

VOCABULARY = ["a", "b", "c"]


def system(kind: str = "word") -> SimpleNamespace:
    tokenizer = train_tokenizer(kind, VOCABULARY if kind == "word" else ["ab c"])
    config = SimpleNamespace(objective=SimpleNamespace(topology="ctc"))
    return SimpleNamespace(tokenizer=tokenizer, config=config, frame_seconds=0.04)


def random_log_probs(seed: int, frames: int = 40, outputs: int = 4) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.log(draw.dirichlet(np.full(outputs, 0.2), frames) + 1e-9).astype(np.float32)


def best(log_probs: np.ndarray) -> Hypothesis:
    return ctc_greedy(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]


@pytest.mark.parametrize("kind, outputs", [("word", 4), ("char", 5)])
def test_the_words_are_those_of_the_text(kind, outputs):
    experiment = system(kind)
    for seed in range(10):
        log_probs = random_log_probs(seed, outputs=outputs)
        hypothesis = best(log_probs)
        described = WordDescriber(experiment).describe(hypothesis, log_probs)
        assert [word.text for word in described.words] == experiment.tokenizer.decode(hypothesis.tokens).split()
        bounds = [bound for word in described.words for bound in (word.start, word.end)]
        assert bounds == sorted(bounds)
        assert all(0 <= word.confidence <= 1 for word in described.words)
        assert described.confidence == pytest.approx(np.mean([word.confidence for word in described.words]))


def test_an_uncertain_word_has_the_lower_confidence():
    log_probs = np.log(np.full((9, 4), 1e-4, np.float32))
    log_probs[:, 0] = 0  # blanks
    log_probs[2, :] = np.log([1e-4, 1 - 3e-4, 1e-4, 1e-4])
    log_probs[6, :] = np.log([0.1, 1e-4, 0.6, 0.3])
    first, second = WordDescriber(system()).describe(best(log_probs), log_probs).words
    assert (first.text, second.text) == ("a", "b")
    assert first.confidence > 0.99 and second.confidence == pytest.approx(0.6, abs=0.01)


def test_the_posterior_of_a_lattice_goes_before_the_acoustic_one():
    log_probs = random_log_probs(1)
    hypothesis = best(log_probs)
    posteriors = np.linspace(0.1, 0.9, len(hypothesis.tokens)).tolist()
    rescored = Hypothesis(hypothesis.tokens, hypothesis.frames, 0.0, word_posteriors=posteriors)
    words = WordDescriber(system()).describe(rescored, log_probs).words
    assert [word.confidence for word in words] == pytest.approx(posteriors)


def test_a_calibration_maps_the_posteriors():
    log_probs = random_log_probs(2)
    calibration = MethodCalibration(
        words=[WordMap(intercept=-1.0, acoustic=0.5)],
        utterances=UtteranceMap(intercept=-100.0, weight=0.0, length_weight=0.0),
    )
    raw = WordDescriber(system()).describe(best(log_probs), log_probs)
    described = WordDescriber(system(), calibration=calibration).describe(best(log_probs), log_probs)
    for before, after in zip(raw.words, described.words, strict=True):
        logit = np.log(before.confidence / (1 - before.confidence))
        assert after.confidence == pytest.approx(1 / (1 + np.exp(1 - 0.5 * logit)), rel=1e-4)
    assert described.confidence < 1e-20


def test_a_hypothesis_without_words_has_the_probability_of_no_word():
    log_probs = np.log(np.array([[0.9, 0.05, 0.03, 0.02], [0.8, 0.1, 0.05, 0.05]], np.float32))
    described = WordDescriber(system()).describe(Hypothesis([], [], 0.0), log_probs)
    assert described.words == [] and described.confidence == pytest.approx(0.72)
    nothing = WordDescriber(system()).describe(Hypothesis([], [], 0.0), np.zeros((0, 4), np.float32))
    assert nothing.words == [] and nothing.confidence == empty_posterior(np.zeros((0, 4)), "ctc")


def test_the_window_of_a_word_reaches_to_the_middle_of_short_gaps_and_into_long_ones():
    log_probs = random_log_probs(3, frames=60)
    spans = [FrameSpan(8, 10), FrameSpan(14, 15), FrameSpan(40, 44)]
    units = [[1], [2, 3], [1, 2]]
    windows = [
        FrameSpan(8 - MAX_MARGIN, 12),
        FrameSpan(12, 15 + MAX_MARGIN),
        FrameSpan(40 - MAX_MARGIN, 44 + MAX_MARGIN),
    ]
    expected = np.exp(window_log_probs(log_probs, windows, units, "ctc"))
    assert acoustic_posteriors(log_probs, spans, units, "ctc") == pytest.approx(expected)
    assert acoustic_posteriors(log_probs, [FrameSpan(5, 5)], [[]], "ctc") == [0]
