"""A transcript as HTML for notebooks: words are shaded by their confidence.

The shade is not the only sign: words of low confidence are underlined as well, and each word has a title with its
times and its confidence as a number, which screen readers read and pointers show.
"""

from collections.abc import Iterator
from html import escape

from asrtool.files import utf8_path
from asrtool.inference.results import Segment, Transcript, Word

# Calibrated words below it are more often wrong than one in two; they are underlined.
LOW_CONFIDENCE = 0.5
# Opacity of the amber (240, 160, 0) behind a word of confidence 0. The contrast to the text, black on white or light
# grey on near-black, stays above 7 to 1: level AAA of WCAG 2.
MAX_SHADE = 0.35
MAX_SEGMENTS = 500  # shown: about two hours of speech, and a page of 2 MB; more slows a notebook down


def transcript_html(transcript: Transcript) -> str:
    """Returns an HTML fragment with the words of a transcript, a paragraph for each segment."""
    segments = transcript.segments[:MAX_SEGMENTS]
    lines = [_heading(transcript), *map(_paragraph, segments)]
    hidden = len(transcript.segments) - len(segments)
    if hidden:
        lines.append(f"<p>... and {hidden} further segments</p>")
    if any(word.confidence is not None for word in transcript.words):
        lines.append(f"<p><small>{_legend()}</small></p>")
    return f'<div class="asrtool-transcript">{"".join(lines)}</div>'


def clock(seconds: float) -> str:
    """Returns a time as h:mm:ss, or m:ss below an hour; fractions are cut off."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _heading(transcript: Transcript) -> str:
    channel = "" if transcript.channel is None else f", channel {transcript.channel}"
    facts = f"{clock(transcript.seconds)}{channel}, {len(transcript.words)} words, {transcript.method}"
    return f"<p><strong>{escape(utf8_path(transcript.source))}</strong> <small>{escape(facts)}</small></p>"


def _legend() -> str:
    return (
        f"Shaded: the darker, the lower the confidence. Underlined: below {LOW_CONFIDENCE:.0%}. "
        "The title of a word has its times and confidence."
    )


def _paragraph(segment: Segment) -> str:
    words = " ".join(_spans(segment))
    return f"<p><small><time>{clock(segment.start)}</time></small> {words}</p>"


def _spans(segment: Segment) -> Iterator[str]:
    for word in segment.words:
        title = f"{word.start:.2f} to {word.end:.2f} s"
        if word.confidence is not None:
            title += f", confidence {word.confidence:.0%}"
        yield f'<span title="{title}"{_style(word)}>{escape(word.text)}</span>'


def _style(word: Word) -> str:
    """Returns the style attribute of a word; "" for a word that is certain, or has no confidence."""
    if word.confidence is None:
        return ""
    shade = MAX_SHADE * (1 - word.confidence)
    rules = [f"background:rgba(240,160,0,{shade:.2f})"] if shade >= 0.01 else []
    if word.confidence < LOW_CONFIDENCE:
        rules.append("text-decoration:underline dotted")
    return f' style="{";".join(rules)}"' if rules else ""
