import re

import pytest

from asrtool.data.corpora import Utterance, choose_speakers, read_librispeech, read_yesno, speaker_names
from asrtool.data.kaldi_folder import read_kaldi
from asrtool.errors import UserError


@pytest.fixture
def libri(tmp_path):
    """Two parts in LibriSpeech's layout under a folder LibriSpeech; the audio files are empty."""
    root = tmp_path / "corpora" / "LibriSpeech"
    for part, speaker, chapter, lines in [
        ("train-a", "84", "121123", ["84-121123-0000 GO AWAY", "84-121123-0001 DO YOU HEAR"]),
        ("train-a", "174", "50561", ["174-50561-0000 FORGOTTEN TOO"]),
        ("dev-b", "251", "118436", ["251-118436-0000 HE TOLD US"]),
    ]:
        folder = root / part / speaker / chapter
        folder.mkdir(parents=True)
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n\n")
        for line in lines:
            (folder / f"{line.split()[0]}.flac").touch()
    return root


def test_librispeech_gives_ids_texts_speakers_and_audio(libri):
    found = {u.id: u for u in read_librispeech(libri, ["train-a"])}
    assert set(found) == {"84-121123-0000", "84-121123-0001", "174-50561-0000"}
    utterance = found["84-121123-0001"]
    assert (utterance.text, utterance.speaker) == ("DO YOU HEAR", "84")
    assert utterance.audio == str(libri / "train-a/84/121123/84-121123-0001.flac")


def test_librispeech_takes_several_parts_and_the_folder_above(libri):
    assert len(list(read_librispeech(libri, ["train-a", "dev-b"]))) == 4
    assert list(read_librispeech(libri.parent, ["train-a"])) == list(read_librispeech(libri, ["train-a"]))


def test_librispeech_audio_may_have_another_format(libri):
    folder = libri / "dev-b/251/118436"
    (folder / "251-118436-0000.flac").rename(folder / "251-118436-0000.opus")
    assert next(read_librispeech(libri, ["dev-b"])).audio.endswith("251-118436-0000.opus")


def test_librispeech_lists_an_utterance_whose_audio_is_missing(libri):
    audio = libri / "dev-b/251/118436/251-118436-0000.flac"
    audio.unlink()
    assert next(read_librispeech(libri, ["dev-b"])).audio == str(audio)


@pytest.mark.parametrize(("part", "message"), [("train-c", "part not found"), ("empty", "is it a part of LibriSpeech")])
def test_librispeech_refuses_a_folder_that_is_not_a_part(libri, part, message):
    (libri / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        list(read_librispeech(libri, [part]))


def test_librispeech_refuses_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="not found"):
        list(read_librispeech(tmp_path / "none", ["train-a"]))


def test_a_transcript_in_another_encoding_is_named(libri):
    path = libri / "dev-b/251/118436/251-118436.trans.txt"
    path.write_bytes("251-118436-0000 GRÖSSER".encode("latin-1"))
    with pytest.raises(UserError, match=f"{path}:1: not UTF-8"):
        list(read_librispeech(libri, ["dev-b"]))


@pytest.mark.parametrize(
    ("only", "without", "speakers"),
    [
        (None, None, {"84", "174"}),
        ("84", None, {"84"}),
        ("84,174", None, {"84", "174"}),
        (None, "84", {"174"}),
        ("84,174", "174", {"84"}),
    ],
)
def test_speakers_are_chosen_or_excluded(libri, only, without, speakers):
    assert {u.speaker for u in choose_speakers(read_librispeech(libri, ["train-a"]), only, without)} == speakers


def test_speakers_may_be_listed_in_a_file(libri, tmp_path):
    (tmp_path / "speakers.txt").write_text("174\n\n")
    chosen = list(choose_speakers(read_librispeech(libri, ["train-a"]), str(tmp_path / "speakers.txt"), None))
    assert {u.speaker for u in chosen} == {"174"}


@pytest.mark.parametrize("listed", ["Anna Maria, ben ,c", "Anna Maria\nben\nc\n", " Anna Maria \n\n ben\nc"])
def test_names_of_speakers_may_have_blanks(tmp_path, listed):
    assert speaker_names(listed) == {"Anna Maria", "ben", "c"}
    (tmp_path / "names.txt").write_text(listed.replace(",", "\n"))
    assert speaker_names(str(tmp_path / "names.txt")) == {"Anna Maria", "ben", "c"}


@pytest.mark.parametrize("listed", ["Jos\u00e9", "Jose\u0301"])
@pytest.mark.parametrize("spelt", ["Jos\u00e9", "Jose\u0301"])
def test_both_unicode_forms_of_a_name_are_one_speaker(listed, spelt):
    rows = [Utterance("u1", "a.wav", "x", spelt), Utterance("u2", "b.wav", "x", "ann"), Utterance("u3", "c.wav", "x")]
    assert speaker_names(listed) == {"Jos\u00e9"}
    assert [row.id for row in choose_speakers(rows, listed, None)] == ["u1"]
    assert [row.id for row in choose_speakers(rows, None, listed)] == ["u2", "u3"]


