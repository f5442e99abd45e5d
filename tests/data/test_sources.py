import copy
import gzip
import json
import unicodedata

import pytest
from lhotse import MonoCut

from asrtool.data.lhotse_objects import deserialize_entry, read_cut, text_and_speaker
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import speaker_of, transcripts
from asrtool.data.shards import entries_with_dicts
from asrtool.data.sources import InvalidEntry, allow_commands, commands_allowed, require_plain_path
from asrtool.doctor.data_entries import read_utterances
from asrtool.doctor.data_faults import Faults

SOURCE = {"type": "file", "channels": [0], "source": "/a.wav"}
RECORDING = {"id": "r", "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
FEATURES = {"type": "kaldi-fbank", "num_frames": 100, "num_features": 80, "frame_shift": 0.01, "sampling_rate": 16000}
FEATURES |= {"start": 0, "duration": 1.0, "storage_type": "lilcom_chunky", "storage_path": "/f.lca"}
FEATURES |= {"storage_key": "0,1", "recording_id": "r", "channels": 0}
CUT = {"id": "c", "start": 0, "duration": 1.0, "channel": 0, "supervisions": [], "type": "MonoCut"}
CUT |= {"recording": RECORDING}
COMMANDS = [
    SOURCE | {"type": "command", "source": "touch PWNED"},
    SOURCE | {"type": "url", "source": "pipe:touch PWNED"},
    SOURCE | {"type": "url", "source": "https://example.org/a.wav"},
    SOURCE | {"type": "Command", "source": "touch PWNED"},
    SOURCE | {"type": None},
    SOURCE | {"source": "touch PWNED |"},
    SOURCE | {"source": "touch PWNED | "},
    SOURCE | {"source": "| touch PWNED"},
    SOURCE | {"source": "pipe:touch PWNED"},
    SOURCE | {"source": "http://example.org/a.wav"},
    SOURCE | {"source": "s3://bucket/a.wav"},
    SOURCE | {"source": None},
    SOURCE | {"source": "/a\0.wav"},
]


@pytest.fixture
def allowed():
    """As with --allow-commands."""
    allow_commands()
    yield
    allow_commands(False)


def with_source(source: dict) -> dict:
    return CUT | {"recording": RECORDING | {"sources": [source]}}


def nested(cut: dict) -> list[dict]:
    """Entries that hold the recording of `cut` in other places."""
    track = {"cut": cut, "type": "MonoCut", "offset": 0.0}
    return [
        cut,
        cut["recording"],
        {"id": "m", "tracks": [track], "type": "MixedCut"},
        CUT | {"custom": {"target": cut["recording"]}},
        CUT | {"custom": {"deep": [{"er": [cut["recording"]]}]}},
        CUT | {"supervisions": [{"id": "s", "custom": {"x": cut["recording"]}}]},
    ]


@pytest.mark.parametrize("source", COMMANDS, ids=str)
def test_a_source_that_is_not_a_plain_file_is_refused_at_any_depth(source):
    for data in nested(with_source(source)):
        with pytest.raises(InvalidEntry):
            deserialize_entry(copy.deepcopy(data))


@pytest.mark.parametrize(
    "change",
    [
        {"storage_path": "pipe:touch PWNED;:"},
        {"storage_path": "touch PWNED |"},
        {"storage_path": "http://example.org", "storage_type": "lilcom_url"},
        {"storage_type": "lilcom_url"},
        {"storage_type": "kaldiio"},
        {"storage_type": None, "storage_path": "pipe:touch PWNED"},
        {"storage_path": 5},
    ],
    ids=str,
)
def test_stored_features_that_are_not_in_a_plain_file_are_refused(change):
    for data in (FEATURES | change, CUT | {"features": FEATURES | change}, CUT | {"custom": {"x": FEATURES | change}}):
        with pytest.raises(InvalidEntry):
            deserialize_entry(copy.deepcopy(data))


def test_plain_files_become_objects():
    assert isinstance(deserialize_entry(copy.deepcopy(CUT)), MonoCut)
    assert deserialize_entry(copy.deepcopy(CUT | {"features": FEATURES})).features.storage_path == "/f.lca"
    for path in ("a.wav", "x; touch PWNED; echo .sph", "a b/$(c).flac", "./pipe:x"):
        assert (
            deserialize_entry(copy.deepcopy(with_source(SOURCE | {"source": path}))).recording.sources[0].source == path
        )


@pytest.mark.usefixtures("allowed")
def test_commands_are_accepted_if_they_are_allowed():
    assert commands_allowed()
    assert deserialize_entry(copy.deepcopy(with_source(COMMANDS[0]))).recording.sources[0].type == "command"
    assert require_plain_path("cat x |") == "cat x |"


@pytest.mark.parametrize(
    "data", [None, 5, "a", [], {}, {"type": "MonoCut"}, {"type": "Cut"}, {"type": []}, {"shape": 1}]
)
def test_a_value_that_is_not_an_entry_is_refused(data):
    with pytest.raises(InvalidEntry):
        deserialize_entry(data)


@pytest.mark.parametrize("path", ["cat x |", "pipe:x", "https://example.org/a", "", "a\0b"])
def test_a_path_that_is_not_of_a_plain_file_is_refused(path):
    with pytest.raises(InvalidEntry):
        require_plain_path(path)
    assert require_plain_path("/a/b c.wav") == "/a/b c.wav"


def test_transcripts_and_speakers_have_one_normal_form_in_all_readers(corpus, tmp_path):
    decomposed = "u\u0308ber A\u030angstro\u0308m"
    lines = [json.loads(line) for line in gzip.decompress(corpus.read_bytes()).splitlines()[:2]]
    for line in lines:
        line["supervisions"][0] |= {"text": decomposed, "speaker": decomposed}
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    wanted = unicodedata.normalize("NFC", decomposed)
    read = list(entries_with_dicts(path))
    assert [data["supervisions"][0]["text"] for _, data in read] == [wanted] * 2
    assert [speaker_of(data) for _, data in read] == [wanted] * 2
    assert [text_and_speaker(read_cut(entry)) for entry, _ in read] == [(wanted, wanted)] * 2
    assert [text_and_speaker(cut) for cut in open_cuts(path)] == [(wanted, wanted)] * 2
    assert [utterance.speaker for utterance in read_utterances(path, Faults())[0]] == [wanted] * 2
    assert list(transcripts([path])) == [wanted] * 2
