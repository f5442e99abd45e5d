"""`asrtool normalise`, `split` and `subset`, and `prepare folder` and `nemo`, through the command line."""

import gzip
import json

import pytest


def cuts(path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def folder(tmp_path, monkeypatch, write_audio):
    """The current folder, with a corpus of ten stereo recordings of 48 kHz beside their texts."""
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        write_audio(tmp_path / "corpus" / f"s{number % 2}" / f"{number}.wav", 0.3, rate=48000, channels=2)
        (tmp_path / "corpus" / f"s{number % 2}" / f"{number}.txt").write_text(
            f"Satz “{'abcdefghij'[number]}”, schön!\n"
        )
    return tmp_path


def test_from_a_folder_to_normalised_sets(asr, folder):
    status, _, message = asr("prepare", "folder", "corpus", "all.jsonl.gz", "--resample")
    assert status == 1 and "2 channels" in message and "--channel" in message
    command = ("prepare", "folder", "corpus", "all.jsonl.gz", "--resample", "--speaker-from", "folder")
    assert asr(*command, "--channel", 0)[0] == 0
    assert asr(*command, "--channel", "mix")[0] == 2
    assert {cut["supervisions"][0]["speaker"] for cut in cuts("all.jsonl.gz")} == {"s0", "s1"}

    assert asr("normalise", "all.jsonl.gz", "--propose", "conf/n.yaml", "--case", "upper")[0] == 0
    assert asr("normalise", "all.jsonl.gz", "--propose", "conf/n.yaml")[0] == 2  # it may have been edited
    status, report, _ = asr("normalise", "all.jsonl.gz", "--rules", "conf/n.yaml", "--report")
    assert status == 0 and "10 utterances: 10 changed, 0 dropped" in report and "U+002C COMMA" in report
    status, printed, _ = asr("normalise", "all.jsonl.gz", "norm.jsonl.gz", "--rules", "conf/n.yaml")
    assert status == 0 and report.strip() in printed and "norm.jsonl.gz: 10 utterances" in printed
    assert cuts("norm.jsonl.gz")[0]["supervisions"][0]["text"] == "SATZ A SCHÖN"
    assert {**cuts("norm.jsonl.gz")[0], "supervisions": 0} == {**cuts("all.jsonl.gz")[0], "supervisions": 0}

    status, printed, _ = asr("split", "norm.jsonl.gz", "data", "--dev-size", "10%", "--test-size", 0.2)
    assert status == 0 and "split by utterance" in printed
    assert sum(len(cuts(f"data/{name}.jsonl.gz")) for name in ("train", "dev", "test")) == 10
    assert len(cuts("data/test.jsonl.gz")) == 2
    assert asr("split", "norm.jsonl.gz", "d2", "--dev-speakers", "s1", "--test-size", 0)[0] == 0
    assert len(cuts("d2/dev.jsonl.gz")) == 5 and not (folder / "d2/test.jsonl.gz").exists()
    (folder / "bad.txt").write_text("0\ttoo loud\n# a comment\n2\n")
    assert asr("subset", "norm.jsonl.gz", "s.jsonl.gz", "--speakers", "s0", "--exclude-ids", "bad.txt")[0] == 0
    assert [cut["id"] for cut in cuts("s.jsonl.gz")] == ["4", "6", "8"]


def test_texts_are_normalised_and_refused_lines_are_all_listed(asr, folder):
    (folder / "lm.txt").write_text("Hello, World!\n\nroom 5\nrooms 5 and 6\n\ufeffBye.\n")
    (folder / "n.yaml").write_text("punctuation: remove\ncase: lower\ndigits: drop\n")
    assert asr("normalise", "lm.txt", "out.txt", "--rules", "n.yaml")[0] == 0
    assert (folder / "out.txt").read_text() == "hello world\nbye\n"
    (folder / "n.yaml").write_text("digits: refuse\n")
    status, _, message = asr("normalise", "lm.txt", "out2.txt", "--rules", "n.yaml")
    assert status == 1 and "line 3: digits" in message and "line 4: digits" in message
    assert not (folder / "out2.txt").exists()
    assert asr("normalise", "lm.txt", "--rules", "n.yaml", "--report")[1].count("refused: line") == 2


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("lm.txt", "n.yaml", "which is an input as well"),
        ("lm.txt", "link.yaml", "which is an input as well"),
        ("all.jsonl", "n.yaml", "does not end in"),
        ("lm.txt", "all.jsonl", "named as a manifest"),
        ("lm.txt", "new.jsonl.gz", "named as a manifest"),
        ("lm.txt", "3gram.arpa.gz", "named as another kind of file"),
        ("lm.txt", "averaged.pt", "named as another kind of file"),
        ("lm.txt", "other.yaml", "named as another kind of file"),
        ("lm.txt", "notes.doc", "exists and is not a text"),
        ("parts", "parts/new.jsonl.gz", "which is an input"),
    ],
)
def test_an_output_is_neither_an_input_nor_of_the_other_kind(asr, folder, source, out, message):
    (folder / "lm.txt").write_text("A\n")
    (folder / "n.yaml").write_text("case: lower\n")
    (folder / "link.yaml").symlink_to("n.yaml")
    (folder / "averaged.pt").write_bytes(b"PK")
    (folder / "notes.doc").write_bytes(b"\xd0\xcf\x11\xe0\0")
    command = ("prepare", "folder", "corpus", "all.jsonl", "--resample", "--channel", 0)
    assert asr(*command)[0] == 0
    (folder / "parts").mkdir()
    (folder / "parts/a.jsonl").write_bytes((folder / "all.jsonl").read_bytes())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, _, error = asr("normalise", source, out, "--rules", "n.yaml")
    assert status == 2 and message in error and len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_prepare_does_not_replace_the_table_of_the_folder(asr, folder):
    table = folder / "corpus" / "metadata.jsonl"
    table.write_text('{"audio": "s0/0.wav", "text": "a b"}\n')
    before = table.read_bytes()
    status, _, error = asr("prepare", "folder", "corpus", table, "--metadata", "metadata.jsonl")
    assert status == 2 and "which is an input as well" in error and table.read_bytes() == before