@pytest.mark.parametrize(("only", "without"), [("84,9999", None), (None, "9999"), ("none.txt", None)])
def test_a_speaker_that_the_corpus_lacks_is_named(libri, only, without):
    with pytest.raises(UserError, match="no such speaker.*(9999|none.txt)"):
        list(choose_speakers(read_librispeech(libri, ["train-a"]), only, without))


@pytest.fixture
def waves(tmp_path):
    folder = tmp_path / "waves_yesno"
    folder.mkdir()
    for number in range(60):
        (folder / f"{'_'.join(f'{number:08b}')}.wav").touch()
    (folder / "README").touch()
    return folder


def test_yesno_reads_the_words_off_the_file_names(waves):
    texts = {u.id: u.text for u in read_yesno(waves, "train")} | {u.id: u.text for u in read_yesno(waves, "test")}
    assert len(texts) == 60
    assert texts["0_0_1_0_1_1_1_0"] == "NO NO YES NO YES YES YES NO"


def test_yesno_train_and_test_are_halves(waves):
    train, test = ({u.id for u in read_yesno(waves, part)} for part in ("train", "test"))
    assert len(train) == len(test) == 30
    assert not train & test


def test_yesno_accepts_the_folder_above(waves):
    assert list(read_yesno(waves.parent, "test")) == list(read_yesno(waves, "test"))


def test_yesno_refuses_another_number_of_files(waves):
    next(waves.glob("*.wav")).unlink()
    with pytest.raises(UserError, match="59 .wav files"):
        list(read_yesno(waves, "train"))


@pytest.fixture
def kaldi_folder(tmp_path):
    """write(**files) makes a Kaldi data folder of these files."""

    def write(**files):
        for name, text in files.items():
            (tmp_path / (name if name != "wav" else "wav.scp")).write_text(text)
        return tmp_path

    return write


def test_kaldi_without_segments(kaldi_folder):
    folder = kaldi_folder(wav="u1 /a/1.wav\nu2 sox /a/2.wav -t wav - |\n", text="u1 A B\nu2 C\n", utt2spk="u1 s1\n")
    one, two = read_kaldi(folder)
    assert (one.id, one.audio, one.text, one.speaker, one.start, one.end) == ("u1", "/a/1.wav", "A B", "s1", 0.0, None)
    assert (two.audio, two.text, two.speaker) == ("sox /a/2.wav -t wav - |", "C", None)


@pytest.mark.parametrize("end", ["-1", "-1.0", "-1.00", "-1e0"])
def test_kaldi_with_segments(kaldi_folder, end):
    folder = kaldi_folder(wav="r /a/r.wav\n", text="u1 A\nu2 B\n", segments=f"u1 r 0.5 1.25\nu2 r 1.25 {end}\n")
    one, two = read_kaldi(folder)
    assert (one.recording, one.audio, one.start, one.end) == ("r", "/a/r.wav", 0.5, 1.25)
    assert (two.recording, two.start, two.end) == ("r", 1.25, None)  # -1: to the end


def test_kaldi_leaves_the_check_for_an_empty_transcript_to_the_manifest(kaldi_folder):
    assert [u.text for u in read_kaldi(kaldi_folder(wav="u /a.wav", text="u\n"))] == [""]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav": "r /a.wav", "text": "u A"}, "no recording 'u'"),
        ({"wav": "r /a.wav", "text": "u A", "segments": "u q 0 1"}, "no recording 'q' of utterance 'u'"),
        ({"wav": "r /a.wav", "text": "u A", "segments": "v r 0 1"}, "segments: no line .* for 'u'"),
        ({"wav": "r /a.wav", "text": "u A", "segments": "u r 0"}, "segments:1: no line 'ID REC"),
        ({"wav": "r /a.wav", "text": "u A", "segments": "u r zero 1"}, "segments:1: no line .*'zero'"),
    ],
)
def test_kaldi_names_an_inconsistent_utterance_and_reads_the_others(kaldi_folder, files, message):
    files = {name: f"{lines}\n{OTHERS[name]}\n" for name, lines in files.items()}
    problem, other = read_kaldi(kaldi_folder(**files))
    assert re.match(f"u: .*{message}", problem)
    assert other.id == "other"


OTHERS = {"wav": "other /b.wav", "text": "other B", "segments": "other other 0 1"}


@pytest.mark.parametrize(("files", "message"), [({"wav": "r /a.wav"}, "text"), ({"text": "u A"}, "wav.scp")])
def test_kaldi_needs_text_and_recordings(kaldi_folder, files, message):
    with pytest.raises(UserError, match=message):
        list(read_kaldi(kaldi_folder(**files)))


