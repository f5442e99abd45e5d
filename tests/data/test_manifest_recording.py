"""The recordings and cuts that are written without lhotse are those that lhotse itself would write."""

import json
from gzip import open as open_gzip

import pytest
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.serialization import deserialize_item

from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from asrtool.data.manifest_recording import ManifestRecording, ManifestSource


def both(kind="file", channels=(0,), rate=16000, samples=16001):
    """A recording of asrtool and the same one of lhotse."""
    arguments = (rate, samples, samples / rate, list(channels))
    own = ManifestRecording("r", [ManifestSource(kind, list(channels), "/a.wav")], *arguments)
    return own, Recording("r", [AudioSource(kind, list(channels), "/a.wav")], *arguments)


@pytest.mark.parametrize("kind, channels", [("file", (0,)), ("command", (0, 1))])
def test_a_recording_is_described_as_lhotse_does(kind, channels):
    own, lhotse_one = both(kind, channels)
    assert json.dumps(own.to_dict()) == json.dumps(lhotse_one.to_dict())


@pytest.mark.parametrize("rate, target", [(8000, 16000), (44100, 16000), (22050, 16000), (48000, 11025), (16000, 7999)])
@pytest.mark.parametrize("samples", [1, 7, 16001, 99_999, 1_234_567])
def test_a_resampled_recording_has_the_length_and_transforms_of_lhotse(rate, target, samples):
    own, lhotse_one = both(rate=rate, samples=samples)
    own, lhotse_one = own.resample(target), lhotse_one.resample(target)
    assert own.to_dict() == lhotse_one.to_dict()
    assert deserialize_item(own.to_dict()) == deserialize_item(lhotse_one.to_dict())
    assert own.resample(rate).to_dict() == lhotse_one.resample(rate).to_dict()


@pytest.mark.parametrize("speaker, text", [("ann", "ÄÖ b"), (None, "")])
def test_a_cut_is_written_as_lhotse_does(tmp_path, write_audio, speaker, text):
    audio = write_audio(tmp_path / "a.wav", seconds=1.0)
    utterance = Utterance("u", str(audio), text, speaker, start=0.25, end=0.75)
    write_manifest([utterance], tmp_path / "m.jsonl.gz", unlabelled=True)
    with open_gzip(tmp_path / "m.jsonl.gz", "rt", encoding="utf-8") as file:
        line = file.read()
    recording = Recording("u", [AudioSource("file", [0], str(audio))], 16000, 16000, 1.0)
    supervision = SupervisionSegment("u", "u", 0.0, 0.5, 0, text or None, speaker=speaker)
    cut = MonoCut("u", 0.25, 0.5, 0, [supervision], recording=recording)
    assert line == json.dumps(cut.to_dict(), ensure_ascii=False) + "\n"
