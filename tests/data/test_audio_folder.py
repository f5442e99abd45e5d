from pathlib import Path

import pytest

from asrtool.data.audio_folder import read_folder
from asrtool.data.corpora import Utterance
from asrtool.data.folder_plan import FolderLayout
from asrtool.data.tables import TableLayout
from asrtool.errors import UserError


@pytest.fixture
def make(tmp_path):
    """make({"a/1.wav": "", "a/1.txt": "A B"}) writes files and returns their folder; audio is not opened."""

    def write(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / "corpus" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return tmp_path / "corpus"

    return write


def rows(folder: Path, **layout) -> list[tuple]:
    """Id, text, speaker and audio below the folder of each utterance; a problem as its text."""
    return [
        (row.id, row.text, row.speaker, Path(row.audio).relative_to(folder).as_posix())
        if isinstance(row, Utterance)
        else row.replace(f"{folder}/", "")
        for row in read_folder(folder, FolderLayout(**layout))
    ]


def test_text_files_beside_the_audio_are_the_transcripts(make):
    folder = make({"s1/a.wav": "", "s1/a.txt": "\ufeffONE\nTWO \n", "s2/deep/b.MP3": "", "s2/deep/b.txt": "drei"})
    assert rows(folder) == [("a", "ONE TWO", None, "s1/a.wav"), ("b", "drei", None, "s2/deep/b.MP3")]
    assert [row[2] for row in rows(folder, speaker_from="folder")] == ["s1", "deep"]


def test_the_folder_is_the_speaker_of_audio_that_has_no_other(make):
    folder = make({"a/1.wav": "", "a/2.wav": "", "metadata.csv": "audio,text,speaker\na/1.wav,A,ann\na/2.wav,B,\n"})
    assert [row[2] for row in rows(folder, speaker_from="folder")] == ["ann", "a"]
    layout = {"name_pattern": "{text}_{speaker}", "speaker_from": "folder"}
    (folder / "metadata.csv").unlink()
    for number in (1, 2):
        (folder / f"a/{number}.wav").rename(folder / f"a/yes_s{number}.wav")
    assert [row[2] for row in rows(folder, **layout)] == ["s1", "s2"]


@pytest.mark.parametrize("suffix", ["", ".wav"])
def test_a_table_may_name_the_last_folders_of_audio_whose_names_repeat(make, suffix):
    files = {f"deep/{speaker}/v1.1.wav": "" for speaker in "ab"}
    folder = make(files | {"metadata.csv": f"audio,text\nb/v1.1{suffix},B\na/v1.1{suffix},A\n"})
    assert [(row[1], row[3]) for row in rows(folder)] == [("B", "deep/b/v1.1.wav"), ("A", "deep/a/v1.1.wav")]


def test_other_tables_do_not_matter_where_texts_have_the_transcripts(make):
    folder = make({"a.wav": "", "a.txt": "A", "speakers.tsv": "id\tage\n1\t2\n", "log.csv": "x,y\n1,2\n"})
    assert [row[1] for row in rows(folder)] == ["A"]


def test_names_that_repeat_get_the_names_of_their_folders(make):
    folder = make(
        {f"{s}/1.wav": "" for s in "ab"} | {f"{s}/1.txt": s for s in "ab"} | {"a/2 x.wav": "", "a/2 x.txt": "c"}
    )
    assert [row[0] for row in rows(folder)] == ["a-1", "2_x", "b-1"]


@pytest.mark.parametrize(
    "files",
    [
        {"transcripts.txt": "a/1 one\nb/1 two\n"},
        {"a/transcripts.txt": "1 one\n", "b/transcripts.txt": "1 two\n"},
        {"a/1.txt": "one", "b/1.txt": "two", "c.txt": "three", "c.wav": ""},
        {},
        {"metadata.csv": "file,text,id\nc.wav,three,c\n", "c.wav": ""},
    ],
)
def test_ids_of_audio_whose_names_repeat_are_different_in_all_layouts(make, files):
    folder = make({"a/1.wav": "", "b/1.wav": ""} | files)
    found = rows(folder, unlabelled=True)
    assert [row[0] for row in found if row[0] != "c"] == ["a-1", "b-1"]


def test_texts_may_be_in_a_tree_of_their_own(make):
    folder = make({"wav48/p1/p1_1.flac": "", "txt/p1/p1_1.txt": "please call"})
    assert rows(folder) == [("p1_1", "please call", None, "wav48/p1/p1_1.flac")]


SPEAKERS = {f"spk{s}/00{n}.wav": "" for s in (1, 2) for n in (1, 2, 3)}


def missing(name: str) -> dict[str, str]:
    """Texts of all audio files of SPEAKERS but one."""
    texts = {f"{audio[:-4]}.txt": f"words of {audio[:-4]}" for audio in SPEAKERS}
    del texts[name]
    return texts


@pytest.mark.parametrize(
    "files",
    [
        SPEAKERS | missing("spk1/002.txt"),
        {name: "" for name in SPEAKERS if name != "spk2/002.wav"} | missing("spk1/002.txt"),  # its text is alone
        SPEAKERS | missing("spk1/002.txt") | {"backup/002.txt": "words of another corpus"},
        {name.replace("2.wav", "2.m4a"): "" for name in SPEAKERS} | missing("spk1/002.txt"),
    ],
    ids=["another folder", "another folder without the audio", "a stray text", "media"],
)
def test_a_missing_text_is_not_taken_from_another_recording(make, files):
    found = rows(make(files))
    assert all(row[1] == f"words of {row[3][:-4]}" for row in found if isinstance(row, tuple))
    assert "spk1/002.wav: no text file 002.txt" in found or "spk1/002.wav" not in files


def test_a_text_of_another_tree_is_of_one_audio_file_only(make):
    folder = make({"wav/a/1.wav": "", "wav/b/1.wav": "", "wav/b/2.wav": "", "txt/1.txt": "A", "txt/2.txt": "B"})
    two, one, other, unused = sorted(rows(folder), key=str)
    assert two == ("2", "B", None, "wav/b/2.wav")
    assert unused == "wav/b/1.wav: no text file 1.txt"
    assert (one, other) == ("txt/1.txt: a text without an audio file", "wav/a/1.wav: no text file 1.txt")


NAMES = ["spk1/001", "spk1/002", "spk2/001", "spk2/002", "spk2/003"]


@pytest.mark.parametrize("prefix", ["", "/old/corpus/", "../wavs/"])
@pytest.mark.parametrize("suffix", ["", ".wav"])
@pytest.mark.parametrize("named", [NAMES, NAMES[:3]], ids=["all", "some"])
def test_a_name_with_folders_is_not_of_a_file_in_other_folders(make, prefix, suffix, named):
    table = "".join(f"{prefix}{name}{suffix},words of {name}\n" for name in named)
    audio = {f"deep/{name}.wav": "" for name in NAMES if name != "spk1/002"}
    folder = make(audio | {"metadata.csv": f"audio,text\n{table}"})
    found = rows(folder)
    assert sum(isinstance(row, tuple) for row in found) == len(named) - 1
    assert all(f"deep/{row[1].removeprefix('words of ')}.wav" == row[3] for row in found if isinstance(row, tuple))
    assert any(f"no such audio file: {prefix}spk1/002{suffix}" in row for row in found)
    keys = table.replace(",", " ")
    (folder / "metadata.csv").rename(folder / "transcripts.txt").write_text(keys)
    found = rows(folder)
    assert all(f"deep/{row[1].removeprefix('words of ')}.wav" == row[3] for row in found if isinstance(row, tuple))
    assert any(f"no such audio file: {prefix}spk1/002{suffix}" in row for row in found)


@pytest.mark.parametrize("file", ["metadata.csv", "transcripts.txt"])
def test_transcripts_of_a_folder_do_not_take_the_audio_of_another_one(make, file):
    lines = {"spk1": "001 one\n002 two\n", "spk2": "001 one\n", "": ""}  # spk1/002.wav is missing
    texts = {f"{speaker}/{file}": lines[speaker] for speaker in ("spk1", "spk2")}
    if file == "metadata.csv":
        texts = {name: "audio,text\n" + text.replace(" ", ",") for name, text in texts.items()}
    folder = make({"spk1/001.wav": "", "spk2/001.wav": "", "spk2/002.wav": ""} | texts)
    assert [row[3] for row in rows(folder) if isinstance(row, tuple)] == ["spk1/001.wav", "spk2/001.wav"]
    problems = [row for row in rows(folder) if isinstance(row, str)]
    assert any("no such audio file: 002; " in row for row in problems)
    assert any(row.startswith("spk2/002.wav: no ") for row in problems)


@pytest.mark.parametrize("file", ["metadata.csv", "transcripts.txt"])
def test_two_names_are_not_of_one_file(make, file):
    content = "002 two\nspk2/002 other\n"
    content = content if file == "transcripts.txt" else "audio,text\n" + content.replace(" ", ",")
    folder = make({"spk2/002.wav": "", "spk2/001.wav": "", file: content})
    assert [row[1:] for row in rows(folder) if isinstance(row, tuple)] in ([("other", None, "spk2/002.wav")], [])
    assert any("no such audio file: 002; the only one of this name" in row for row in rows(folder))


@pytest.mark.parametrize("unlabelled", [True, False])
@pytest.mark.parametrize("chosen", [None, Path("metadata.csv")])
def test_audio_that_no_row_names_is_listed_or_taken(make, unlabelled, chosen):
    folder = make({"a.wav": "", "b.wav": "", "metadata.csv": "file_name,text\na.wav,A\n"})
    named, *unnamed = rows(folder, unlabelled=unlabelled, metadata=chosen)
    assert named == ("a", "A", None, "a.wav")
    if unlabelled:
        assert unnamed == [("b", "", None, "b.wav")]
    else:
        assert unnamed == ([] if chosen else ["b.wav: no row in metadata.csv"])


def test_what_is_missing_or_empty_is_listed(make):
    folder = make(
        {f"{n}.wav": "" for n in "abcd"}
        | {"a.lab": "A", "b.lab": "B", "c.lab": " \n", "e.lab": "E", "README.lab": "no text", "f.m4a": "", "f.lab": "F"}
    )
    found = rows(folder)
    assert [row[0] for row in found if isinstance(row, tuple)] == ["a", "b"]
    problems = [row for row in found if isinstance(row, str)]
    assert problems[0] == "c.lab: empty transcript"
    assert problems[1] == "d.wav: no text file d.lab"
    assert "f.m4a: .m4a cannot be read for training" in problems[2] and "ffmpeg" in problems[2]
    assert problems[3] == "e.lab: a text without an audio file"
    assert len(problems) == 4
    assert [row[0] for row in rows(folder, unlabelled=True) if isinstance(row, tuple)] == ["a", "b", "d"]


def test_text_files_that_are_not_text_are_listed(make):
    folder = make({"a.wav": "", "a.txt": "", "b.wav": "", "b.txt": "B (id-1)"})
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")
    problem, utterance = rows(folder)
    assert problem.startswith("a.txt:1: not UTF-8")
    assert utterance[1] == "B (id-1)"
    (folder / "a.trn").write_text("A B (id-1)\n")
    (folder / "b.trn").write_text("C\n")
    assert [row[1] for row in rows(folder, text_suffix=".trn")] == ["A B", "C"]


def test_two_kinds_of_text_need_a_choice(make):
    files = {f"{n}{s}": "x" for n in "ab" for s in (".wav", ".normalized.txt", ".original.txt")}
    folder = make(files)
    with pytest.raises(UserError, match=r"\.normalized\.txt, \.original\.txt\); choose one with --text-suffix"):
        rows(folder)
    assert len(rows(folder, text_suffix=".original.txt")[0]) == 4


TABLES = {
    "header": ("metadata.csv", "file_name,transcription,speaker_id\n{a}1.wav,one two,s1\n{a}2.wav,three four,s2\n"),
    "odd names": ("metadata.csv", "Datei;Sprecherin;Satz\n{a}1.wav;s1;one two\n{a}2.wav;s2;three four\n"),
    "bar without header": ("metadata.csv", "1|one two\n2|three four\n"),
    "normalised third": ("list.csv", "1|One 2|one two\n2|Three, four|three four\n"),
    "jsonl": (
        "metadata.jsonl",
        '{{"file_name": "{a}1.wav", "text": "one two"}}\n{{"file_name": "{a}2.wav", "text": "three four"}}\n',
    ),
    "names and texts": ("transcripts.txt", "1 one two\n2 three four\n"),
    "stems and tabs": ("all.tsv", "clip\twords\n1\tone two\n2\tthree four\n"),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("audio", ["", "wavs/"])
def test_a_table_names_audio_anywhere_in_the_folder(make, kind, audio):
    name, content = TABLES[kind]
    folder = make({f"{audio}1.wav": "", f"{audio}2.wav": "", name: content.format(a=audio)})
    found = rows(folder)
    assert [(row[0], row[1], row[3]) for row in found] == [
        ("1", "one two", f"{audio}1.wav"),
        ("2", "three four", f"{audio}2.wav"),
    ]
    if kind == "header":
        assert [row[2] for row in found] == ["s1", "s2"]


@pytest.mark.parametrize(
    "table",
    [
        "0.wav,missing one\n1.wav,one two\n2.wav,three four\n",
        "lost/0.FLAC|missing one\n1|one two\n2|three four\n",
        "stop,0.wav,missing one\ngo,1.wav,one two\nstop,2.wav,three four\n",
    ],
)
def test_a_first_row_whose_audio_is_missing_is_listed_and_no_header(make, table):
    missing, *found = rows(make({"1.wav": "", "2.wav": "", "metadata.csv": table}))
    assert missing.startswith("metadata.csv:1: no such audio file")
    assert [row[:2] for row in found] == [("1", "one two"), ("2", "three four")]


def test_a_first_line_that_may_be_a_row_without_its_audio_needs_a_choice(make):
    table = "0|this audio is missing\n1|one two three\n2|three four five\n"
    folder = make({"1.wav": "", "2.wav": "", "metadata.csv": table})
    with pytest.raises(UserError, match="may be a header, or a row .*--header audio,text"):
        rows(folder)
    missing, *found = rows(folder, table=TableLayout(header=["audio", "text"]))
    assert missing.startswith("metadata.csv:1: no such audio file") and len(found) == 2
    found = rows(folder, table=TableLayout(columns={"audio": "0", "text": "this audio is missing"}))
    assert [row[1] for row in found] == ["one two three", "three four five"]


@pytest.mark.parametrize("header", ["audio,text", "file,text", "Path,Sentence", "text,speaker,path"])
def test_usual_names_are_a_header_also_if_audio_files_are_called_so(make, header):
    fields = {"audio": "1.wav", "file": "1.wav", "path": "1.wav", "speaker": "s"}
    row = ",".join(fields.get(name.lower(), "one two") for name in header.split(","))
    folder = make({"1.wav": "", "text.wav": "", "path.wav": "", "metadata.csv": f"{header}\n{row}\n"})
    found, *others = rows(folder)
    assert found[:2] == ("1", "one two")
    assert others == ["path.wav: no row in metadata.csv", "text.wav: no row in metadata.csv"]


def test_a_header_of_other_names_is_said(make, caplog):
    with caplog.at_level("INFO"):
        rows(make({"1.wav": "", "metadata.csv": "Datei;Satz\n1.wav;one two\n"}))
    assert "its first line is taken as the header (Datei, Satz)" in caplog.text


def test_each_folder_may_have_its_table(make):
    files = {f"{s}/metadata.csv": f"file_name,text\nx{s}.wav,{s} words\n" for s in ("train", "test")}
    folder = make(files | {"train/xtrain.wav": "", "test/xtest.wav": ""})
    assert [row[1] for row in rows(folder)] == ["test words", "train words"]


def test_a_table_with_several_columns_of_text_needs_a_choice(make):
    content = "file,german,english\n1.wav,eins zwei,one two\n2.wav,drei vier,three four\n"
    folder = make({"1.wav": "", "2.wav": "", "m.csv": content})
    with pytest.raises(UserError, match=r"columns: file, german, english\); name it with --text-column"):
        rows(folder)


def test_several_tables_need_a_choice(make):
    folder = make({"1.wav": "", "a.csv": "file,text\n1.wav,a b\n", "b.csv": "file,text\n1.wav,c d\n"})
    with pytest.raises(UserError, match=r"a\.csv, b\.csv.*--metadata"):
        rows(folder)
    assert rows(folder, metadata=Path("b.csv"))[0][1] == "c d"


def test_a_table_of_the_current_folder_does_not_hide_the_one_of_the_folder(make, monkeypatch, tmp_path):
    folder = make({"1.wav": "", "m.csv": "file,text\n1.wav,inside\n", "../m.csv": "file,text\ncorpus/1.wav,outside\n"})
    monkeypatch.chdir(folder)
    assert rows(folder, metadata=Path("m.csv"))[0][1] == "inside"  # both paths are one file
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"may be .*corpus/m\.csv or .*/m\.csv; give the whole path"):
        rows(folder, metadata=Path("m.csv"))
    assert rows(folder, metadata=folder / "m.csv")[0][1] == "inside"
    assert rows(folder, metadata=tmp_path / "m.csv")[0][1] == "outside"
    (folder / "m.csv").unlink()
    (utterance,) = read_folder(folder, FolderLayout(metadata=Path("m.csv")))
    assert utterance.text == "outside"


def test_rows_without_audio_and_names_of_two_files_are_listed(make):
    folder = make(
        {"a/1.wav": "", "b/1.wav": "", "2.wav": "", "metadata.csv": "file_name,text\n1.wav,A\n3.wav,B\n2.wav,C\n"}
    )
    two, none, good, *unnamed = rows(folder)
    assert unnamed == [f"{name}/1.wav: no row in metadata.csv" for name in "ab"]
    assert "metadata.csv:2: several files are called 1.wav" in two and "a/1.wav" in two
    assert "metadata.csv:3: no such audio file: 3.wav" in none
    assert good[1] == "C"


def test_librispeech_is_read_with_its_speakers(make):
    folder = make({"84/121/84-121.trans.txt": "84-121-0000 HE\n84-121-0001 SHE\n", "84/121/84-121-0000.flac": ""})
    good, problem = rows(folder)
    assert good == ("84-121-0000", "HE", "84", "84/121/84-121-0000.flac")
    assert "84-121.trans.txt:2: no such audio file: 84-121-0001" in problem


def test_names_are_transcripts_with_a_pattern(make):
    folder = make({"7_jackson_32.wav": "", "two_words_george_1.wav": "", "odd.wav": ""})
    seven, problem, two = rows(folder, name_pattern="{text}_{speaker}_{index}")
    assert seven == ("7_jackson_32", "7", "jackson", "7_jackson_32.wav")
    assert two[1:3] == ("two words", "george")
    assert problem == "odd.wav: its name does not fit the pattern {text}_{speaker}_{index}"


def test_a_pattern_may_name_folders_where_texts_are_elsewhere(make):
    folder = make({"spk-1/ch/u1.wav": "", "spk-1/ch/u1.txt": "A"})
    assert rows(folder, name_pattern="{speaker}/{chapter}/{id}") == [("u1", "A", "spk-1", "spk-1/ch/u1.wav")]


@pytest.mark.parametrize(
    "pattern", ["text", "{text}{speaker}", "{a}_{b}", "{text}_{text}", "{text", "{}_{text}", "{1}_{text}"]
)
def test_a_wrong_pattern_is_refused(make, pattern):
    with pytest.raises(UserError, match="--name-pattern"):
        rows(make({"a.wav": ""}), name_pattern=pattern)


def test_names_of_few_words_are_recognised_as_transcripts(make):
    folder = make({f"{'_'.join(f'{n:05b}')}.wav": "" for n in range(32)})
    assert rows(folder)[5][:2] == ("0_0_1_0_1", "0 0 1 0 1")


def test_other_names_are_described_with_the_option_that_reads_them(make):
    folder = make({f"{n % 10}_{s}_{n}.wav": "" for n in range(20) for s in ("ann", "ben")})
    with pytest.raises(UserError) as error:
        rows(folder)
    assert "part 1 has 10 values (0, 1, 2, 3, ...); part 2 has 2 values (ann, ben)" in str(error.value)
    assert "--name-pattern, such as '{text}_{speaker}_{index}'" in str(error.value)
    assert len(rows(folder, unlabelled=True)) == 40


def test_a_folder_without_audio_is_refused(make):
    folder = make({"a.dat": "", "b.dat": ""})
    with pytest.raises(UserError, match=r"no audio files in .*other files are \.dat"):
        rows(folder)
    assert len(rows(folder, audio_suffix=".dat", unlabelled=True)) == 2


def test_links_that_lead_back_are_followed_once(make):
    folder = make({"a/1.wav": "", "a/1.txt": "A"})
    (folder / "a" / "up").symlink_to(folder)
    assert len(rows(folder)) == 1


TABLE = {"m.csv": "file,text\n1.wav,a b\n"}
TEXTS = {"1.txt": "a b"}
UNUSED = {
    "--speaker-column": (TEXTS, {"table": TableLayout(columns={"speaker": "spk"})}),
    "--column": (TEXTS, {"table": TableLayout(columns={"start": "begin"})}),
    "--header": (TEXTS, {"table": TableLayout(header=["audio", "text"])}),
    "--delimiter": ({"text": "1 a b"}, {"table": TableLayout(delimiter=","), "metadata": Path("text")}),
    "--text-suffix": (TABLE | TEXTS, {"metadata": Path("m.csv"), "text_suffix": ".txt"}),
    "--name-pattern": (TABLE, {"metadata": Path("m.csv"), "name_pattern": "{text}"}),
    "--text-column": ({}, {"table": TableLayout(columns={"text": "words"}), "name_pattern": "{text}"}),
    "--audio-column": ({}, {"table": TableLayout(columns={"audio": "file"}), "unlabelled": True}),
}


@pytest.mark.parametrize("option", UNUSED)
def test_an_option_without_effect_is_refused(make, option):
    files, layout = UNUSED[option]
    folder = make({"1.wav": ""} | files)
    with pytest.raises(UserError, match=f"{option} has no effect here: it is for .*, and the transcripts are"):
        rows(folder, **layout)


def test_a_pattern_of_speakers_has_an_effect_with_a_table(make):
    folder = make({"ann/1.wav": "", "m.csv": "file,text\nann/1.wav,a b\n"})
    assert rows(folder, metadata=Path("m.csv"), name_pattern="{speaker}/{id}") == [("1", "a b", "ann", "ann/1.wav")]
