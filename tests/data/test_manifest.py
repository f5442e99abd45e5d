import struct
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from asrtool.data.corpora import Utterance
from asrtool.data.kaldi_folder import read_kaldi
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import transcripts, write_manifest
from asrtool.data.sources import InvalidEntry, allow_commands
from asrtool.data.tables import read_table
from asrtool.errors import DataError
from tests.tiny import cut_short, write_text_file


@pytest.fixture
def commands():
    """Shell commands are allowed, as with --allow-commands."""
    allow_commands()
    yield
    allow_commands(False)


def problems(utterances, out, **options) -> list[str]:
    """What the utterances are refused with; nothing is left behind."""
    with pytest.raises(DataError) as caught:
        write_manifest(utterances, out, **options)
    assert caught.value.exit_status == 1
    assert not out.exists()
    assert list(out.parent.iterdir()) == []
    return caught.value.problems


def one_problem(utterances, out, **options) -> str:
    (problem,) = problems(utterances, out, **options)
    return problem


def test_a_good_corpus_becomes_one_cut_an_utterance(audio, out):
    utterances = [
        Utterance("a", audio("a.flac", 1.2), "ONE  TWO", speaker="s"),
        Utterance("b", audio("b.wav", 0.7), "Three"),
        Utterance("c", audio("c.flac", 3.0), "four", recording="r", start=0.5, end=1.75),
    ]
    summary = write_manifest(utterances, out)
    a, b, c = open_cuts(out)
    assert (summary.cuts, summary.left_out) == (3, 0)
    assert summary.seconds == pytest.approx(1.2 + 0.7 + 1.25)
    assert [cut.id for cut in (a, b, c)] == ["a", "b", "c"]
    assert [cut.supervisions[0].text for cut in (a, b, c)] == ["ONE TWO", "Three", "four"]
    assert a.supervisions[0].speaker == "s"
    assert (c.start, c.duration, c.supervisions[0].start, c.supervisions[0].duration) == (0.5, 1.25, 0.0, 1.25)
    whole, _ = soundfile.read(c.recording.sources[0].source, dtype="float32")
    np.testing.assert_array_equal(c.load_audio()[0], whole[8000:28000])


def test_the_manifest_works_from_another_folder(audio, out, tmp_path, monkeypatch):
    audio("a.flac")
    monkeypatch.chdir(tmp_path / "audio")
    write_manifest([Utterance("a", "a.flac", "A")], out)
    monkeypatch.chdir(tmp_path)
    assert next(iter(open_cuts(out))).load_audio().shape == (1, 16000)


def test_manifests_are_lazy(corpus):
    assert open_cuts(corpus).is_lazy


def test_recordings_of_the_same_name_in_two_folders_stay_apart(audio, out, tmp_path):
    one, two = audio("x/rec.wav", 1.0), audio("y/rec.wav", 2.0)
    (tmp_path / "t.csv").write_text(f"id,audio,text,start,end\nu,{one},A,0.5,0.9\nv,{two},B,0.5,0.9\n")
    write_manifest(read_table(tmp_path / "t.csv"), out)
    assert [cut.recording.sources[0].source for cut in open_cuts(out)] == [one, two]


