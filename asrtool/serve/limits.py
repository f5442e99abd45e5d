"""The limits of the server. docs/serving.md lists them with the options that change them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from asrtool.errors import UserError, did_you_mean

LARGEST = {int: 1 << 50, float: 1e8}  # a petabyte; three years in seconds: beyond, timers and sizes overflow


@dataclass(frozen=True)
class Limits:
    """What clients may use at most: numbers, bytes, and seconds.

    Live streams:

    max_streams: streams at a time. max_batch: streams in one step of the model. gather_chunks: how long a step waits
    for further streams, as a share of the model's chunk. max_stream_seconds: audio of a stream, and its duration.
    max_message_bytes: one WebSocket message. max_backlog_seconds: audio that waits for recognition, at least two chunks
    and the latency of the model; the server stops reading from a stream that is further ahead. start_seconds: until the
    start message. idle_seconds: without audio. send_seconds: until the client has read a result. max_unsent: final
    results that wait for a slow client.

    Uploads:

    upload_workers: uploads recognised at a time, each in a process of its own. max_queued_uploads: uploads that are
    received or wait. max_upload_bytes: the body of a request. max_upload_seconds: audio of an upload, and the time
    that its recognition may take. pause_seconds: between two parts of a body. body_seconds: for the whole body.

    Connections:

    max_connections: of all kinds. header_seconds: until the header of a request is complete.
    """

    max_streams: int = 64  # docs/benchmarks.md says how many a machine can hold
    max_batch: int = 64
    gather_chunks: float = 0.2
    max_stream_seconds: float = 3 * 3600.0  # a long meeting
    max_message_bytes: int = 1 << 20  # 32 s of 16 kHz, 16 bits: clients send tenths of seconds
    max_backlog_seconds: float = 10.0
    start_seconds: float = 10.0
    idle_seconds: float = 60.0
    send_seconds: float = 30.0
    max_unsent: int = 256  # utterances: more than an hour of speech

    upload_workers: int = 1
    max_queued_uploads: int = 16
    max_upload_bytes: int = 200 << 20  # 2 hours of 16 kHz, 16 bits
    max_upload_seconds: float = 2 * 3600.0
    pause_seconds: float = 30.0
    body_seconds: float = 600.0

    max_connections: int = 1024
    header_seconds: float = 10.0

    max_kept_bytes: int = 10 << 30  # in the folder of --keep-audio

    retry_seconds: int = 5  # what Retry-After says


def with_changes(limits: Limits, changes: Sequence[str]) -> Limits:
    """Returns the limits with changes such as "body_seconds=60". Raises UserError for one that is not possible."""
    types = {field.name: type(getattr(limits, field.name)) for field in fields(limits)}
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in types:
            raise UserError(f"--limit {change}: unknown limit {name} ({did_you_mean(name, types)})")
        values[name] = _number(types[name], text, change, minimum=1 if name == "max_batch" else 0)
    return replace(limits, **values)


def _number(kind: type, text: str, change: str, minimum: int) -> Any:
    largest = LARGEST[kind]
    try:
        number = kind(text)
    except ValueError:
        number = minimum - 1
    if not minimum <= number <= largest:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"--limit {change}: give {what} from {minimum} to {largest:g}")
    return number
