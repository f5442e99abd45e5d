"""The formats of transcripts, read back by other libraries where there are some."""

import json
import random

import pytest
from praatio import textgrid as praat

from asrtool.cli.transcribe import FORMATS as NAMES
from asrtool.inference.outputs import FORMATS, SUFFIXES, ctm_lines, textgrid_text
from asrtool.inference.results import Alternative, Segment, Transcript, Word
from tests.inference.transcripts import make_transcript, make_words, random_transcript

WORDS = [Word("one", 0.5, 0.75, 0.9), Word("two", 0.75, 1.0, None), Word('th"ree', 2.0, 2.5, 0.25)]
TRANSCRIPT = Transcript(
    "talks/a b.wav",
    3.0,
    [
        Segment(0.5, 1.0, WORDS[:2], 0.8, [Alternative("one two", -1.0), Alternative("one", -2.0)]),
        Segment(1.2, 1.4, []),
        Segment(2.0, 2.5, WORDS[2:], None),
    ],
    "graph",
    channel=1,
)


def read_textgrid(text, folder):
    (folder / "a.TextGrid").write_text(text, encoding="utf-8")
    return praat.openTextgrid(str(folder / "a.TextGrid"), includeEmptyIntervals=True)


def test_txt_has_a_line_for_each_segment_with_words():
    assert FORMATS["txt"](TRANSCRIPT, "a b") == 'one two\nth"ree\n'


def test_tsv_has_seconds_and_text():
    lines = FORMATS["tsv"](TRANSCRIPT, "a b").splitlines()
    assert lines == ["start\tend\ttext", "0.500\t1.000\tone two", '2.000\t2.500\tth"ree']


def test_ctm_has_recording_channel_start_duration_word_and_confidence():
    assert FORMATS["ctm"](TRANSCRIPT, "sub/a b").splitlines() == [
        "sub/a_b 2 0.500 0.250 one 0.9000",
        "sub/a_b 2 0.750 0.250 two",
        'sub/a_b 2 2.000 0.500 th"ree 0.2500',
    ]


@pytest.mark.parametrize("name", ["a b", "a\nb", "a\tb", "a \r\n b"])
def test_a_name_is_one_field_of_a_ctm(name):
    assert list(ctm_lines(WORDS[:1], name)) == ["a_b 1 0.500 0.250 one 0.9000\n"]


def test_json_has_everything():
    tree = json.loads(FORMATS["json"](TRANSCRIPT, "a b"))
    assert tree.pop("asrtool")
    segments = tree.pop("segments")
    assert tree == {
        "recording": "talks/a b.wav",
        "seconds": 3.0,
        "channel": 1,
        "method": "graph",
        "text": 'one two th"ree',
    }
    assert segments[0] == {
        "start": 0.5,
        "end": 1.0,
        "text": "one two",
        "confidence": 0.8,
        "words": [
            {"text": "one", "start": 0.5, "end": 0.75, "confidence": 0.9},
            {"text": "two", "start": 0.75, "end": 1.0, "confidence": None},
        ],
        "alternatives": [{"text": "one two", "score": -1.0}, {"text": "one", "score": -2.0}],
    }
    assert segments[2]["confidence"] is None and "alternatives" not in segments[2]


def test_json_has_null_for_what_is_not_a_number():
    segment = Segment(0.5, 1.0, WORDS[:1], float("nan"))
    tree = json.loads(FORMATS["json"](make_transcript([], segments=[segment]), "a"))
    assert tree["segments"][0]["confidence"] is None


@pytest.mark.parametrize("seed", range(10))
def test_a_textgrid_has_all_words_and_segments_within_the_recording(seed, tmp_path):
    transcript = random_transcript(random.Random(seed))
    grid = read_textgrid(FORMATS["textgrid"](transcript, "a"), tmp_path)
    assert grid.tierNames == ("segments", "words")
    words = [entry for entry in grid.getTier("words").entries if entry.label]
    assert [entry.label for entry in words] == [word.text for word in transcript.words]
    assert [entry.start for entry in words] == pytest.approx([word.start for word in transcript.words], abs=6e-4)
    segments = [entry.label for entry in grid.getTier("segments").entries if entry.label]
    assert segments == [segment.text for segment in transcript.segments]
    assert grid.maxTimestamp == pytest.approx(transcript.seconds, abs=6e-4)


@pytest.mark.parametrize(
    "words",
    [
        make_words(("a", 0.0, 0.0), ("b", 0.0, 0.0), ("c", 0.0, 1.0)),  # without duration
        make_words(("a", 0.0, 2.0), ("b", 1.0, 3.0)),  # overlapping
        make_words(("a", 0.5, 0.5001), ("b", 0.5001, 0.5002)),  # shorter than a millisecond
        make_words(('say "yes"', 0.5, 1.0), ("", 1.0, 2.0), ("c", 2.0, 3.0)),
    ],
)
def test_a_textgrid_of_odd_times_can_be_read_and_keeps_the_words(words, tmp_path):
    grid = read_textgrid(FORMATS["textgrid"](make_transcript(words, seconds=1.0), "a"), tmp_path)
    labels = [entry.label for entry in grid.getTier("words").entries if entry.label]
    assert labels == [word.text for word in words if word.text]


def test_a_textgrid_without_words_can_be_read(tmp_path):
    assert read_textgrid(textgrid_text({"words": []}, 2.5), tmp_path).maxTimestamp == 2.5


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_every_format_is_utf8_text_and_ends_with_a_line_end(format, seed):
    text = FORMATS[format](random_transcript(random.Random(seed)), "北京 a")
    assert text.encode("utf-8").endswith(b"\n")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_can_be_empty(format):
    assert isinstance(FORMATS[format](make_transcript([], seconds=3.0), "a"), str)


def test_names_of_files_that_are_not_utf8_are_written_escaped():
    name = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    transcript = make_transcript(WORDS, source=name)
    assert json.loads(FORMATS["json"](transcript, name))["recording"] == "caf\\xe9.wav"
    assert FORMATS["ctm"](transcript, name).startswith("caf\\xe9.wav 1 ")


def test_the_command_line_knows_all_formats():
    assert set(NAMES) == set(FORMATS) == set(SUFFIXES)
