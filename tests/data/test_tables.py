import pytest

from asrtool.data.corpora import Utterance
from asrtool.data.tables import TableLayout, read_table
from asrtool.errors import UserError


@pytest.mark.parametrize(("suffix", "sign"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_has_ids_from_file_names_and_audio_in_its_folder(tmp_path, suffix, sign):
    file = tmp_path / f"mine{suffix}"
    file.write_text("\n".join(sign.join(row) for row in [("text", "audio"), ("A B", "x/1.wav"), ("C", "/abs/2.wav")]))
    one, two = read_table(file)
    assert (one.id, one.audio, one.text, one.speaker) == ("1", str(tmp_path / "x/1.wav"), "A B", None)
    assert (two.id, two.audio) == ("2", "/abs/2.wav")


def test_a_table_may_quote_and_name_the_speaker(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('id,audio,text,speaker\nu1,1.wav,"YES, ""NO""",ann\n')
    (utterance,) = read_table(file)
    assert (utterance.id, utterance.text, utterance.speaker) == ("u1", 'YES, "NO"', "ann")


def test_a_table_may_have_segments_of_recordings(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("audio,text,start,end\nr.wav,A,0,1.5\nr.wav,B,1.5,\n")
    one, two = read_table(file)
    assert (one.start, one.end) == (0.0, 1.5)
    assert (two.start, two.end) == (1.5, None)
    assert one.id != two.id
    assert one.recording == two.recording


@pytest.mark.parametrize("content", ["", "audio\n1.wav\n", "path,words\n1.wav,A\n", "1.wav,A\n"])
def test_a_table_without_its_header_is_refused(tmp_path, content):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(UserError, match="columns audio and text"):
        list(read_table(tmp_path / "mine.csv"))


def test_a_table_with_a_bad_time_names_the_line(tmp_path):
    (tmp_path / "mine.csv").write_text("audio,text,start,end\n1.wav,A,0,1\n1.wav,B,1,two\n")
    good, bad = read_table(tmp_path / "mine.csv")
    assert good.end == 1.0
    assert bad.startswith(f"{tmp_path}/mine.csv:3: 'two' is not a time in seconds")


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="not found"):
        list(read_table(tmp_path / "none.csv"))


@pytest.fixture
def write(tmp_path):
    """write(text, name="mine.csv", encoding="utf-8") -> the file of a table"""

    def make(text, name="mine.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return make


def rows(file, **layout) -> list[tuple]:
    """Id, text and speaker of each utterance; a problem as its text."""
    found = read_table(file, TableLayout(**layout))
    return [(u.id, u.text, u.speaker) if isinstance(u, Utterance) else u for u in found]


def test_a_byte_order_mark_is_not_part_of_the_first_column(write):
    assert rows(write("id,audio,text\nu1,1.wav,A\n", encoding="utf-8-sig")) == [("u1", "A", None)]
    assert rows(write("audio,text\n1.wav,A\n", encoding="utf-8-sig")) == [("1", "A", None)]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.txt"])
def test_the_delimiter_is_recognised_by_the_header(write, sign, name):
    lines = (("audio", "text", "speaker"), ("1.wav", "A B", "s"))
    assert rows(write("\n".join(map(sign.join, lines)) + "\n", name)) == [("1", "A B", "s")]


def test_the_delimiter_may_be_given(write):
    file = write("audio;text,of,many;speaker\n1.wav;A;s\n")
    assert rows(file, delimiter=";", columns={"text": "text,of,many"}) == [("1", "A", "s")]


@pytest.mark.parametrize(
    "header",
    ["path,sentence,client_id", "Audio_FilePath,Transcript,speaker_id", "wav,wrd,spk_id", "file, transcription ,spk"],
)
def test_columns_of_other_tools_are_recognised(write, header):
    assert rows(write(f"{header}\n1.wav,A,s\n")) == [("1", "A", "s")]


def test_columns_may_be_named(write):
    file = write("clip,written,who\n1.wav,A,s\n")
    columns = {"audio": "clip", "text": "Written", "speaker": "who"}
    assert rows(file, columns=columns) == [("1", "A", "s")]


def test_a_missing_column_is_refused_with_the_most_similar_one(write):
    with pytest.raises(UserError, match="no column 'sentense' .*did you mean 'sentence'"):
        rows(write("audio,sentence\n1.wav,A\n"), columns={"text": "sentense"})


def test_two_columns_for_one_field_are_refused(write):
    file = write("path,file,text\n1.wav,2.wav,A\n")
    with pytest.raises(UserError, match="path and file may both be audio.*--column audio="):
        rows(file)
    assert rows(file, columns={"audio": "file"}) == [("2", "A", None)]


@pytest.mark.parametrize("header", ["audio,text,text", "audio,Text,text", "audio,text,age,age"])
def test_a_repeated_column_is_refused(write, header):
    with pytest.raises(UserError, match="more than once"):
        rows(write(f"{header}\n1.wav,A,B,C\n"))


def test_columns_that_are_not_used_are_named(write, capsys):
    assert rows(write("audio,text,speker,age\n1.wav,A,s,7\n")) == [("1", "A", None)]
    assert "not used: speker (did you mean 'speaker'?), age" in capsys.readouterr().err


@pytest.mark.parametrize(("sign", "name"), [("\t", "mine.tsv"), ("|", "mine.csv")])
def test_quotation_marks_belong_to_the_text_of_a_table_without_quoting(write, sign, name):
    texts = ["HELLO", '"STOP HE SAID', "GOOD DAY", 'COME BACK" SHE SAID', '"BYE"']
    lines = [f"audio{sign}text", *(f"{number}.wav{sign}{text}" for number, text in enumerate(texts))]
    assert [text for _, text, _ in rows(write("\n".join(lines), name))] == texts


@pytest.mark.parametrize("bad", ['2.wav,"B', '2.wav,"B"x', "2.wav,B,C,D", "2.wav", '2.wav,"' + 200_000 * "B" + '"'])
def test_a_row_that_does_not_fit_the_header_is_named_and_the_others_are_read(write, bad):
    one, problem, three = rows(write(f"audio,text\n1.wav,A\n{bad}\n3.wav,C\n"))
    assert (one, three) == (("1", "A", None), ("3", "C", None))
    assert "mine.csv:3: " in problem


@pytest.mark.parametrize("time", ["nan", "inf", "1e999", "1_0", "0:05", "1,5", "\u0661", "0x1", "five"])
@pytest.mark.parametrize("column", ["start", "end"])
def test_a_time_that_is_not_a_number_of_seconds_is_named(write, time, column):
    (problem,) = rows(write(f"audio\ttext\t{column}\n1.wav\tA\t{time}\n"))
    assert "mine.csv:2: " in problem
    assert "not a time in seconds" in problem


@pytest.mark.parametrize(("time", "seconds"), [("1", 1.0), (".5", 0.5), ("2.", 2.0), ("1e-1", 0.1), (" +3 ", 3.0)])
def test_times_may_be_written_in_the_usual_ways(write, time, seconds):
    (row,) = read_table(write(f"audio,text,end\n1.wav,A,{time}\n"))
    assert row.end == seconds


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_table_in_another_encoding_is_refused_with_its_line(write, encoding):
    with pytest.raises(UserError, match=r"mine.csv:\d: not UTF-8"):
        rows(write("audio,text\n1.wav,CAFÉ\n", encoding=encoding))


def test_a_table_runs_no_command(write):
    (problem,) = rows(write("audio,text\ntouch PWNED |,A\n"))
    assert "mine.csv:2: " in problem
    assert "runs no commands" in problem


def test_a_table_without_a_header_needs_given_names(write):
    file = write("k1|Guten Tag, gut\nk2|Ja\n")
    with pytest.raises(UserError, match="--delimiter"):
        rows(file, header=["audio", "text"])
    assert rows(file, header=["audio", "text"], delimiter="|") == [("k1", "Guten Tag, gut", None), ("k2", "Ja", None)]


def test_audio_names_without_a_suffix_are_completed(write, tmp_path):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "k1.wav").touch()
    (row,) = read_table(write("audio,text\nk1,A\n"), TableLayout(audio_root=tmp_path / "wavs"))
    assert row.audio == str(tmp_path / "wavs/k1.wav")


def test_unlabelled_audio_needs_no_text(write):
    file = write("audio\n1.wav\n2.wav\n")
    assert rows(file, unlabelled=True) == [("1", "", None), ("2", "", None)]
    with pytest.raises(UserError, match="--unlabelled"):
        rows(file)


def test_channels_have_separate_ids_and_share_a_recording(write):
    one, two = read_table(write("audio,text,channel\n1.wav,A,0\n1.wav,B,1\n"))
    assert (one.channel, two.channel) == (0, 1)
    assert one.id != two.id
    assert one.recording == two.recording
    assert "channel" in next(read_table(write("audio,text,channel\n1.wav,A,left\n")))


def test_recordings_with_equal_stems_are_named_by_their_paths(write):
    files = ["d1/1.wav", "d2/1.wav", "my.wav", "my.mp3", "other.wav", "other.wav", "./x/../other.wav"]
    lines = [f"u{number},{file},A" for number, file in enumerate(files)]
    found = [row.recording for row in read_table(write("\n".join(["id,audio,text", *lines])))]
    assert found == ["d1/1.wav", "d2/1.wav", "my.wav", "my.mp3", "other", "other", "other"]


def test_ids_and_recordings_named_for_files_have_no_white_space(write, capsys):
    (row,) = read_table(write("audio,text\nmy file 1.wav,A\n"))
    assert (row.id, row.recording) == ("my_file_1", "my_file_1")
    assert "1 ids were made of file names with white space" in capsys.readouterr().err


def test_a_transcript_may_have_unicode_line_separators(write):
    assert [text for _, text, _ in rows(write("audio,text\n1.wav,A\x1cB\u2028C\x85D\n"))] == ["A\x1cB\u2028C\x85D"]


def test_json_objects_are_rows(write):
    lines = [
        '{"audio": "1.wav", "text": "A", "start": 0.5, "duration": 1}',
        '{"path": null, "audio": "2.wav", "text": "B"}',
    ]
    file = write("\n".join(lines) + "\n", "mine.jsonl")
    one, two = read_table(file)
    assert (one.id, one.text, one.start, one.end) == ("1-00000500", "A", 0.5, 1.5)
    assert (two.id, two.audio, two.start, two.end) == ("2", str(file.parent / "2.wav"), 0.0, None)


def test_json_that_is_not_a_row_is_listed_and_not_json_is_refused(write):
    file = write('{"audio": "1.wav", "text": ["A"]}\n[1]\n{"audio": "2.wav", "text": "B"}\n', "mine.jsonl")
    text, row, good = rows(file)
    assert text == f"{file}:1: its text is a list, not text or a number"
    assert row == f"{file}:2: not a JSON object; write one object a line"
    assert good == ("2", "B", None)
    with pytest.raises(UserError, match=r"mine\.jsonl:1: not JSON"):
        rows(write("audio,text\n", "mine.jsonl"))
    with pytest.raises(UserError, match="needs objects with the keys audio and text, found: a, b"):
        rows(write('{"a": 1}\n{"b": 2}\n', "mine.jsonl"))


def test_a_nemo_duration_ends_the_utterance_and_a_table_needs_a_start(write):
    row = '{"audio_filepath": "1.wav", "duration": 2.5, "text": "A"'
    file = write(f'{row}}}\n{row}, "offset": 3}}\n', "nemo.json")
    whole, part = read_table(file)
    assert (whole.id, whole.start, whole.end) == ("1", 0.0, 2.5)
    assert (part.id, part.start, part.end) == ("1-00003000", 3.0, 5.5)
    assert [u.end for u in read_table(write("audio,duration,text\n1.wav,2.5,A\n"))] == [None]
    assert len(rows(write(f"{row}}}\n", "train.manifest"), is_json=True)) == 1
