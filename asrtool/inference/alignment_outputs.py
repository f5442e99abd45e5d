"""The alignment of a recording as files: NIST's CTM, Praat's TextGrid and JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import asrtool
from asrtool.data.audio_blocks import Channel
from asrtool.errors import UserError, require_file
from asrtool.experiment import Experiment
from asrtool.files import file_hash, finite_or_null, utf8_path
from asrtool.inference.ledger import Ledger, recording_facts
from asrtool.inference.output_plan import OutputOptions, plan_outputs, write_outputs
from asrtool.inference.outputs import SUFFIXES as TRANSCRIPT_SUFFIXES
from asrtool.inference.outputs import Interval, ctm_lines, textgrid_text
from asrtool.inference.recording_alignment import (
    AlignedWord,
    RecordingAlignment,
    align_recording,
    require_one_channel,
)
from asrtool.inference.recordings import Recording
from asrtool.text.spoken_text import read_spoken_text

DIGITS = 3  # of times in seconds
MAX_EDIT_LINES = 30  # that are printed; a terminal has about as many
MAX_SHOWN_WORDS = 12


def _ctm(alignment: RecordingAlignment, name: str) -> str:
    """Returns the CTM of the words that are in the audio, with their confidences."""
    return "".join(ctm_lines(alignment.words, name, alignment.channel))


def _textgrid(alignment: RecordingAlignment, name: str) -> str:
    """Returns a TextGrid with the tiers lines (of the text), words, and extra: speech that the text does not have."""
    words = [(word.start, word.end, word.text) for word in alignment.words]
    extra = [(part.start, part.end, part.heard) for part in alignment.extra]
    tiers: dict[str, Sequence[Interval]] = {"lines": _lines(alignment), "words": words, "extra": extra}
    return textgrid_text(tiers, alignment.seconds)


def _lines(alignment: RecordingAlignment) -> list[tuple[float, float, str]]:
    text = alignment.text.words

    def line_of(word: AlignedWord) -> int:
        return text[word.index].line

    groups = (list(words) for _, words in groupby(alignment.words, key=line_of))
    return [(words[0].start, words[-1].end, " ".join(word.text for word in words)) for words in groups]


def _json(alignment: RecordingAlignment, name: str) -> str:
    """Returns everything as JSON; docs/alignment.md describes its keys."""
    return json.dumps(finite_or_null(as_json(alignment)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_json(alignment: RecordingAlignment) -> dict[str, Any]:
    """Returns an alignment as plain types, times in seconds."""
    text = alignment.text
    return {
        "recording": utf8_path(alignment.source),
        "seconds": round(alignment.seconds, DIGITS),
        "channel": alignment.channel,
        "words": [_word(word, text.words[word.index].line) for word in alignment.words],
        "missing": [
            {"time": round(part.time, DIGITS), "line": part.words[0].line, "text": " ".join(w.text for w in part.words)}
            for part in alignment.missing
        ],
        "extra": [
            {"start": round(part.start, DIGITS), "end": round(part.end, DIGITS), "heard": part.heard}
            for part in alignment.extra
        ],
        "text": {
            "case": text.case,
            "punctuation_removed": text.punctuation,
            "pronounced_by_g2p": list(text.pronounced),
            "left_out": [{"text": word.text, "line": word.line} for word in text.unwritable],
        },
        "asrtool": asrtool.__version__,
    }


def _word(word: AlignedWord, line: int) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": round(word.start, DIGITS),
        "end": round(word.end, DIGITS),
        "confidence": None if word.confidence is None else round(word.confidence, 4),
        "line": line,
    }


WRITERS: dict[str, Callable[[RecordingAlignment, str], str]] = {"textgrid": _textgrid, "ctm": _ctm, "json": _json}
SUFFIXES = {name: f"aligned.{suffix}" for name, suffix in TRANSCRIPT_SUFFIXES.items() if name in WRITERS}


def align_to_files(
    experiment: Experiment,
    audio: Path,
    text_file: Path,
    formats: Iterable[str] = tuple(WRITERS),
    folder: Path | None = None,
    channel: Channel | Literal["each"] = "mix",
    overwrite: bool = False,
) -> Iterator[str]:
    """Aligns a recording with a text file, writes the `formats` (keys of WRITERS), and yields lines for the user.

    The files are beside the recording, or in `folder`, with a row in the ledger (asrtool/inference/ledger.py): what is
    done is not done again, and other files, edited ones among them, are replaced with `overwrite` only. Raises
    UserError for files that are not replaced, and as `align_recording` and `read_spoken_text`.
    """
    channel = require_one_channel(channel)
    options = OutputOptions(tuple(formats), folder, channel, overwrite=overwrite, suffixes=SUFFIXES)
    ledgers: dict[Path, Ledger] = {}
    settings = _settings(experiment, require_file(text_file, "text", "give a text file"))
    recording = Recording(audio, is_stream=audio.exists() and not audio.is_file())
    plan = plan_outputs([recording], options, settings, ledgers)
    if plan.problems:
        raise UserError(plan.problems[0])
    if not plan.tasks:
        yield f"{audio}: done before; nothing to align"
        return
    (task,) = plan.tasks
    text = read_spoken_text(text_file, experiment.tokenizer)
    yield f"{text_file}: {text.summary()}"
    facts = recording_facts(recording, task.folder)  # before it is read: it may change meanwhile
    alignment = align_recording(experiment, audio, text, channel)
    texts = {name: WRITERS[name](alignment, task.name) for name in task.outputs}
    write_outputs(task, facts, texts, settings, ledgers)
    yield f"{audio}: {alignment.summary()}"
    yield from edit_lines(alignment)
    yield f"written: {', '.join(map(str, task.outputs.values()))}"


def _settings(experiment: Experiment, text_file: Path) -> dict[str, Any]:
    """Returns what determines the alignment of a recording, as plain types: files stand as parts of their hash."""
    files = {
        "weights": experiment.checkpoint,
        "configuration": experiment.folder / "config.yaml",
        "units": experiment.folder / "tokenizer.json",
        "text": text_file,
    }
    hashes = {name: file_hash(path)[:12] for name, path in files.items()}
    return {"asrtool": asrtool.__version__, "command": "align", "precision": experiment.computed_precision, **hashes}


def edit_lines(alignment: RecordingAlignment) -> Iterator[str]:
    """Yields a line for each difference of text and audio, in order of time; at most MAX_EDIT_LINES."""
    rows = [(part.time, f"not in the audio: {_shortened([w.text for w in part.words])}") for part in alignment.missing]
    for part in alignment.extra:
        heard = f", heard: {_shortened(part.heard.split())}" if part.heard else ""
        rows.append((part.start, f"not in the text: {part.end - part.start:.1f} s of speech{heard}"))
    for time, line in sorted(rows)[:MAX_EDIT_LINES]:
        yield f"  {time:9.2f} s  {line}"
    if len(rows) > MAX_EDIT_LINES:
        yield f"  ... and {len(rows) - MAX_EDIT_LINES} more (all are in the JSON file)"


def _shortened(words: list[str]) -> str:
    return " ".join(words[:MAX_SHOWN_WORDS]) + (f" ... ({len(words)} words)" if len(words) > MAX_SHOWN_WORDS else "")