@pytest.mark.parametrize("option", ["--config", "--tokenizer"])
def test_doctor_does_not_replace_its_inputs(asr, folder, option, tokenizer_file, corpus):
    given = folder / "given"
    given.write_bytes(tokenizer_file.read_bytes() if option == "--tokenizer" else b"data: {}\n")
    before = given.read_bytes()
    status, _, error = asr("doctor", "data", corpus, option, given, "--exclude", given)
    assert status == 2 and given.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--report",),
        ("out.txt",),
        ("--rules", "n.yaml"),
        ("out.txt", "--rules", "n.yaml", "--report"),
        ("--rules", "n.yaml", "--propose", "p.yaml"),
        ("out.txt", "--propose", "p.yaml"),
        ("--rules", "n.yaml", "--report", "--case", "upper"),
        ("--propose", "p.txt"),
        ("lm.txt", "--rules", "n.yaml"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(asr, folder, arguments):
    (folder / "lm.txt").write_text("a b\n")
    (folder / "n.yaml").write_text("")
    assert asr("normalise", "lm.txt", *arguments)[0] == 2
    assert (folder / "lm.txt").read_text() == "a b\n"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--dev-speakers", "a", "--dev-size", 0.01), "--dev-size"),
        (("--test-speakers", "a", "--test-size", "1h"), "--test-size"),
        (("--dev-speakers", "a", "--by", "utterance"), "--by"),
        (("--test-speakers", "a", "--by", "recording"), "--by"),
    ],
)
def test_an_option_of_split_without_effect_is_refused(asr, folder, arguments, option):
    status, _, error = asr("split", "all.jsonl.gz", "data", *arguments)
    assert status == 2 and f"{option} has no effect here" in error and not (folder / "data").exists()


def test_rules_are_not_proposed_without_transcripts(asr, folder):
    (folder / "lm.txt").write_text("\n \n")
    status, _, message = asr("normalise", "lm.txt", "--propose", "n.yaml")
    assert status == 2 and "no transcripts in lm.txt" in message and not (folder / "n.yaml").exists()


def test_a_nemo_manifest_becomes_a_manifest(asr, folder, write_audio):
    write_audio(folder / "a.wav", 1.0)
    row = {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.5, "text": "hi", "speaker": "ann"}
    (folder / "nemo.json").write_text(json.dumps(row) + "\n")
    assert asr("prepare", "nemo", "nemo.json", "out.jsonl.gz")[0] == 0
    (cut,) = cuts("out.jsonl.gz")
    assert (cut["start"], cut["duration"], cut["supervisions"][0]["speaker"]) == (0.25, 0.5, "ann")


def test_columns_have_options_of_their_own(asr, folder, write_audio):
    write_audio(folder / "a.wav")
    (folder / "t.csv").write_text("Datei;Satz;Wer\na.wav;hallo;ann\n")
    columns = ("--audio-column", "Datei", "--text-column", "Satz", "--speaker-column", "Wer")
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", *columns)[0] == 0
    (cut,) = cuts("out.jsonl.gz")
    assert (cut["supervisions"][0]["text"], cut["supervisions"][0]["speaker"]) == ("hallo", "ann")
    assert asr("prepare", "table", "t.csv", "out.jsonl.gz", "--audio-column", "Datei", "--text-column", "Sätze")[0] == 2


def test_scores_are_of_normalised_texts(asr, folder):
    row = {"id": "u", "ref": "Well, it's DONE.", "hyp": "well it’s done okay", "words": [["well", 0.1]]}
    (folder / "r").mkdir()
    (folder / "r" / "hyps.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "n.yaml").write_text('quotes: unify\npunctuation: remove\nkeep_in_words: "\'"\ncase: lower\n')
    assert "WER 133.33 %" in asr("score", "r")[1]
    assert "WER 33.33 % [-] (1 ins, 0 del, 0 sub / 3 words)" in asr("score", "r", "--normalise", "n.yaml")[1]
    facts = json.loads((folder / "r" / "wer.json").read_text())
    assert facts["normalised_by"]["case"] == "lower"
    (folder / "r" / "hyps.jsonl").write_text(json.dumps({**row, "token_type": "phones"}) + "\n")
    assert asr("score", "r", "--normalise", "n.yaml")[0] == 2
