"""The words of an alignment, as a part of the program sees them."""

from types import SimpleNamespace

import numpy as np
import pytest

from asrtool.decoding.edit_alignment import AlignedUnit
from asrtool.inference import recording_alignment
from asrtool.text.tokenizer_training import train_tokenizer


@pytest.mark.parametrize("num_units", [1, 3, 8])
def test_the_confidence_of_a_word_does_not_fall_with_its_length(num_units):
    """Each unit has the probability 0.6 in the only frame that is not a blank; so has each word, long or short."""
    log_probs = np.log(np.full((4 * num_units + 2, 3), 1e-6, np.float32))
    log_probs[:, 0] = 0.0
    units = []
    for number in range(num_units):
        frame = 4 * number + 2
        log_probs[frame] = np.log([1e-6, 0.6, 0.4])
        units.append(AlignedUnit(word=0, unit=1, begin=frame, end=frame + 1))
    frames = SimpleNamespace(log_probs=log_probs, energy=np.zeros((4 * len(log_probs), 1), np.float32))
    edits = SimpleNamespace(units=units, fillers=[])
    text = SimpleNamespace(words=[SimpleNamespace(text="word")], tokenizer=train_tokenizer("word", ["word"]))
    (word,) = recording_alignment._aligned_words(frames, edits, text, 0.04, "ctc")
    assert word.confidence == pytest.approx(0.6, abs=0.01)
