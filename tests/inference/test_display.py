"""Transcripts in notebooks: all words, readable, accessible, and never markup from the outside."""

import os
import random
from xml.etree import ElementTree

import pytest

from asrtool.inference.display import MAX_SEGMENTS, MAX_SHADE, clock
from asrtool.inference.results import Segment, Transcript, Word


def transcript_of(words, confidences=None, source="talk.wav", channel=None) -> Transcript:
    """A transcript of one segment, a word each half second."""
    confidences = confidences or [None] * len(words)
    timed = [Word(word, n / 2, n / 2 + 0.4, c) for n, (word, c) in enumerate(zip(words, confidences, strict=True))]
    segments = [Segment(0.0, len(words) / 2, timed)] if words else []
    return Transcript(source, len(words) / 2, segments, "graph", channel)


def spans(transcript: Transcript) -> list[ElementTree.Element]:
    """The elements of the words; fails for HTML that is not well-formed."""
    return ElementTree.fromstring(transcript._repr_html_()).findall(".//span")


def test_each_word_has_its_times_and_confidence_as_text():
    elements = spans(transcript_of(["ONE", "TWO"], [0.25, 1.0]))
    assert [element.text for element in elements] == ["ONE", "TWO"]
    assert elements[0].get("title") == "0.00 to 0.40 s, confidence 25%"
    assert elements[1].get("title") == "0.50 to 0.90 s, confidence 100%"


def test_lower_confidence_is_darker_and_low_confidence_is_underlined_too():
    confidences = [1.0, 0.8, 0.49, 0.0]
    styles = [element.get("style") or "" for element in spans(transcript_of(list("abcd"), confidences))]
    shades = [float(style.split("rgba(240,160,0,")[1].split(")")[0]) if "rgba" in style else 0.0 for style in styles]
    assert shades == sorted(shades) and shades[0] == 0 and shades[-1] == MAX_SHADE
    assert ["underline" in style for style in styles] == [False, False, True, True]


def test_without_confidence_there_is_no_shade_and_no_legend():
    html = transcript_of(["ONE"])._repr_html_()
    assert "style" not in html and "confidence" not in html


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onmouseover="x', "a & b", "</span>", "'", "\u0636"])
def test_text_and_names_are_escaped(text):
    transcript = transcript_of([text], [0.5], source=text)
    (element,) = spans(transcript)
    assert element.text == text
    assert ElementTree.fromstring(transcript._repr_html_()).find(".//strong").text == text


def test_a_name_that_is_not_utf8_is_escaped():
    html = transcript_of(["ONE"], source=os.fsdecode(b"t\xfflk.wav"))._repr_html_()
    assert "t\\xfflk.wav" in html and html.encode()


def test_random_text_stays_well_formed():
    draw = random.Random(1)
    for _ in range(100):
        word = "".join(draw.choices("<>&'\"/ab=-!", k=12))
        assert spans(transcript_of([word]))[0].text == word


def test_no_words_and_many_segments():
    assert ElementTree.fromstring(transcript_of([])._repr_html_()).findall(".//span") == []
    segment = Segment(0.0, 1.0, [Word("A", 0.0, 1.0)])
    html = Transcript("x", 9999.0, [segment] * (MAX_SEGMENTS + 3), "greedy", channel=1)._repr_html_()
    assert "and 3 further segments" in html and "channel 1" in html


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (61.9, "1:01"), (3599.99, "59:59"), (7384.2, "2:03:04")]
)
def test_clock(seconds, expected):
    assert clock(seconds) == expected
