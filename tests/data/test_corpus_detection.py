import json
from pathlib import Path

import pytest

from asrtool.cli import cli
from asrtool.data.corpora import Utterance
from asrtool.data.corpus_detection import SourceOptions, describe_source, find_sets
from asrtool.errors import UserError


@pytest.fixture
def make(tmp_path, write_audio):
    """make({"a/1.wav": None, "t.csv": "..."}) writes audio of 0.2 s and files of text; returns their folder."""

    def write(files: dict[str, str | None]) -> Path:
        for name, content in files.items():
            path = tmp_path / "corpus" / name
            if content is None:
                write_audio(path, 0.2)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
        return tmp_path / "corpus"

    return write


NEMO = '{"audio_filepath": "wavs/1.wav", "duration": 0.1, "text": "one two"}\n'
CUT = {"id": "u", "start": 0, "duration": 0.2, "channel": 0, "type": "MonoCut"}
RECORDING = {"id": "r", "sampling_rate": 16000, "num_samples": 3200, "duration": 0.2}
SUPERVISION = {"id": "u", "recording_id": "r", "start": 0, "duration": 0.2, "text": "one two", "speaker": "ann"}
WAV = {"wavs/1.wav": None}


def recording(folder: str) -> dict:
    return RECORDING | {"sources": [{"type": "file", "channels": [0], "source": f"{folder}/wavs/1.wav"}]}


LAYOUTS = {
    "table": (WAV | {"t.csv": "audio,text\nwavs/1.wav,one two\n"}, "t.csv", "table"),
    "odd columns": (WAV | {"t.csv": "Nr;Datei;Satz\n1;wavs/1.wav;one two\n"}, "t.csv", "table"),
    "stems in another folder": (WAV | {"t.csv": "1|one two\n"}, "t.csv", "metadata"),
    "jsonl": (WAV | {"t.jsonl": '{"clip": "wavs/1.wav", "words": "one two"}\n'}, "t.jsonl", "table"),
    "nemo": (WAV | {"train.json": NEMO}, "train.json", "nemo"),
    "nemo of another machine": (WAV | {"train.json": NEMO.replace("wavs/", "/elsewhere/")}, "train.json", "metadata"),
    "kaldi": (WAV | {"data/wav.scp": "u wavs/1.wav\n", "data/text": "u one two\n"}, "data", "kaldi"),
    "folder": (WAV | {"wavs/1.txt": "one two"}, ".", "texts"),
    "audiofolder": (WAV | {"wavs/metadata.csv": "file_name,transcription\n1.wav,one two\n"}, ".", "metadata"),
    "transcripts.txt": (WAV | {"transcripts.txt": "1\tone two\n"}, ".", "keys"),
}


