"""Recognition of recordings: what comes out does not depend on how segments are batched, nor on processes."""

import numpy as np
import pytest

from asrtool.deploy.transcriber import Transcriber
from asrtool.experiment import open_experiment
from tests.deploy.test_model import assert_same_words
from tests.tiny import RATE, tone


@pytest.fixture(scope="module")
def opened(experiment):
    """The experiment with random weights, opened."""
    return open_experiment(experiment, "best", "cpu")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Twenty seconds of tones between pauses, of different lengths."""
    pieces = []
    for number in range(10):
        pieces += [tone(300 + 200 * number, 0.5 + 0.2 * number, number), 0.001 * tone(100, 0.7, number)]
    return np.concatenate(pieces)


def test_words_do_not_depend_on_batches(opened, samples):
    results = [
        Transcriber(opened, "greedy", {}, batch_seconds=seconds, max_seconds=3).transcribe(samples, rate=RATE)
        for seconds in (1, 7, 1000)
    ]
    assert len(results[0].segments) > 4
    for result in results[1:]:
        assert_same_words(result.words, results[0].words)