def test_kaldi_refuses_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="not found"):
        list(read_kaldi(tmp_path / "none"))


def test_kaldi_names_repeated_keys_and_leaves_out_their_utterances(kaldi_folder):
    folder = kaldi_folder(
        wav="r0 /0.wav\nr1 /1.wav\nr0 /2.wav\nr3 /3.wav\n",
        text="u0 A\nu1 B\nu2 C\nu3 D\nu3 E\n",
        segments="u0 r0 0 1\nu1 r1 0 1\nu2 r1 1 2\nu1 r1 2 3\nu3 r3 0 1\n",
        utt2spk="u0 s\nu1 s\nu2 s\nu2 z\nu3 s\n",
    )
    found = list(read_kaldi(folder))
    assert all(isinstance(row, str) for row in found)
    for line in ("wav.scp:3: 'r0'", "text:5: 'u3'", "segments:4: 'u1'", "utt2spk:4: 'u2'"):
        assert sum(line in row for row in found) == 1
    assert sum(row.startswith("u0: its recording 'r0' has several lines") for row in found) == 1


def test_kaldi_files_have_the_line_ends_and_white_space_of_kaldi(kaldi_folder):
    folder = kaldi_folder(wav="u /a b.wav\r\n", text="u A\x1cB\u2028C\x85D\u00a0E\r\n", utt2spk="u\ts \r\n")
    (row,) = read_kaldi(folder)
    assert (row.audio, row.text, row.speaker) == ("/a b.wav", "A\x1cB\u2028C\x85D\u00a0E", "s")


def test_kaldi_files_may_begin_with_a_byte_order_mark(kaldi_folder):
    (row,) = read_kaldi(kaldi_folder(wav="\ufeffu /a.wav\n", text="\ufeffu A\n"))
    assert row.id == "u"


def test_a_kaldi_file_in_another_encoding_is_named_with_its_line(kaldi_folder):
    folder = kaldi_folder(wav="u /a.wav\n", text="")
    (folder / "text").write_bytes(b"u A\nv CAF\xc9\n")
    with pytest.raises(UserError, match="text:2: not UTF-8"):
        list(read_kaldi(folder))


def test_kaldi_audio_without_a_transcript_is_counted(kaldi_folder, capsys):
    folder = kaldi_folder(wav="u /a.wav\nv /b.wav\n", text="u A\n", utt2spk="v s\n")
    assert [row.id for row in read_kaldi(folder)] == ["u"]
    message = capsys.readouterr().err
    assert "wav.scp: 1 of 2 have no line" in message
    assert "utt2spk: 1 utterances have no line" in message


@pytest.mark.parametrize("text", ["u A\n", None])
def test_unlabelled_kaldi_audio_needs_no_text(kaldi_folder, text):
    files = {"wav": "u /a.wav\nv /b.wav\n"} | ({"text": text} if text else {})
    assert [(row.id, row.text) for row in read_kaldi(kaldi_folder(**files), unlabelled=True)] == [
        ("u", "A" if text else ""),
        ("v", ""),
    ]


def test_relative_kaldi_paths_start_at_the_given_root(kaldi_folder, tmp_path):
    folder = kaldi_folder(wav="u a.wav\nv /b.wav\nw cat x |\n", text="u A\nv B\nw C\n")
    assert [row.audio for row in read_kaldi(folder)] == ["a.wav", "/b.wav", "cat x |"]
    assert [row.audio for row in read_kaldi(folder, tmp_path)] == [f"{tmp_path}/a.wav", "/b.wav", "cat x |"]


def test_a_kaldi_segment_may_name_a_channel(kaldi_folder):
    folder = kaldi_folder(wav="r /a.wav\n", text="u A\nv B\n", segments="u r 0 1 1\nv r 0 1 B\n")
    one, problem = read_kaldi(folder)
    assert one.channel == 1
    assert "segments:2" in problem


@pytest.mark.parametrize("line", ["u", "u s t"])
def test_a_kaldi_speaker_is_one_word(kaldi_folder, line):
    (problem,) = read_kaldi(kaldi_folder(wav="u /a.wav\n", text="u A\n", utt2spk=f"{line}\n"))
    assert "utt2spk:1: no line 'ID SPEAKER'" in problem


def test_many_speakers_may_be_named_in_one_option(libri):
    names = ",".join(f"{number:05d}" for number in range(5000))  # longer than a file name may be
    with pytest.raises(UserError, match="no such speaker.*00001"):
        list(choose_speakers(read_librispeech(libri, ["train-a"]), names, None))


def test_a_list_of_speakers_in_another_encoding_is_named(libri, tmp_path):
    (tmp_path / "speakers.txt").write_bytes(b"174\nJos\xe9\n")
    with pytest.raises(UserError, match="speakers.txt:2: not UTF-8"):
        list(choose_speakers(read_librispeech(libri, ["train-a"]), str(tmp_path / "speakers.txt"), None))
