"""The size and shape of a set in figures: hours, speakers, lengths, rates, characters, levels and noise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asrtool.doctor.data_audio import Measured
from asrtool.doctor.data_entries import Utterance
from asrtool.doctor.data_signal import Signal
from asrtool.doctor.data_text_checks import character_name
from asrtool.text.words import composed

LENGTHS = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 60)  # seconds: the limits of the histogram
BAR = 30  # characters of its longest bar
MAX_CHARACTERS = 60  # that are listed one by one; scripts with more are counted
MAX_FORMATS = 5


def set_facts(utterances: Sequence[Utterance], signals: Sequence[Signal | None]) -> dict[str, Any]:
    """Returns the facts of one set: name -> text, or a dict of texts. `signals` belong to the utterances."""
    seconds = np.array([utterance.seconds for utterance in utterances])
    facts: dict[str, Any] = {"utterances": len(utterances), "audio": f"{seconds.sum() / 3600:.2f} h"}
    usable = [signal for signal in signals if signal and not signal.wrong_samples]
    if usable:
        facts["speech"] = f"{sum(signal.speech_seconds for signal in usable) / 3600:.2f} h, without pauses"
    if not utterances:
        return facts
    facts["speakers"] = _speakers(utterances)
    facts["sampling rates"] = _shares(f"{u.source.rate} Hz" for u in utterances if u.source)
    facts["seconds"] = _quantiles(seconds, 2)
    facts["lengths"] = _histogram(seconds)
    facts.update(_text_facts(utterances, seconds))
    if usable:
        facts["level, dB"] = _quantiles([signal.level for signal in usable], 0)
        facts["SNR, dB"] = _quantiles([signal.snr for signal in usable if signal.snr is not None], 0)
    return {name: value for name, value in facts.items() if value != ""}


def format_facts(measured: Mapping[Any, Measured]) -> dict[str, str]:
    """Returns the formats of the files of a set."""
    formats = _shares(f"{m.format}, {_plural(m.info.channels, 'channel')}" for m in measured.values() if m.info)
    return {"files": formats} if formats else {}


def _text_facts(utterances: Sequence[Utterance], seconds: np.ndarray) -> dict[str, Any]:
    texts = [composed(utterance.text or "") for utterance in utterances]
    words = Counter(word for text in texts for word in text.split())
    characters = Counter(character for text in texts for character in text if not character.isspace())
    if not words:
        return {"words": "none: no utterance has a transcript"}
    once = sum(count == 1 for count in words.values())
    lengths = [sum(not c.isspace() for c in text) for text in texts]
    rates = [n / s for n, s in zip(lengths, seconds.tolist(), strict=True) if n]
    word_rates = [len(text.split()) / s for text, s in zip(texts, seconds.tolist(), strict=True) if text]
    return {
        "words": f"{words.total()}, {len(words)} different, {once} of them once",
        "sentences": f"{len(set(texts))} different",
        "words per second": _quantiles(word_rates, 1),
        "characters per second": _quantiles(rates, 1),
        "characters": _character_list(characters),
    }


def _character_list(counts: Counter[str]) -> str:
    """Returns the characters by frequency with their counts; invisible ones by code point and name."""
    shown = [
        f"{character if character.isprintable() else character_name(character)} {count}"
        for character, count in counts.most_common(MAX_CHARACTERS)
    ]
    more = f", and {len(counts) - MAX_CHARACTERS} more" if len(counts) > MAX_CHARACTERS else ""
    return f"{len(counts)} different: {', '.join(shown)}{more}"


def _speakers(utterances: Sequence[Utterance]) -> str:
    seconds: Counter[str] = Counter()
    for utterance in utterances:
        if utterance.speaker is not None:
            seconds[utterance.speaker] += utterance.seconds  # type: ignore[assignment]
    if not seconds:
        return "not named"
    minutes = [amount / 60 for amount in seconds.values()]
    span = f"of {min(minutes):.1f} to {max(minutes):.1f} minutes"
    return f"{len(seconds)}, {span}, {float(np.median(minutes)):.1f} in the median"


def _quantiles(values: Any, digits: int) -> str:
    """Returns minimum, 5 %, median, 95 % and maximum as text; "" without values."""
    if not len(values):
        return ""
    least, low, median, high, most = (f"{q:.{digits}f}" for q in np.percentile(values, (0, 5, 50, 95, 100)))
    return f"{median} in the median, 90 % within {low} and {high}, all within {least} and {most}"


def _histogram(seconds: np.ndarray) -> str:
    """Returns the histogram of durations, a line for each range that has utterances, with its share of the audio."""
    limits = [*LENGTHS, np.inf]
    lines = []
    counts, _ = np.histogram(seconds, limits)
    for index, count in enumerate(counts.tolist()):
        if count:
            hours = seconds[(seconds >= limits[index]) & (seconds < limits[index + 1])].sum() / 3600
            end = f"{limits[index + 1]:>3.0f} s" if np.isfinite(limits[index + 1]) else "  ..."
            bar = "#" * max(1, round(BAR * count / counts.max()))
            lines.append(f"{limits[index]:>3.0f} - {end} {count:>8} {hours:>8.2f} h  {bar}")
    return "\n".join(lines)


def _shares(names: Any) -> str:
    counts = Counter(names)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(MAX_FORMATS))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
