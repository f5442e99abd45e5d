"""Transcripts as text: txt, json, srt, vtt, ctm, textgrid and tsv. `FORMATS` has the writer of each."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asrtool
from asrtool.files import finite_or_null, utf8_path
from asrtool.inference.results import Segment, Transcript, Word
from asrtool.inference.subtitles import srt_text, vtt_text

DIGITS = 3  # of times in seconds: a frame has 10 ms
CONFIDENCE_DIGITS = 4
MIN_INTERVAL = 0.001  # seconds; Praat has no intervals without duration


def txt(transcript: Transcript, name: str) -> str:
    """Returns the text, a line for each segment with words."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments if segment.words)


def tsv(transcript: Transcript, name: str) -> str:
    """Returns a table of segments with the columns start, end (seconds) and text."""
    rows = [
        f"{segment.start:.3f}\t{segment.end:.3f}\t{segment.text}\n" for segment in transcript.segments if segment.words
    ]
    return "start\tend\ttext\n" + "".join(rows)


def srt(transcript: Transcript, name: str) -> str:
    """Returns subtitles in SubRip's format."""
    return srt_text(transcript.words)


def vtt(transcript: Transcript, name: str) -> str:
    """Returns subtitles in the format WebVTT."""
    return vtt_text(transcript.words)


def ctm(transcript: Transcript, name: str) -> str:
    """Returns NIST's CTM of the words; the recording is `name`, the channel 1 or the recognised one."""
    return "".join(ctm_lines(transcript.words, name, transcript.channel))


def ctm_lines(words: Iterable[Word], recording: str, channel: int | None = None) -> Iterable[str]:
    """Yields lines of CTM (NIST sctk, "ctm file format"): recording, channel, start, duration, word, confidence.

    Times are seconds. `channel` counts from 0, and a CTM from 1; None, the mean of all, is 1, too. The fields are
    separated by spaces, so that spaces in the recording's name become "_". A word without a confidence has none.
    """
    recording = "_".join(utf8_path(recording).split())
    for word in words:
        confidence = "" if word.confidence is None else f" {word.confidence:.{CONFIDENCE_DIGITS}f}"
        yield f"{recording} {(channel or 0) + 1} {word.start:.3f} {word.end - word.start:.3f} {word.text}{confidence}\n"


def textgrid(transcript: Transcript, name: str) -> str:
    """Returns Praat's TextGrid with the tiers segments and words."""
    segments = [(segment.start, segment.end, segment.text) for segment in transcript.segments if segment.words]
    words = [(word.start, word.end, word.text) for word in transcript.words]
    return textgrid_text({"segments": segments, "words": words}, transcript.seconds)


Interval = tuple[float, float, str]  # start and end in seconds, label


def textgrid_text(tiers: dict[str, Sequence[Interval]], seconds: float) -> str:
    """Returns a TextGrid (long format) with interval tiers of labels, for a recording of `seconds`.

    Intervals, which are in order, may touch but not overlap in Praat: each begins where the one before ends, or later.
    """
    from praatio.utilities.textgrid_io import getTextgridAsStr

    entries = {name: _separate(intervals) for name, intervals in tiers.items()}
    ends = [rows[-1][1] for rows in entries.values() if rows]
    end = max([round(seconds, DIGITS), MIN_INTERVAL, *ends])
    tree = {
        "xmin": 0.0,
        "xmax": end,
        "tiers": [
            {"class": "IntervalTier", "name": name, "xmin": 0.0, "xmax": end, "entries": rows}
            for name, rows in entries.items()
        ],
    }
    return getTextgridAsStr(tree, "long_textgrid", includeBlankSpaces=True, minimumIntervalLength=MIN_INTERVAL / 2)


def _separate(intervals: Sequence[Interval]) -> list[Interval]:
    """Returns the intervals without overlap, each with some duration: the end gives way to the following start."""
    rows: list[Interval] = []
    previous_end = 0.0
    for index, (start, end, label) in enumerate(intervals):
        following = intervals[index + 1][0] if index + 1 < len(intervals) else end
        start = round(max(start, previous_end), DIGITS)
        end = round(max(min(end, following), start + MIN_INTERVAL), DIGITS)
        rows.append((start, end, label))
        previous_end = end
    return rows


def json_text(transcript: Transcript, name: str) -> str:
    """Returns the whole result as JSON; docs/recognise.md describes its keys."""
    return json.dumps(finite_or_null(as_json(transcript)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_json(transcript: Transcript) -> dict[str, Any]:
    """Returns the whole result as plain types."""
    return {
        "recording": utf8_path(transcript.source),
        "seconds": round(transcript.seconds, DIGITS),
        "channel": transcript.channel,
        "method": transcript.method,
        "text": transcript.text,
        "segments": [_segment_as_json(segment) for segment in transcript.segments],
        "asrtool": asrtool.__version__,
    }


def _segment_as_json(segment: Segment) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "start": round(segment.start, DIGITS),
        "end": round(segment.end, DIGITS),
        "text": segment.text,
        "confidence": _rounded(segment.confidence),
        "words": [
            {
                "text": word.text,
                "start": round(word.start, DIGITS),
                "end": round(word.end, DIGITS),
                "confidence": _rounded(word.confidence),
            }
            for word in segment.words
        ],
    }
    if segment.alternatives:
        tree["alternatives"] = [{"text": one.text, "score": round(one.score, 4)} for one in segment.alternatives]
    return tree


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, CONFIDENCE_DIGITS)


# A writer takes the transcript and the name that the recording has in the file.
FORMATS: dict[str, Callable[[Transcript, str], str]] = {
    "txt": txt,
    "json": json_text,
    "srt": srt,
    "vtt": vtt,
    "ctm": ctm,
    "textgrid": textgrid,
    "tsv": tsv,
}
SUFFIXES = {name: name for name in FORMATS} | {"textgrid": "TextGrid"}  # Praat's own spelling
