"""Labels of frames for cross entropy, by topology, and the seconds of outputs for priors."""

import pytest
import torch

from asrtool.data.batch import NO_LABEL
from asrtool.data.frame_labels import FrameLabels
from asrtool.text.context_units import BOUNDARY
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer
from asrtool.text.tokenizer_training import untied_tokenizer

LEXICON = Lexicon({"X": (("a", "b"),)})
PHONES = PhoneTokenizer([BLANK_SYMBOL, "SIL", "a", "b"], LEXICON, "SIL")
NO_SILENCE = PhoneTokenizer([BLANK_SYMBOL, "a", "b"], LEXICON)
FACTOR = 4


def labels_of(items, length, tokenizer=PHONES, topology="hmm"):
    return FrameLabels(tokenizer, topology, FACTOR).of_utterance(items, length).tolist()


def test_the_first_output_frame_of_a_unit_has_its_first_output_wherever_it_begins():
    for begin in range(4, 9):
        labels = torch.tensor(labels_of([("a", begin / 100, 0.12)], 40))
        middles = labels[FACTOR // 2 :: FACTOR].tolist()
        found = [label for label in middles if label in (4, 5)]
        assert found == [4, 5, 5], begin


def test_frames_between_units_are_silence_in_two_states():
    labels = labels_of([("a", 0.05, 0.06), ("b", 0.2, 0.02)], 30)
    assert labels == [*[2] * 4, 3, *[4] * 4, *[5] * 2, *[2] * 4, *[3] * 5, *[6] * 2, *[2] * 4, *[3] * 4]


def test_without_a_unit_of_silence_frames_between_units_have_no_label():
    labels = labels_of([("a", 0.05, 0.06)], 15, NO_SILENCE)
    assert labels == [*[NO_LABEL] * 5, *[2] * 4, *[3] * 2, *[NO_LABEL] * 4]


def test_equal_units_that_touch_are_two_in_two_states():
    assert labels_of([("a", 0.0, 0.06), ("a", 0.06, 0.06)], 12) == [4, 4, 4, 4, 5, 5] * 2


@pytest.mark.parametrize("topology", ["ctc", "modified", "hmm"])
@pytest.mark.parametrize("shift", [220 / 22050, 110 / 11025])
def test_labels_of_a_long_utterance_are_in_the_frames_of_its_rate(topology, shift):
    items = [("a", 2900 * shift, 6 * shift), ("b", 2906 * shift, 8 * shift)]
    exact = FrameLabels(PHONES, topology, FACTOR, shift).of_utterance(items, 3000).tolist()
    assert exact == labels_of([("a", 29.0, 0.06), ("b", 29.06, 0.08)], 3000, topology=topology)


@pytest.mark.parametrize("second", range(1, 2 * FACTOR))
@pytest.mark.parametrize("topology", ["ctc", "modified"])
def test_a_short_unit_before_an_equal_one_labels_nothing_else(second, topology):
    labels = labels_of([("a", 0.0, second / 100), ("a", second / 100, 0.05)], 20, topology=topology)
    first = max(0, second - FACTOR)
    assert labels == [*[2] * first, *[0] * (second - first), *[2] * 5, *[0] * (15 - second)]


@pytest.mark.parametrize(("topology", "labels"), [("ctc", [2, 2, 2, 0, 0]), ("hmm", [4, 4, 4, 2, 2])])
def test_a_unit_that_begins_before_the_cut_is_cut_off(topology, labels):
    assert labels_of([("a", -0.05, 0.08)], 5, topology=topology) == labels


def test_aligned_silence_and_phones_in_context_keep_their_places():
    tokenizer = untied_tokenizer("biphone", PHONES)
    items = [("SIL", 0.0, 0.04), ("a", 0.04, 0.08)]
    silence, unit = tokenizer.silence, tokenizer.unit(1, 2, BOUNDARY)
    expected = [*[2 * silence] * 4, *[2 * unit] * 4, *[2 * unit + 1] * 4]
    assert labels_of(items, 12, tokenizer) == expected


@pytest.mark.parametrize("topology", ["ctc", "modified", "hmm"])
def test_utterances_without_an_alignment_have_no_labels(topology):
    assert labels_of([], 5, topology=topology) == [NO_LABEL] * 5


def test_alignments_beyond_the_end_are_cut_off():
    assert labels_of([("a", 0.0, 0.04), ("b", 0.04, 0.2)], 10) == [*[4] * 4, *[6] * 4, *[7] * 2]
    assert labels_of([("a", 0.0, 0.04), ("b", 0.2, 0.2)], 6) == [*[4] * 4, *[2] * 2]


def test_the_seconds_of_outputs_are_those_of_their_labels():
    items = [("a", 0.05, 0.06), ("b", 0.2, 0.02)]
    seconds = [0.0] * 8
    for output, duration in FrameLabels(PHONES, "hmm", FACTOR).hmm_seconds(items, 0.3):
        seconds[output] += duration
    labels = labels_of(items, 30)
    assert seconds == pytest.approx([labels.count(output) / 100 for output in range(8)])
    assert sum(seconds) == pytest.approx(0.3)
