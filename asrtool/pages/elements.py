"""The elements of a page: what a function here returns is plain data, which asrtool/pages/assets/*.js draws.

An element is a dict with a "kind". All texts in it may come from a stranger's files: the scripts put them into the page
as text, never as HTML.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

Element = dict[str, Any]
Section = dict[str, Any]
# How a column is shown and sorted: text; a number with `digits` decimals; (low, high), an interval in brackets.
ColumnType = Literal["text", "number", "interval"]
Tone = Literal["normal", "note", "warning"]


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: "1 word", "1,200 words"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def section(name: str, title: str, elements: Iterable[Element | None], intro: str = "") -> Section:
    """Returns a section of a page. `name` is its address (page.html#name), made of lower-case letters and "-".

    Elements that are None are left out, so that a part that does not exist needs no branch.
    """
    return {"name": name, "title": title, "intro": intro, "elements": [element for element in elements if element]}


def text(content: str, tone: Tone = "normal") -> Element:
    """Returns a paragraph; a "note" says what is left out and why, a "warning" what makes the figures doubtful."""
    return {"kind": "text", "text": content, "tone": tone}


def code(content: str, caption: str = "") -> Element:
    """Returns text of a fixed pitch, such as a command or a configuration."""
    return {"kind": "code", "text": content, "caption": caption}


def tiles(items: Iterable[tuple[str, str, str]]) -> Element:
    """Returns large figures side by side; an item is (label, value, note)."""
    return {"kind": "tiles", "items": [list(item) for item in items]}


def facts(rows: Iterable[tuple[str, str]]) -> Element:
    """Returns a list of names and values."""
    return {"kind": "facts", "rows": [list(row) for row in rows]}


def column(name: str, column_type: ColumnType = "text", digits: int = 0, meaning: str = "") -> dict[str, Any]:
    """Returns a column of `table`; `meaning` is shown where the pointer rests on its head."""
    return {"name": name, "type": column_type, "digits": digits, "meaning": meaning}


def table(caption: str, columns: Sequence[dict[str, Any]], rows: Iterable[Sequence[Any]], shown: int = 15) -> Element:
    """Returns a table that the reader can sort by any column; all but the first `shown` rows are folded away.

    A value is a text, a number, (low, high), or None, which is shown as "-".
    """
    return {
        "kind": "table",
        "caption": caption,
        "columns": list(columns),
        "rows": [list(r) for r in rows],
        "shown": shown,
    }


def bars(caption: str, value_name: str, items: Iterable[dict[str, Any]], signed: bool = False) -> Element:
    """Returns horizontal bars with intervals; items come from `bar`. `signed` bars begin at a zero line."""
    return {"kind": "bars", "caption": caption, "value_name": value_name, "items": list(items), "signed": signed}


def bar(name: str, value: float, interval: tuple[float, float] | None = None, note: str = "") -> dict[str, Any]:
    """Returns a bar of `bars`; `note` is a short text behind the value, such as a number of words."""
    return {"name": name, "value": value, "interval": interval and list(interval), "note": note}


def series(name: str, points: Iterable[tuple[float, float]], marks: bool = False) -> dict[str, Any]:
    """Returns a line of `lines` from points (x, y); `marks` draws each point as a dot."""
    return {"name": name, "points": [list(point) for point in points], "marks": marks}


def lines(
    caption: str,
    x_name: str,
    y_name: str,
    all_series: Iterable[dict[str, Any]],
    log_scale: bool = False,
    diagonal: bool = False,
) -> Element:
    """Returns a chart of lines that the reader can zoom into.

    `log_scale` is of y, for positive values. `diagonal` draws x = y, and fixes both axes to 0 .. 1.
    """
    element = {"kind": "lines", "caption": caption, "x_name": x_name, "y_name": y_name, "series": list(all_series)}
    return element | {"log_scale": log_scale, "diagonal": diagonal}


def choice(label: str, options: Iterable[tuple[str, Sequence[Element | None]]]) -> Element | None:
    """Returns several lists of elements of which the reader sees one; the only one, where there is one."""
    named = [{"name": name, "elements": [e for e in elements if e]} for name, elements in options]
    return {"kind": "choice", "label": label, "options": named} if named else None


def details(title: str, elements: Iterable[Element | None]) -> Element:
    """Returns elements that are folded away behind a title."""
    return {"kind": "details", "title": title, "elements": [element for element in elements if element]}


def hypothesis(name: str, pairs: Iterable[Sequence[str]], note: str = "") -> dict[str, Any]:
    """Returns a hypothesis of `utterance`.

    `pairs` are its alignment with the reference, (reference word, hypothesis word) with "" for a gap, as in
    alignments.jsonl. `name` is the system's, and `note` its figures.
    """
    return {"name": name, "pairs": [list(pair) for pair in pairs], "note": note}


def utterance(
    utterance_id: str,
    note: str,
    hypotheses: Iterable[dict[str, Any]],
    audio: str | None = None,
    spectrogram: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns an utterance of `utterances`.

    `note` has its figures, such as the speaker and the length. `audio` is a data URI (asrtool/pages/media.py).
    """
    entry = {"id": utterance_id, "note": note, "hypotheses": list(hypotheses)}
    return entry | {"audio": audio, "spectrogram": spectrogram}


def spectrogram(image: str, seconds: float, top_hertz: float, tracks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns the spectrogram of `utterance`: a data URI of a grey PNG, and rows of labels from `track` below it."""
    return {"image": image, "seconds": seconds, "top_hertz": top_hertz, "tracks": list(tracks)}


def track(name: str, spans: Iterable[tuple[str, float, float]]) -> dict[str, Any]:
    """Returns a row of labels under a spectrogram: (label, begin, end) in seconds."""
    return {"name": name, "spans": [[label, round(begin, 3), round(end, 3)] for label, begin, end in spans]}


def utterances(caption: str, items: Iterable[dict[str, Any]], shown: int = 5) -> Element:
    """Returns utterances with aligned words, audio and spectrogram; all but the first `shown` are folded away."""
    return {"kind": "utterances", "caption": caption, "items": list(items), "shown": shown}
