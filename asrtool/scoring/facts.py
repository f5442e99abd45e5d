"""What the files that a report reads must hold: log.jsonl, decode.json, stream.json and wer.json.

They may come from another version of asrtool, or from a stranger. Fields beyond these are left alone.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asrtool.errors import UserError

LARGEST = 10**15  # of any figure: seconds, hours, bytes, steps and words are far below, and what is printed stays short
Figure = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Text = Annotated[str, Field(max_length=100_000)]  # a command of a shell may have 128 kB


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Git(_Row):
    """The state of asrtool's checkout."""

    commit: Text
    dirty: bool


class Origin(_Row):
    """What asrtool/provenance.py records."""

    command: Text | None = None
    version: Text = ""
    git: Git | None = None
    adapted_by: list[Text] = []  # commands


class Event(Origin):
    """A line of log.jsonl."""

    event: Text
    step: Count = 0
    hours: Figure | None = None
    device_hours: Figure | None = None
    peak_memory_gb: Figure | None = None


class Start(Event):
    """The line of a training that begins or goes on."""

    ranks: Count
    device: Text


class Decoded(Origin):
    """decode.json."""

    audio_seconds: Figure = 0.0
    rtf: Figure = 0.0
    device: Text = ""
    batch_seconds: Figure = 0.0
    ranks: Count = 1
    jobs: Count = 1
    nbest: Count = 1
    rescore: Text | None = None


class OneHypothesis(_Row):
    """Of an n-best list."""

    hyp: str
    score: Figure


class Listed(_Row):
    """A line of hyps.jsonl with an n-best list; where it is missing or empty, its only hypothesis is the list."""

    hyp: str
    score: Figure
    nbest: list[OneHypothesis] | None = None


class Latency(_Row):
    """Milliseconds."""

    max: Figure
    mean: Figure


class Spread(_Row):
    """Milliseconds of many chunks or words."""

    mean: Figure
    median: Figure
    p95: Figure
    max: Figure


class Emission(_Row):
    """When words were there."""

    final_ms: Spread


class Offline(_Row):
    """How far the words are those of whole utterances."""

    words: Count
    same_percent: Figure


class Streamed(Origin):
    """stream.json."""

    rtf: Figure
    device: Text
    chunk_ms: Figure
    latency_ms: Latency
    compute_ms: Spread
    offline: Offline | None = None
    emission: Emission | None = None


class Words(_Row):
    """How many the references have."""

    length: Count


class Scored(_Row):
    """wer.json."""

    of: Annotated[str, Field(pattern="^(words|phones)$")] = "words"
    wer: Figure
    wer_interval: Annotated[list[Figure], Field(min_length=2, max_length=2)] | None
    words: Words
    hypotheses: Text | None = None


def check(kind: type[BaseModel], content: Any, where: str | Path, hint: str) -> dict:
    """`content` when it is of that kind; UserError with the first field that is not."""
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise UserError(f"{where}: {f'{place}: ' if place else ''}{first['msg'][:200]}; {hint}") from error
    return content
