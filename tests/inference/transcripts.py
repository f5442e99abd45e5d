"""Transcripts made by hand for tests of outputs."""

import random

from asrtool.inference.results import Alternative, Segment, Transcript, Word

SPOKEN = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog,",
    "interminable",
    "yes.",
    "Zürich",
    "北京",
]


def make_words(*spoken: tuple[str, float, float]) -> list[Word]:
    """Returns words from (text, start, end)."""
    return [Word(text, start, end) for text, start, end in spoken]


def make_transcript(words: list[Word], seconds: float | None = None, **changes: object) -> Transcript:
    """Returns a transcript of one segment."""
    segments = [Segment(words[0].start, words[-1].end, words, 0.5)] if words else []
    end = words[-1].end if words else 0.0
    values = {"source": "talks/a b.wav", "seconds": end if seconds is None else seconds, "method": "greedy"}
    return Transcript(**{**values, "segments": segments, **changes})


def random_words(draw: random.Random, count: int, start: float = 0.0) -> list[Word]:
    """Returns words with times in order, with and without pauses between them."""
    words = []
    for _ in range(count):
        end = start + draw.choice([0.05, 0.2, 0.4, 0.7, draw.uniform(0.1, 4.0)])
        words.append(Word(draw.choice(SPOKEN), start, end, draw.random()))
        start = end + draw.choice([0.0, 0.0, 0.0, 0.03, 0.25, 0.6, 3.0])
    return words


def random_transcript(draw: random.Random) -> Transcript:
    """Returns a transcript of several segments, some with an n-best list."""
    segments, start = [], draw.uniform(0, 2)
    for _ in range(draw.randint(1, 4)):
        words = random_words(draw, draw.randint(1, 20), start)
        others = (Alternative(" ".join(word.text for word in words), -1.5), Alternative("the fox", -2.25))
        segments.append(Segment(words[0].start, words[-1].end, words, draw.random(), draw.choice([(), others])))
        start = words[-1].end + draw.uniform(0.3, 2)
    return Transcript("talk.wav", start, segments, "graph", channel=draw.choice([None, 0, 1]))