def read_by_command(words, out: Path, asr) -> list[dict]:
    """Runs the command of a source; returns the cuts that it writes."""
    import gzip

    status, printed, problem = asr(*(str(out) if word == "OUT" else word for word in words))
    assert status == 0, printed + problem
    with gzip.open(out, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_of_a_source_reads_what_python_reads(make, layout, asr, tmp_path, monkeypatch):
    files, path, kind = LAYOUTS[layout]
    source = describe_source(make(files) / path)
    assert source.kind == kind and source.description
    (utterance,) = source.read()
    assert isinstance(utterance, Utterance) and utterance.text == "one two"
    monkeypatch.chdir(tmp_path)  # the command does not depend on the current folder
    (cut,) = read_by_command(source.command, tmp_path / "out.jsonl.gz", asr)
    assert cut["id"] == utterance.id and cut["supervisions"][0]["text"] == "one two"
    assert cut["recording"]["sources"][0]["source"] == str(Path(utterance.audio).absolute())


@pytest.mark.parametrize("kind", ["cuts", "recordings", "supervisions", "folder"])
def test_manifests_of_lhotse_are_recognised(make, kind, asr, tmp_path):
    folder = make(WAV)
    cut = CUT | {"recording": recording(str(folder)), "supervisions": [SUPERVISION]}
    files = {"x_cuts_train.jsonl": cut}
    if kind != "cuts":
        files = {"x_recordings_train.jsonl": recording(str(folder)), "x_supervisions_train.jsonl": SUPERVISION}
    for name, tree in files.items():
        (folder / name).write_text(json.dumps(tree) + "\n")
    source = describe_source(folder if kind == "folder" else folder / f"x_{kind}_train.jsonl")
    assert source.kind == "lhotse"
    (utterance,) = source.read()
    assert (utterance.id, utterance.text, utterance.speaker, utterance.end) == ("u", "one two", "ann", None)
    (read,) = read_by_command(source.command, tmp_path / "out.jsonl.gz", asr)
    assert read["supervisions"][0]["text"] == "one two"


def test_sets_of_a_corpus_are_found(make):
    folder = make(
        {f"{part}/{part}.wav": None for part in ("train", "validation", "test")}
        | {
            f"{part}/metadata.csv": f"file_name,text\n{part}.wav,in {part}\n"
            for part in ("train", "validation", "test")
        }
    )
    sets = find_sets(folder)
    assert {name: next(source.read()).text for name, source in sets.items()} == {
        "train": "in train",
        "dev": "in validation",
        "test": "in test",
    }


def test_sets_may_be_tables_of_one_folder_of_audio(make):
    header = "client_id\tpath\tsentence\n"
    names = {"train": "1", "dev": "2", "test": "3"}
    files = {f"{name}.tsv": f"{header}c\t{n}.wav\tone two\n" for name, n in names.items()}
    folder = make(files | {f"clips/{n}.wav": None for n in names.values()} | {"validated.tsv": header})
    sets = find_sets(folder)
    assert set(sets) == {"train", "dev", "test"}
    assert [Path(next(source.read()).audio).name for source in sets.values()] == ["1.wav", "2.wav", "3.wav"]


def test_sets_may_be_kaldi_folders_whose_paths_start_above_them(make):
    files = {f"{part}/wav.scp": "u WAVE/1.wav\n" for part in ("train", "test")}
    files |= {f"{part}/text": "u one two\n" for part in ("train", "test")}
    folder = make(files | {"WAVE/1.wav": None})
    sets = find_sets(folder)
    assert set(sets) == {"train", "test"}
    assert next(sets["train"].read()).audio == str(folder / "WAVE/1.wav")
    assert sets["train"].command[-2:] == ("--audio-root", str(folder))


def test_long_transcripts_are_not_taken_for_files(make):
    long = "a very long sentence " * 30
    folder = make(
        WAV | {"t.csv": f"Datei;Satz\nwavs/1.wav;{long}\n", "train/metadata.csv": f"file_name,words\n1.wav,{long}\n"}
    )
    assert next(describe_source(folder / "t.csv").read()).text == long.strip()


def test_a_corpus_without_sets_is_one(make):
    folder = make(WAV | {"wavs/1.txt": "one two", "test/readme.md": "nothing"})
    assert list(find_sets(folder)) == ["all"]


@pytest.mark.parametrize(
    ("files", "path", "problem"),
    [
        (WAV, "none", "nothing is at"),
        (WAV, ".", "no transcripts found for the 1 audio files"),
        ({"a.txt": "x"}, ".", "no audio files in"),
        (WAV | {"t.csv": "a,b\nx.wav,one two\n"}, "t.csv", "no column names audio files.*--audio-column.*--audio-root"),
        (WAV | {"t.json": '[{"a": 1}]'}, "t.json", "is one JSON array"),
        (WAV | {"x_recordings.jsonl": json.dumps(recording("/none"))}, "x_recordings.jsonl", "recordings alone"),
        (WAV | {"t.csv": ""}, "t.csv", "is empty"),
    ],
)
def test_what_is_not_clear_is_one_line(make, files, path, problem):
    with pytest.raises(UserError, match=problem):
        describe_source(make(files) / path)


def test_options_of_the_user_are_in_the_command(make):
    folder = make({"spk/7_ann.wav": None})
    source = describe_source(folder, SourceOptions(name_pattern="{text}_{speaker}"))
    assert source.command[-2:] == ("--name-pattern", "{text}_{speaker}")
    (utterance,) = source.read()
    assert (utterance.text, utterance.speaker) == ("7", "ann")


@pytest.mark.parametrize("table", ["wavs/1.wav|one two\nwavs/2.wav|three four\n", "Datei;Satz\nwavs/1.wav;one two\n"])
def test_a_table_whose_audio_is_where_it_says_needs_no_search(make, monkeypatch, table):
    """Its folder may be a whole disk."""
    folder = make(WAV | {"wavs/2.wav": None, "t.csv": table})
    monkeypatch.setattr("asrtool.data.corpus_detection.scan_folder", lambda *_: pytest.fail("searched"))
    assert next(describe_source(folder / "t.csv").read()).text == "one two"


def test_every_option_of_a_command_exists(make):
    folder = make(WAV | {"t.csv": "audio;text;s;n\nwavs/1.wav;one two;ann;u\n"})
    options = SourceOptions({"speaker": "s", "id": "n"}, audio_root=folder, unlabelled=True)
    words = describe_source(folder / "t.csv", options).command
    command = cli.commands["prepare"].commands[words[1]]
    names = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= names
