import pytest

from asrtool.data.tables import Layout, table
from asrtool.errors import UserError


@pytest.mark.parametrize(("suffix", "sign"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_gives_ids_from_file_names_and_audio_beside_itself(tmp_path, suffix, sign):
    file = tmp_path / f"mine{suffix}"
    file.write_text("\n".join(sign.join(row) for row in [("text", "audio"), ("A B", "x/1.wav"), ("C", "/abs/2.wav")]))
    one, two = table(file)
    assert (one.id, one.audio, one.text, one.speaker) == ("1", str(tmp_path / "x/1.wav"), "A B", None)
    assert (two.id, two.audio) == ("2", "/abs/2.wav")


def test_a_table_may_quote_and_name_the_speaker(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('id,audio,text,speaker\nu1,1.wav,"YES, ""NO""",ann\n')
    (utterance,) = table(file)
    assert (utterance.id, utterance.text, utterance.speaker) == ("u1", 'YES, "NO"', "ann")


def test_a_table_may_cut_segments_out_of_recordings(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("audio,text,start,end\nr.wav,A,0,1.5\nr.wav,B,1.5,\n")
    one, two = table(file)
    assert (one.start, one.end) == (0.0, 1.5)
    assert (two.start, two.end) == (1.5, None)
    assert one.id != two.id
    assert one.recording == two.recording


@pytest.mark.parametrize("content", ["", "audio\n1.wav\n", "path,words\n1.wav,A\n", "1.wav,A\n"])
def test_a_table_without_its_header_is_refused(tmp_path, content):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(UserError, match="columns audio and text"):
        list(table(tmp_path / "mine.csv"))


def test_a_table_with_a_bad_time_names_the_line(tmp_path):
    (tmp_path / "mine.csv").write_text("audio,text,start,end\n1.wav,A,0,1\n1.wav,B,1,two\n")
    good, bad = table(tmp_path / "mine.csv")
    assert good.end == 1.0
    assert bad.startswith(f"{tmp_path}/mine.csv:3: 'two' is not a time in seconds")


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="not found"):
        list(table(tmp_path / "none.csv"))
