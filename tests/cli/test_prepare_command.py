import gzip
import json
import os

import numpy as np
import pytest
import soundfile

from asrtool.data.sources import commands_allowed


@pytest.fixture
def folder(tmp_path, monkeypatch, write_audio):
    """The current folder, with 0.wav to 3.wav of 1.0 to 1.3 s."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_audio(tmp_path / f"{number}.wav", 1 + number / 10)
    return tmp_path


def cuts(path="out.jsonl.gz") -> list[dict]:
    """What the manifest says."""
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_no_data_runs_a_command_unless_it_is_allowed(asr, folder):
    (folder / "t.tsv").write_text("audio\ttext\ntouch PWNED |\tA\n")
    (folder / "k").mkdir()
    (folder / "k" / "wav.scp").write_text("u touch PWNED; cat 0.wav |\n")
    (folder / "k" / "text").write_text("u A\n")
    recording = {"id": "r", "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    cut = {"id": "u", "start": 0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    cut["supervisions"] = [{"id": "u", "recording_id": "r", "start": 0, "duration": 1.0, "text": "A"}]
    for number, source in enumerate([("command", "touch PWNED; cat 0.wav"), ("file", "touch PWNED |")]):
        sources = [{"type": source[0], "channels": [0], "source": source[1]}]
        (folder / f"{number}.jsonl").write_text(json.dumps(cut | {"recording": recording | {"sources": sources}}))
    runs = [("table", "t.tsv"), ("kaldi", "k"), ("lhotse", "--cuts", "0.jsonl"), ("lhotse", "--cuts", "1.jsonl")]
    for layout, *arguments in runs:
        status, _, message = asr("prepare", layout, *arguments, "out.jsonl.gz")
        assert status == 1
        assert "command" in message
    assert asr("prepare", "table", "t.tsv", "out.jsonl.gz", "--allow-commands")[0] == 2  # tables have none
    assert not (folder / "PWNED").exists()
    for layout, *arguments in (runs[1], runs[2]):
        status, message, _ = asr("prepare", layout, *arguments, "out.jsonl.gz", "--allow-commands")
        assert status == 0
        assert "1 recordings that are shell commands" in message
        (folder / "PWNED").unlink()
    assert not commands_allowed()  # any more


def test_different_rates_are_summarised_with_the_right_remedy(asr, folder, write_audio):
    (folder / "t.tsv").write_text("audio\ttext\n" + "".join(f"a{number}.wav\tA\n" for number in range(50)))
    for number in range(50):
        write_audio(folder / f"a{number}.wav", 0.1, rate=8000)
    status, _, message = asr("prepare", "table", "t.tsv", "out.jsonl.gz")
    assert status == 1
    assert len(message.splitlines()) == 12
    assert "--resample, or --sampling-rate 8000 and features.sampling_rate=8000" in message.splitlines()[-1]
    assert asr("prepare", "table", "t.tsv", "out.jsonl.gz", "--sampling-rate", 8000)[0] == 0


@pytest.mark.parametrize("out", [".", "k", "out.json", "text", "../x.wav"])
def test_the_output_must_be_named_as_a_manifest(asr, folder, out):
    (folder / "t.tsv").write_text("audio\ttext\n0.wav\tA\n")
    status, _, message = asr("prepare", "table", "t.tsv", out)
    assert status == 2
    assert "OUT" in message


def test_the_output_must_not_be_an_input(asr, folder):
    (folder / "t.tsv").write_text("audio\ttext\n0.wav\tA\n")
    assert asr("prepare", "table", "t.tsv", "out.jsonl.gz")[0] == 0
    os.link("out.jsonl.gz", "same.jsonl.gz")
    status, _, message = asr("prepare", "lhotse", "--cuts", "out.jsonl.gz", "same.jsonl.gz")
    assert status == 2
    assert "input" in message


def test_a_channel_of_stereo_audio_is_chosen(asr, folder):
    left, right = np.full(16000, 0.25), np.full(16000, -0.5)
    soundfile.write("call.wav", np.stack([left, right], 1), 16000)
    (folder / "t.csv").write_text("audio,text\ncall.wav,A\n")
    status, _, message = asr("prepare", "table", "t.csv", "out.jsonl.gz")
    assert status == 1
    assert "2 channels" in message
    assert "--channel" in message
    assert "no channel 2" in asr("prepare", "table", "t.csv", "out.jsonl.gz", "--channel", 2)[2]
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", "--channel", 1)[0] == 0
    assert level("out.jsonl.gz") == pytest.approx([-0.5])
    (folder / "t.csv").write_text("audio,text,channel\ncall.wav,A,0\ncall.wav,B,1\n")
    assert asr("prepare", "table", "t.csv", "both.jsonl.gz")[0] == 0
    assert level("both.jsonl.gz") == pytest.approx([0.25, -0.5])
    assert asr("prepare", "lhotse", "--cuts", "both.jsonl.gz", "copy.jsonl.gz")[0] == 0
    assert cuts("copy.jsonl.gz") == cuts("both.jsonl.gz")


def level(path) -> list[float]:
    """The first sample of each cut, as training reads it."""
    from asrtool.data.lhotse_sets import open_cuts
    from asrtool.data.samples import load_samples

    return [float(load_samples(cut)[0]) for cut in open_cuts(path)]


def test_a_channel_of_a_lhotse_recording_is_chosen(asr, folder):
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

    soundfile.write("call.wav", np.stack([np.full(16000, 0.25), np.full(16000, -0.5)], 1), 16000)
    RecordingSet.from_recordings([Recording.from_file("call.wav")]).to_file("r.jsonl")
    segments = [SupervisionSegment(f"u{n}", "call", 0.0, 0.5, channel=n, text="A") for n in range(2)]
    SupervisionSet.from_segments(segments).to_file("s.jsonl")
    both = ("prepare", "lhotse", "--recordings", "r.jsonl", "--supervisions", "s.jsonl", "out.jsonl.gz")
    assert asr(*both)[0] == 1
    for channel, sample in enumerate([0.25, -0.5]):
        assert asr(*both, "--channel", channel)[0] == 0
        assert [cut["id"] for cut in cuts()] == [f"u{channel}"]
        assert level("out.jsonl.gz") == pytest.approx([sample])


def test_a_table_of_another_tool_is_read_with_a_few_options(asr, folder):
    (folder / "cv.tsv").write_text('client_id\tpath\tsentence\tage\ns1\t0.wav\t"Yes\t20\ns2\t1.wav\tNo\t30\n')
    status, _, message = asr("prepare", "table", "cv.tsv", "out.jsonl.gz")
    assert status == 0
    assert "not used: age" in message
    assert [(cut["supervisions"][0]["speaker"], cut["supervisions"][0]["text"]) for cut in cuts()] == [
        ("s1", '"Yes'),
        ("s2", "No"),
    ]
    (folder / "metadata.csv").write_text("0|Guten Tag\n1|Ja\n")
    options = ("--header", "audio,text", "--delimiter", "bar", "--audio-root", folder)
    assert asr("prepare", "table", "metadata.csv", "out.jsonl.gz", *options)[0] == 0
    (folder / "own.csv").write_text("clip,said\n0.wav,A\n")
    options = ("--column", "audio=clip", "--column", "text=said")
    assert asr("prepare", "table", "own.csv", "out.jsonl.gz", *options)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--column", "text"), "not COLUMN=NAME"),
        (("--column", "txt=a"), "did you mean 'text'"),
        (("--delimiter", "x"), "comma"),
        (("--end-tolerance", "nan"), "finite"),
        (("--end-tolerance", "-1"), "at least 0"),
        (("--sampling-rate", "100000000000000000000"), "384000"),
        (("--sampling-rate", "0"), "1000"),
        (("--channel", "-1"), "channel"),
    ],
)
def test_impossible_options_are_refused(asr, folder, options, message):
    (folder / "t.csv").write_text("audio,text\n0.wav,A\n")
    status, _, printed = asr("prepare", "table", "t.csv", "out.jsonl.gz", *options)
    assert status == 2
    assert message in printed


def test_unlabelled_audio_is_prepared(asr, folder):
    (folder / "t.csv").write_text("audio,speaker\n0.wav,s\n1.wav,s\n")
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz")[0] == 2
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", "--unlabelled")[0] == 0
    assert all("text" not in cut["supervisions"][0] for cut in cuts())


def test_changes_are_counted_in_the_summary(asr, folder):
    (folder / "t.csv").write_text(
        "audio,text,start,end\n0.wav,Stra\u200bße,0,1.05\n1.wav,B,0.5,1.1\n", encoding="utf-8"
    )
    status, message, _ = asr("prepare", "table", "t.csv", "out.jsonl.gz", "--case", "upper")
    assert status == 0
    for note in ("1 ends beyond", "1 transcripts freed of invisible", "1 transcripts in which upper case made SS of ß"):
        assert note in message
    assert [cut["duration"] for cut in cuts()] == [1.0, 0.6]


def test_one_bad_recording_does_not_stop_the_others(asr, folder):
    os.mkfifo("pipe.wav")
    soundfile.write("nan.wav", np.array([0.0] * 8000 + [np.nan] * 8000), 16000, subtype="FLOAT")
    soundfile.write("short.wav", np.zeros(100), 16000)
    soundfile.write("loud.wav", np.arange(16000.0), 16000, subtype="FLOAT")
    names = ["pipe", "nan", "short", "loud", "0", "none", "1"]
    (folder / "t.csv").write_text("audio,text\n" + "".join(f"{name}.wav,A\n" for name in names))
    status, _, message = asr("prepare", "table", "t.csv", "out.jsonl.gz")
    assert status == 1
    for name in ("pipe", "nan", "short", "loud", "none"):
        assert f"  {name}: " in message
    assert "5 of 7 utterances are bad" in message
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", "--skip-bad")[0] == 0
    assert [cut["id"] for cut in cuts()] == ["0", "1"]


LONG = "x" * 300  # more characters than a file's name may have


def test_audio_that_the_system_does_not_let_be_read_is_one_bad_entry(asr, folder):
    os.symlink("/proc/self/mem", "unreadable.wav")  # a regular file, whose first bytes cannot be read
    os.symlink("loop.wav", "loop.wav")
    names = ["0", "unreadable", "loop", LONG, "1"]
    (folder / "t.csv").write_text("audio,text\n" + "".join(f"{name}.wav,A\n" for name in names))
    status, _, message = asr("prepare", "table", "t.csv", "out.jsonl.gz")
    assert status == 1 and "3 of 5 utterances are bad" in message
    assert all(f"  {name}: not readable as audio" in message for name in ("unreadable", "loop", LONG))
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", "--skip-bad")[0] == 0
    assert [cut["id"] for cut in cuts()] == ["0", "1"]


def test_a_name_that_no_file_can_have_is_one_bad_line(asr, folder):
    (folder / "transcripts.txt").write_text(f"0 A\n1 B\n2 C\n3 D\n{LONG} E\n")
    status, _, message = asr("prepare", "folder", ".", "out.jsonl.gz")
    assert status == 1 and f"transcripts.txt:5: no such audio file: {LONG}" in message and "1 of 5" in message
    assert asr("prepare", "folder", ".", "out.jsonl.gz", "--skip-bad")[0] == 0 and len(cuts()) == 4


BAD_LINES = ["{", "[1]", '{"audio": 1e999}', '{"audio": NaN}', "[" * 100_000]


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("command", ["table", "nemo", "folder"])
def test_a_line_that_is_not_json_is_one_bad_entry(asr, folder, command, place):
    lines = [json.dumps({"audio_filepath": f"{number}.wav", "text": "A"}) for number in range(4)]
    (folder / "t.jsonl").write_text("\n".join([*lines[:place], *BAD_LINES, *lines[place:]]) + "\n")
    source = "." if command == "folder" else "t.jsonl"
    status, _, message = asr("prepare", command, source, "out.jsonl.gz")
    assert status == 1 and "5 of 9 utterances are bad" in message and f"t.jsonl:{place + 1}: not JSON" in message
    assert asr("prepare", command, source, "out.jsonl.gz", "--skip-bad")[0] == 0 and len(cuts()) == 4


@pytest.mark.parametrize("option", [("--header", "audio,text"), ("--delimiter", "tab")])
def test_options_of_fields_have_no_effect_on_json(asr, folder, option):
    (folder / "t.jsonl").write_text('{"audio": "0.wav", "text": "A"}\n')
    status, _, message = asr("prepare", "table", "t.jsonl", "out.jsonl.gz", *option)
    assert status == 2 and f"{option[0]} has no effect here" in message


@pytest.mark.parametrize("bad", BAD_LINES[:1])
def test_a_line_of_a_manifest_that_is_not_json_is_one_bad_entry(asr, folder, bad):
    (folder / "t.csv").write_text("audio,text\n" + "".join(f"{number}.wav,A\n" for number in range(4)))
    assert asr("prepare", "table", "t.csv", "cuts.jsonl")[0] == 0
    with open("cuts.jsonl", "a") as file:
        file.write(bad + "\n")
    status, _, message = asr("prepare", "lhotse", "out.jsonl.gz", "--cuts", "cuts.jsonl")
    assert status == 1 and "cuts.jsonl:5: not JSON" in message and "1 of 5" in message
    assert asr("prepare", "lhotse", "out.jsonl.gz", "--cuts", "cuts.jsonl", "--skip-bad")[0] == 0 and len(cuts()) == 4


def test_ids_made_of_the_same_file_name_are_named_with_their_lines(asr, folder, write_audio):
    (folder / "t.csv").write_text("audio,text\na/1.wav,A\nb/1.wav,B\n")
    for name in "ab":
        write_audio(folder / name / "1.wav")
    status, _, message = asr("prepare", "table", "t.csv", "out.jsonl.gz")
    assert status == 1
    assert "1: duplicate id, in t.csv:2 and t.csv:3" in message
    assert "column id" in message
    (folder / "t.csv").write_text("id,audio,text\nx,a/1.wav,A\ny,b/1.wav,B\n")
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz")[0] == 0
    assert [cut["recording"]["id"] for cut in cuts()] == ["a/1.wav", "b/1.wav"]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_lhotse_manifest_is_one_error_line(asr, corpus, folder, share):
    content = corpus.read_bytes()
    (folder / "cut.jsonl.gz").write_bytes(content[: int(len(content) * share)])
    status, _, message = asr("prepare", "lhotse", "--cuts", "cut.jsonl.gz", "out.jsonl.gz")
    assert status == 2
    assert "cut.jsonl.gz" in message
    assert len(message.splitlines()) == 1