BAD = {
    "missing": lambda audio: (Utterance("u", "/none/u.flac", "A"), "no such audio file: /none/u.flac"),
    "no audio": lambda audio: (Utterance("u", write_text_file(audio("u.wav")), "A"), "not readable as audio"),
    "empty file": lambda audio: (Utterance("u", cut_short(audio("u.flac"), 0), "A"), "not readable as audio"),
    "no samples": lambda audio: (Utterance("u", audio("u.wav", 0), "A"), "no samples"),
    "truncated wav": lambda audio: (Utterance("u", cut_short(audio("u.wav"), 0.6), "A"), "u.wav"),
    "truncated wav at its end": lambda audio: (Utterance("u", cut_short(audio("u.wav"), 0.99), "A"), "truncated"),
    "truncated flac": lambda audio: (Utterance("u", cut_short(audio("u.flac"), 0.6), "A"), "u.flac"),
    "truncated flac at its end": lambda audio: (Utterance("u", cut_short(audio("u.flac"), 0.99), "A"), "u.flac"),
    "rate": lambda audio: (Utterance("u", audio("u.wav", rate=8000), "A"), "8000 Hz, expected 16000"),
    "stereo": lambda audio: (Utterance("u", audio("u.flac", channels=2), "A"), "2 channels"),
    "empty transcript": lambda audio: (Utterance("u", audio("u.flac"), " \t"), "empty transcript"),
    "beyond the end": lambda audio: (
        Utterance("u", audio("u.flac", 2), "A", "s", "r", 1.0, 2.5),
        "ends at 2.500 s, its recording at 2.000 s",
    ),
    "backwards": lambda audio: (Utterance("u", audio("u.flac", 2), "A", "s", "r", 1.0, 0.5), "not a span"),
    "before the start": lambda audio: (Utterance("u", audio("u.flac", 2), "A", "s", "r", -1.0, 0.5), "not a span"),
    "not a number": lambda audio: (Utterance("u", audio("u.flac"), "A", "s", "r", 0.0, float("nan")), "not a span"),
    "failing command": lambda audio: (Utterance("u", "cat /none/u.wav |", "A"), "command failed: cat /none/u.wav"),
    "truncated wav from a command": lambda audio: (
        Utterance("u", f"cat {cut_short(audio('u.wav'), 0.6)} |", "A"),
        "truncated",
    ),
    "silent command": lambda audio: (Utterance("u", "true |", "A"), "command failed"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.usefixtures("commands")
def test_a_bad_utterance_is_refused_with_its_reason(audio, out, kind):
    bad, message = BAD[kind](audio)
    problem = one_problem([Utterance("good", audio("good.flac"), "A"), bad], out)
    assert problem.startswith("u: ")
    assert message in problem


@pytest.mark.usefixtures("commands")
def test_all_problems_are_listed_at_once(audio, out):
    good = Utterance("good", audio("good.flac"), "A")
    bad = [
        replace(make(lambda name, *a, i=i, **o: audio(f"{i}/{name}", *a, **o))[0], id=f"u{i}", recording=None)
        for i, make in enumerate(BAD.values())
    ]
    found = problems([*bad, good, good], out)
    assert [problem.split(":")[0] for problem in found] == [*(f"u{i}" for i in range(len(bad))), "good"]
    assert found[-1] == "good: duplicate id"


@pytest.mark.parametrize(
    "bad", [{"audio": "/none.flac"}, {"text": ""}, {"end": 99.0}, {"speaker": "a\u200b"}, {"text": "fail"}]
)
def test_a_bad_utterance_does_not_take_its_id_from_a_good_one(audio, out, bad):
    def complete(cut: dict) -> dict:
        if cut["supervisions"][0]["text"] == "fail":
            raise InvalidEntry("has no alignment")
        return cut

    good = Utterance("a", audio("a.flac"), "A")
    summary = write_manifest([replace(good, **bad), good], out, skip_bad=True, complete=complete)
    assert (summary.cuts, summary.left_out) == (1, 1)
    assert [cut.supervisions[0].text for cut in open_cuts(out)] == ["A"]


def test_the_summary_has_a_count_and_the_remedy(audio, out):
    good = Utterance("a", audio("a.flac"), "A")
    with pytest.raises(DataError) as caught:
        write_manifest([good, replace(good, id="b", text=""), replace(good, id="c", text="")], out)
    assert "2 of 3 utterances are bad" in caught.value.summary
    assert "--skip-bad" in caught.value.summary


def test_a_refused_corpus_leaves_the_old_manifest(audio, out):
    good = Utterance("a", audio("a.flac"), "A")
    write_manifest([good], out)
    with pytest.raises(DataError):
        write_manifest([replace(good, text="")], out)
    assert [cut.id for cut in open_cuts(out)] == ["a"]
    assert list(out.parent.iterdir()) == [out]


def test_skip_bad_leaves_out_only_the_bad_utterances(audio, out, capsys):
    good = [Utterance("a", audio("a.flac"), "A"), Utterance("c", audio("c.flac"), "C")]
    summary = write_manifest([good[0], Utterance("b", "/none.flac", "B"), good[1]], out, skip_bad=True)
    assert (summary.cuts, summary.left_out) == (2, 1)
    assert "1 bad ones left out" in str(summary)
    assert [cut.id for cut in open_cuts(out)] == ["a", "c"]
    assert "b: no such audio file: /none.flac" in capsys.readouterr().err


def test_skip_bad_with_nothing_good_writes_nothing(out):
    assert problems([Utterance("b", "/none.flac", "B")], out, skip_bad=True)


def test_no_utterances_at_all_are_refused(out):
    assert problems([], out) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_16")]
)
def test_a_truncated_recording_is_refused_wherever_it_ends(tmp_path, out, suffix, subtype, share):
    path = tmp_path / f"u.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000, subtype)
    write_manifest([Utterance("u", str(path), "A")], out)
    out.unlink()
    assert str(path) in one_problem([Utterance("u", cut_short(str(path), share), "A")], out)


@pytest.mark.parametrize("claim", [0x7FFFFFFF - 8, 0xFFFFFFFF, 0])
def test_a_wav_that_was_written_to_a_pipe_is_not_truncated(audio, out, claim):
    """Its header could not know the length."""
    path = audio("u.wav", 1.0)
    with open(path, "r+b") as file:
        header = file.read(44)
        assert header[36:40] == b"data"
        file.seek(40)
        file.write(struct.pack("<I", claim))
    try:
        write_manifest([Utterance("u", path, "A")], out)
    except DataError as error:
        assert claim == 0
        assert "no samples" in str(error) and "32000 bytes follow" in str(error) and "ffmpeg -i" in str(error)
    else:
        assert next(iter(open_cuts(out))).duration == 1.0


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampling_gives_the_rate_and_keeps_the_duration(audio, out, rate):
    path = audio("u.wav", 1.2345, rate=rate, frequency=440)
    write_manifest([Utterance("u", path, "A")], out, resample=True)
    (cut,) = open_cuts(out)
    samples = cut.load_audio()[0]
    assert cut.sampling_rate == 16000
    assert cut.duration == pytest.approx(1.2345, abs=1e-3)
    assert len(samples) == cut.num_samples == pytest.approx(1.2345 * 16000, abs=2)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * 16000 / len(samples) == pytest.approx(440, abs=1)


def test_a_segment_of_a_resampled_recording_keeps_its_place(tmp_path, out):
    samples = np.zeros(24000, np.float32)
    samples[8000:16000] = np.sin(np.arange(8000) * 0.3) * 0.5  # sound from 1.0 to 2.0 s
    soundfile.write(tmp_path / "r.wav", samples, 8000)
    spans = [(0.0, 0.98), (1.02, 1.98), (2.02, 3.0)]
    rows = [Utterance(f"u{i}", str(tmp_path / "r.wav"), "A", None, "r", *span) for i, span in enumerate(spans)]
    write_manifest(rows, out, resample=True)
    levels = [np.abs(cut.load_audio()).mean() for cut in open_cuts(out)]
    assert levels[1] > 0.2
    assert max(levels[0], levels[2]) < 0.001


def test_other_sampling_rates_can_be_expected(audio, out):
    write_manifest([Utterance("u", audio("u.wav", rate=8000), "A")], out, sampling_rate=8000)
    assert next(iter(open_cuts(out))).sampling_rate == 8000


@pytest.mark.parametrize(("case", "text"), [("keep", "Straße Été"), ("upper", "STRASSE ÉTÉ"), ("lower", "straße été")])
def test_text_is_put_in_the_case_and_composed(audio, out, case, text):
    decomposed = unicodedata.normalize("NFD", "Straße Été")
    write_manifest([Utterance("u", audio("u.flac"), decomposed)], out, case=case)
    assert list(transcripts([out])) == [text]


def test_a_transcript_that_ends_within_a_millisecond_of_its_recording_is_good(audio, out):
    write_manifest([Utterance("u", audio("u.flac", 1.0), "A", None, "r", 0.0, 1.0009)], out)
    (cut,) = open_cuts(out)
    assert cut.load_audio().shape[1] == cut.num_samples


@pytest.mark.usefixtures("commands")
def test_a_kaldi_folder_with_segments_and_a_command_becomes_its_audio(audio, out, tmp_path):
    path = audio("r.wav", 2.0)
    (tmp_path / "wav.scp").write_text(f"r cat {path} |\n")
    (tmp_path / "text").write_text("u1 ONE\nu2 TWO\n")
    (tmp_path / "segments").write_text("u1 r 0.25 1.00\nu2 r 1.00 -1\n")
    write_manifest(read_kaldi(tmp_path), out)
    one, two = open_cuts(out)
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(one.load_audio()[0], whole[4000:16000])
    np.testing.assert_array_equal(two.load_audio()[0], whole[16000:])
