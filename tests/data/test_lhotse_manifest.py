"""Manifests of lhotse are copied with the checks of `asrtool prepare`."""

import os

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import MultiCut
from lhotse.supervision import AlignmentItem

from asrtool.data.lhotse_manifest import copy_manifest
from asrtool.data.lhotse_sets import open_cuts, read_lhotse
from asrtool.data.manifest import transcripts, write_manifest
from asrtool.errors import DataError, UserError
from tests.tiny import cut_short, write_text_file


def problems(utterances, out, **options) -> list[str]:
    """What the utterances are refused with; nothing is left behind."""
    with pytest.raises(DataError) as caught:
        write_manifest(utterances, out, **options)
    assert caught.value.exit_status == 1
    assert not out.exists()
    assert list(out.parent.iterdir()) == []
    return caught.value.problems


@pytest.fixture
def lhotse_files(tmp_path, audio):
    """write(supervisions, **recording options) -> the files of a RecordingSet with "r" (2 s) and a SupervisionSet."""

    def write(supervisions, **options):
        recording = Recording.from_file(audio("r.wav", 2.0, **options), recording_id="r")
        RecordingSet.from_recordings([recording]).to_file(tmp_path / "rec.jsonl.gz")
        SupervisionSet.from_segments(supervisions).to_file(tmp_path / "sup.jsonl.gz")
        return tmp_path / "rec.jsonl.gz", tmp_path / "sup.jsonl.gz"

    return write


def segment(name, start, duration, text="A") -> SupervisionSegment:
    return SupervisionSegment(name, "r", start, duration, text=text)


def copy(recordings, supervisions, out, **options):
    return copy_manifest(read_lhotse(None, recordings, supervisions), out, **options)


def test_lhotse_recordings_and_supervisions_become_a_cut_for_each_supervision(lhotse_files, out):
    files = lhotse_files([segment("u1", 0.25, 0.75, "one"), segment("u2", 0.9, 1.1, "two")])
    summary = copy(*files, out, case="upper")
    one, two = open_cuts(out)
    assert summary.cuts == 2
    assert [(cut.id, cut.start, cut.duration) for cut in (one, two)] == [("u1", 0.25, 0.75), ("u2", 0.9, 1.1)]
    assert list(transcripts([out])) == ["ONE", "TWO"]
    assert [len(cut.supervisions) for cut in (one, two)] == [1, 1]
    whole, _ = soundfile.read(one.recording.sources[0].source, dtype="float32")
    np.testing.assert_array_equal(one.load_audio()[0], whole[4000:16000])


@pytest.mark.parametrize(
    ("text", "case", "is_kept"), [("two", "keep", True), ("two", "lower", True), ("two", "upper", False)]
)
def test_the_times_of_words_stay_while_the_words_do(lhotse_files, out, text, case, is_kept):
    aligned = segment("u1", 0.0, 2.0, text).with_alignment("word", [AlignmentItem("two", 0.1, 0.5)])
    summary = copy(*lhotse_files([aligned, segment("u2", 0.0, 1.0, text)]), out, case=case)
    alignment = next(iter(open_cuts(out))).supervisions[0].alignment
    assert bool(alignment) == is_kept
    assert ("1 utterances lost the times of their words, which no longer fit" in str(summary)) != is_kept


@pytest.mark.parametrize("cut_start", [0.0, 0.5])
def test_times_of_words_count_from_the_start_of_the_cut_of_their_supervision(lhotse_files, out, tmp_path, cut_start):
    words = [("one", 0.0, 0.1), ("two", 0.3, 0.5), ("two", 1.0, 0.25)]  # each with the start of its supervision
    segments = [
        segment(f"u{number}", start, 0.4, "a").with_alignment(kind, [AlignmentItem("a", start + after, 0.1)])
        for number, (kind, start, after) in enumerate(words)
    ]
    recording = next(iter(RecordingSet.from_file(lhotse_files([])[0])))
    cut = MonoCut("c", cut_start, 1.5, 0, segments, recording=recording)
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    copy_manifest(read_lhotse(tmp_path / "cuts.jsonl.gz", None, None), out)
    copied = list(open_cuts(out))
    assert [round(cut.start - cut_start, 6) for cut in copied] == [start for _, start, _ in words]
    for cut, (kind, _, after) in zip(copied, words, strict=True):
        assert [item.start for item in cut.supervisions[0].alignment[kind]] == pytest.approx([after])


