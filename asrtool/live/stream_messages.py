"""Results of a live stream as JSON objects: the lines of `asrtool stream --json`, the messages of `asrtool serve`."""

from typing import Any

from asrtool.inference.results import Word
from asrtool.inference.stream import StreamResult


def result_message(result: StreamResult, audio_seconds: float, compute_seconds: float) -> dict[str, Any]:
    """Returns the object of a result, of type "partial" or "final". All times are in seconds.

    audio_seconds: audio of the stream that has arrived. compute_seconds: the time that its recognition has taken.
    """
    message: dict[str, Any] = {
        "type": "final" if result.is_final else "partial",
        "start": result.start,
        "end": result.end,
        "text": result.text,
    }
    if result.is_final:
        message["confidence"] = result.confidence
    else:
        message["num_final"] = result.num_final
    message["words"] = [_word(word, result.is_final) for word in result.words]
    return message | _clocks(audio_seconds, compute_seconds)


def end_message(audio_seconds: float, compute_seconds: float) -> dict[str, Any]:
    """Returns the object that ends a stream."""
    return {"type": "end", **_clocks(audio_seconds, compute_seconds)}


def _word(word: Word, is_final: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": word.text, "start": word.start, "end": word.end}
    return fields | {"confidence": word.confidence} if is_final else fields


def _clocks(audio_seconds: float, compute_seconds: float) -> dict[str, float]:
    return {"audio_seconds": round(audio_seconds, 3), "compute_seconds": round(compute_seconds, 3)}
