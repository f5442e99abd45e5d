import pytest
from lhotse import Recording
from lhotse.audio import AudioSource

from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import UtteranceChecks, clean_transcript


@pytest.mark.parametrize(
    "name", ["", "a b", "a\tb", "a\nb", "a\0b", "a\u00a0b", "a\u2028", "\u200ba", "a\x7f", "\ud800"]
)
def test_an_id_is_one_printable_word(name):
    with pytest.raises(InvalidEntry, match="the id"):
        UtteranceChecks().check_id(name)


@pytest.mark.parametrize("name", ["a", "../b", "ä-1", "语音_01", "a|b"])
def test_an_id_may_have_any_visible_character(name):
    UtteranceChecks().check_id(name)


def test_an_id_in_another_normal_form_is_a_duplicate():
    checks = UtteranceChecks()
    checks.check_id("caf\u00e9", "t.csv:2")
    checks.check_id("caf\u00e9", "t.csv:2")  # it is not remembered before its utterance has passed all checks
    checks.remember_id("caf\u00e9", "t.csv:2")
    with pytest.raises(InvalidEntry, match="duplicate id, in t.csv:2 and t.csv:3; .*column id"):
        checks.check_id("cafe\u0301", "t.csv:3")


@pytest.mark.parametrize("name", ["a\nb", "\0", "a\u200b"])
def test_a_speaker_has_a_printable_name(name):
    assert UtteranceChecks().clean_speaker("Ann B.") == "Ann B."
    assert UtteranceChecks().clean_speaker(None) is None
    assert UtteranceChecks().clean_speaker("Jose\u0301") == "Jos\u00e9"
    with pytest.raises(InvalidEntry, match="speaker"):
        UtteranceChecks().clean_speaker(name)


def recording(name, path):
    return Recording(name, [AudioSource("file", [0], path)], 16000, 16000, 1.0)


def test_a_recording_id_may_name_only_one_file():
    checks = UtteranceChecks()
    checks.check_recording(recording("r", "/a/1.wav"))
    checks.check_recording(recording("r", "/a/x/../1.wav"))
    with pytest.raises(InvalidEntry, match="its recording 'r' is /b/1.wav, and /a/1.wav elsewhere"):
        checks.check_recording(recording("r", "/b/1.wav"))
    with pytest.raises(InvalidEntry, match="white space"):
        checks.check_recording(recording("my file", "/c.wav"))


def test_an_end_slightly_beyond_the_recording_is_clamped_and_counted():
    checks = UtteranceChecks()
    assert checks.check_end(0.0, 1.0005, 1.0) == 1.0005  # to a millisecond: as transcribers write times
    assert sum(checks.notes.values()) == 0
    assert checks.check_end(0.0, 1.09, 1.0) == 1.0
    assert sum(checks.notes.values()) == 1
    with pytest.raises(InvalidEntry, match=r"ends at 1.110 s, its recording at 1.000 s"):
        checks.check_end(0.0, 1.11, 1.0)
    assert UtteranceChecks(end_tolerance=0.2).check_end(0.0, 1.11, 1.0) == 1.0
    with pytest.raises(InvalidEntry, match="recording"):
        UtteranceChecks(end_tolerance=0).check_end(0.0, 1.005, 1.0)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1e-7), (0.0, 0.006), (0.5, 0.524), (0.99, 1.05)])
def test_a_segment_shorter_than_a_frame_is_refused(start, end):
    UtteranceChecks().check_end(start, start + 0.025, 2.0)
    with pytest.raises(InvalidEntry, match="shorter than a frame"):
        UtteranceChecks().check_end(start, end, 1.0)


@pytest.mark.parametrize(
    ("text", "case", "cleaned"),
    [
        ("a\u200bb \u200b c\ufeff", "keep", "ab c"),
        ("co\u00adop \u202aright\u202c", "keep", "coop right"),
        ("می\u200cخواهم", "keep", "می\u200cخواهم"),  # Persian writes this joiner
        ("क\u094d\u200dष", "keep", "क\u094d\u200dष"),
        ("a\u200cb", "keep", "ab"),
        ("\u1fb3\u0301", "upper", "\u0386\u0399"),  # upper case takes letters with accents apart
        ("I\u0307", "lower", "i\u0307"),
        ("a\x1cb\u2028c\x85d\u00a0e", "keep", "a b c d e"),
    ],
)
def test_transcripts_are_composed_after_their_case_changed_and_have_no_invisible_characters(text, case, cleaned):
    assert clean_transcript(text, case)[0] == cleaned


@pytest.mark.parametrize("text", ["a\0b", "a\x07", "\x7f", "a\ud800"])
def test_a_transcript_with_a_control_character_is_refused(text):
    with pytest.raises(InvalidEntry, match=r"transcript has the character U\+"):
        clean_transcript(text)


def test_changes_of_transcripts_are_counted():
    checks = UtteranceChecks(case="upper")
    assert [checks.clean_text(text) for text in ("a\u200bb", "straße", "plain")] == ["AB", "STRASSE", "PLAIN"]
    notes = {note.split(": ")[-1].split()[-1]: count for note, count in checks.notes.items() if count}
    assert notes == {"SPACE": 1, "ß": 1}
    assert any("U+200B ZERO WIDTH SPACE" in note for note in checks.notes)


def test_a_missing_transcript_is_refused_unless_audio_may_be_unlabelled():
    for text in ("", " ", None, "\u200b"):
        with pytest.raises(InvalidEntry, match="empty transcript"):
            UtteranceChecks(case="upper").clean_text(text)
        assert UtteranceChecks(case="upper", unlabelled=True).clean_text(text) is None