def test_lhotse_cuts_keep_their_ids_and_features(corpus, out, tmp_path):
    from asrtool.data.feature_store import store_features

    store_features(corpus, tmp_path / "stored.jsonl.gz", num_bins=20)
    stored = list(open_cuts(tmp_path / "stored.jsonl.gz"))
    copy_manifest(read_lhotse(tmp_path / "stored.jsonl.gz", None, None), out)
    assert list(open_cuts(out)) == stored
    assert stored[0].has_features


def test_bad_lhotse_supervisions_are_all_listed(lhotse_files, out):
    files = lhotse_files(
        [
            segment("good", 0.0, 0.5),
            segment("silent", 0.5, 0.5, " "),
            segment("none", 0.5, 0.5, None),
            segment("good", 1.0, 0.5),
        ]
    )
    with pytest.raises(DataError) as caught:
        copy(*files, out)
    assert caught.value.problems == ["silent: empty transcript", "none: empty transcript", "good: duplicate id"]
    assert list(out.parent.iterdir()) == []
    copy(*files, out, skip_bad=True)
    assert [cut.id for cut in open_cuts(out)] == ["good"]


def test_a_lhotse_supervision_beyond_its_recording_is_named_and_the_others_are_kept(lhotse_files, out):
    files = lhotse_files([segment("good", 0.0, 0.5), segment("long", 1.0, 1.5), segment("fine", 0.5, 0.5)])
    with pytest.raises(DataError) as caught:
        copy(*files, out)
    assert len(caught.value.problems) == 1
    assert "long" in caught.value.problems[0]
    assert "2.500 s" in caught.value.problems[0]
    copy(*files, out, skip_bad=True)
    assert {cut.id for cut in open_cuts(out)} == {"good", "fine"}


@pytest.mark.parametrize(
    ("options", "message"), [({"rate": 8000}, "8000 Hz, expected 16000"), ({"channels": 2}, "one recording channel")]
)
def test_a_lhotse_recording_of_another_form_is_refused(lhotse_files, out, options, message):
    with pytest.raises(DataError, match=message):
        copy(*lhotse_files([segment("u", 0.0, 1.0)], **options), out)
    assert not out.exists()


@pytest.mark.parametrize("shared", [[0, 1], [1, 0], [1], 1])
@pytest.mark.parametrize("form", ["a cut of both channels", "recordings and supervisions", "a cut of one channel"])
def test_a_transcript_that_channels_share_belongs_to_the_chosen_one(lhotse_files, out, tmp_path, shared, form):
    segments = [SupervisionSegment("u", "r", 0.5, 1.0, channel=shared, text="A")]
    recordings, supervisions = lhotse_files(segments, channels=2)
    if form == "recordings and supervisions":
        cuts = read_lhotse(None, recordings, supervisions)
    else:
        recording = next(iter(RecordingSet.from_file(recordings)))
        cut = MultiCut("c", 0, 2.0, [0, 1], segments, recording=recording)
        if form == "a cut of one channel":
            cut = MonoCut("c", 0, 2.0, 1, segments, recording=recording)
        CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
        cuts = read_lhotse(tmp_path / "cuts.jsonl.gz", None, None)
    copy_manifest(cuts, out, channel=1)
    (cut,) = open_cuts(out)
    assert (cut.id, cut.channel, cut.supervisions[0].channel, cut.load_audio().shape) == ("u", 1, 1, (1, 16000))


