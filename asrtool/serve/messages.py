"""The messages of /v1/stream that begin and end a stream; asrtool/live/stream_messages.py has its results."""

import json
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from asrtool.serve.errors import RequestError
from asrtool.streaming.search_setup import MAX_STREAM_HOTWORDS

MAX_TEXT_BYTES = 1 << 16  # of a message of text: a start message with a list of hotwords
MAX_RULES = 20

Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Rule = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class StartMessage(BaseModel):
    """The first message of a client.

    rate: Hz. format: of the samples. hotwords: phrases to expect, each with its weight after a tab, if it has one.
    endpoint: the rules that end an utterance, as of `asrtool stream --endpoint`; it also ends after 60 s
    (MAX_UTTERANCE_SECONDS of asrtool/live/stream_engine.py), with an empty list after 60 s alone. partial: send
    partial results, too.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["start"]
    rate: Annotated[int, Field(ge=8000, le=192_000)] = 16_000
    format: Literal["s16le", "f32le"] = "s16le"
    channels: Annotated[int, Field(ge=1, le=8)] = 1
    hotwords: Annotated[list[Phrase], Field(max_length=MAX_STREAM_HOTWORDS)] = []
    endpoint: Annotated[list[Rule], Field(max_length=MAX_RULES)] = ["default"]
    partial: bool = True


class StreamTiming(NamedTuple):
    """The audio after which new words may come, and the audio that features and model wait for at most, in seconds."""

    chunk_seconds: float
    latency_seconds: float


def parse_start(text: str) -> StartMessage:
    """Returns the start message in `text`. Raises RequestError with one line that says what is wrong."""
    tree = _parse_object(text)
    if tree.get("type") != "start":
        raise RequestError("bad_request", 'the first message is not {"type": "start", ...}')
    try:
        return StartMessage.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:100] or "the message"
        raise RequestError("bad_request", f"start message: {place}: {first['msg']}") from error


def require_end(text: str) -> None:
    """Raises RequestError for any text but {"type": "end"}."""
    if _parse_object(text) == {"type": "end"}:
        return
    raise RequestError("bad_request", 'after the start message come binary messages of samples and {"type": "end"}')


def _parse_object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_BYTES:
        raise RequestError("too_large", f"a text message has at most {MAX_TEXT_BYTES} characters")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("bad_request", "the message of text is not JSON") from error
    if not isinstance(tree, dict):
        raise RequestError("bad_request", "the message of text is not a JSON object")
    return tree


def ready_message(stream: str, timing: StreamTiming, warning: str | None = None) -> dict[str, Any]:
    """Returns the answer to the start message. warning: what makes the results of this stream worse."""
    tree: dict[str, Any] = {"type": "ready", "stream": stream, **timing._asdict()}
    return tree if warning is None else tree | {"warning": warning}
