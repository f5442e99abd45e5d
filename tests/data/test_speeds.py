"""Which utterance a cut is a copy of, and at which speed."""

import pytest
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asrtool.data.speaker_transforms import transform_key
from asrtool.data.speeds import SpeedCopy, speed_copy, speed_of
from tests.tiny import RATE


def cut(name: str) -> MonoCut:
    source = AudioSource("file", [0], "/none.wav")
    recording = Recording(f"r-{name}", [source], RATE, RATE, 1.0, [0])
    return recording.to_cut().with_id(name)


@pytest.mark.parametrize("name", ["a", "a_sp1", "a_sp1.1", "a_sp0.9", "rec_sp12"])
def test_the_transforms_say_the_speed_and_not_the_id(name):
    original = cut(name)
    assert speed_copy(original.to_dict()) == SpeedCopy(name, f"r-{name}", 1.0) and speed_of(original) == 1.0
    copy = original.perturb_speed(1.1)
    assert speed_copy(copy.to_dict()) == SpeedCopy(name, f"r-{name}", 1.1) and speed_of(copy) == 1.1
    twice = original.perturb_speed(0.9).perturb_speed(1.1).resample(8000)
    assert speed_copy(twice.to_dict()) == SpeedCopy(name, f"r-{name}", 0.99) and speed_of(twice) == 0.99
    same_id = original.perturb_speed(1.1, affix_id=False)
    assert speed_copy(same_id.to_dict()).speed == 1.1


@pytest.mark.parametrize("name, original, speed", [("a_sp1.1", "a", 1.1), ("a_sp1", "a_sp1", 1.0), ("a", "a", 1.0)])
def test_the_id_says_the_speed_of_a_cut_without_a_recording(name, original, speed):
    features_only = MonoCut(name, 0.0, 1.0, 0)
    assert speed_copy({"id": name}) == SpeedCopy(original, original, speed)
    assert speed_of(features_only) == speed


@pytest.mark.parametrize("transforms", [7, "Speed", [7], [{}], [{"name": "Speed"}], [{"name": "Speed", "kwargs": {}}]])
def test_what_is_no_transform_is_passed_over(transforms):
    line = {"id": "a", "recording": {"id": "a", "transforms": transforms}}
    assert speed_copy(line) == SpeedCopy("a", "a", 1.0)


@pytest.mark.parametrize("name", ["a", "a_sp1", "a_sp2.0"])
def test_a_voice_at_another_speed_is_another_voice(name):
    original = cut(name)
    original.supervisions = [SupervisionSegment(name, original.recording_id, 0, 1.0, text="x", speaker="ann")]
    assert transform_key(original) == "ann"
    assert transform_key(original.perturb_speed(0.9)) == "ann at speed 0.9"