def test_a_transcript_of_another_channel_than_the_audio_is_refused(lhotse_files, out, tmp_path):
    segments = [SupervisionSegment("u", "r", 0, 1.0, channel=[0, 2], text="A")]
    recording = next(iter(RecordingSet.from_file(lhotse_files(segments, channels=3)[0])))
    CutSet.from_cuts([MonoCut("c", 0, 1.0, 1, segments, recording=recording)]).to_file(tmp_path / "cuts.jsonl.gz")
    with pytest.raises(DataError) as caught:
        copy_manifest(read_lhotse(tmp_path / "cuts.jsonl.gz", None, None), out)
    assert caught.value.problems == ["c: its transcript is of channel [0, 2], its audio of channel 1"]


def test_a_lhotse_recording_can_be_resampled(lhotse_files, out):
    copy(*lhotse_files([segment("u", 0.5, 1.0)], rate=8000), out, resample=True)
    (cut,) = open_cuts(out)
    assert (cut.sampling_rate, cut.duration, cut.load_audio().shape) == (16000, 1.0, (1, 16000))


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_lhotse_manifest_that_contradicts_its_audio_is_refused(lhotse_files, audio, out, seconds):
    files = lhotse_files([segment("u", 0.0, 0.5)])
    audio("r.wav", seconds)
    with pytest.raises(DataError, match=f"manifest says 32000 samples .* file has {round(16000 * seconds)}"):
        copy(*files, out)


@pytest.mark.parametrize("damage", [os.unlink, lambda path: cut_short(path, 0.7), write_text_file])
def test_lhotse_audio_that_is_damaged_is_refused(lhotse_files, audio, out, damage):
    files = lhotse_files([segment("u", 0.0, 0.5)])
    damage(next(iter(RecordingSet.from_file(files[0]))).sources[0].source)
    with pytest.raises(DataError, match=r"u: .*r\.wav"):
        copy(*files, out)


def test_a_lhotse_cut_without_text_or_recording_is_refused(lhotse_files, out, tmp_path):
    recording = next(iter(RecordingSet.from_file(lhotse_files([segment("u", 0, 1)])[0])))
    silent = MonoCut("silent", 0, 1.0, 0, [], recording=recording)
    bare = MonoCut("bare", 0, 1.0, 0, [SupervisionSegment("u", "q", 0, 1.0, text="A")])
    mixed = MonoCut("mixed", 0, 1.0, 0, [segment("v", 0, 1.0)], recording=recording).pad(1.5, preserve_id=True)
    CutSet.from_cuts([silent, bare, mixed]).to_file(tmp_path / "in.jsonl.gz")
    with pytest.raises(DataError) as caught:
        copy_manifest(read_lhotse(tmp_path / "in.jsonl.gz", None, None), out)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["silent", "bare", "mixed"]


def test_missing_lhotse_manifests_are_named(tmp_path, lhotse_files):
    recordings, _ = lhotse_files([segment("u", 0.0, 0.5)])
    with pytest.raises(UserError, match="none.jsonl.gz"):
        read_lhotse(tmp_path / "none.jsonl.gz", None, None)
    with pytest.raises(UserError, match="both --recordings and --supervisions"):
        read_lhotse(None, recordings, None)
    with pytest.raises(UserError, match="give --cuts"):
        read_lhotse(None, None, None)
    for others in ((recordings, None), (None, recordings), (recordings, recordings)):
        with pytest.raises(UserError, match="give either --cuts, or both"):
            read_lhotse(recordings, *others)


def test_a_file_that_is_not_a_manifest_of_cuts_is_refused(tmp_path, lhotse_files, corpus):
    recordings, _ = lhotse_files([segment("u", 0.0, 0.5)])
    (tmp_path / "text.jsonl.gz").write_text("hello")
    (tmp_path / "short.jsonl.gz").write_bytes(corpus.read_bytes()[:20])
    (tmp_path / "plain.jsonl").write_text('{"id": 1')
    for name in (recordings, tmp_path / "text.jsonl.gz", tmp_path / "short.jsonl.gz", tmp_path / "plain.jsonl"):
        with pytest.raises(UserError, match=f"{name} is not a manifest of cuts"):
            open_cuts(name)


def test_a_missing_or_empty_manifest_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="manifest is empty"):
        open_cuts(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match="not found.*asrtool prepare"):
        open_cuts(tmp_path / "none.jsonl.gz")
