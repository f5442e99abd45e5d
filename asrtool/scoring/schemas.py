"""Schemas of the files that a report reads: log.jsonl, decode.json, stream.json and wer.json.

The files may come from another version of asrtool, or from a stranger. Fields beyond the schemas are not checked.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asrtool.errors import UserError

MAX_FIGURE = 10**15  # far beyond any number of seconds, hours, bytes, steps or words, and still short when printed
Figure = Annotated[float, Field(ge=-MAX_FIGURE, le=MAX_FIGURE)]
Count = Annotated[int, Field(ge=0, le=MAX_FIGURE)]
Text = Annotated[str, Field(max_length=100_000)]  # a shell command may have 128 kB


FramedWord = Annotated[tuple[str, Figure], Field(strict=False)]  # not strict: JSON has lists
TimedWord = Annotated[tuple[str, Figure, Figure, Figure | None], Field(strict=False)]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class GitState(_Schema):
    """The state of asrtool's checkout."""

    commit: Text
    dirty: bool


class Provenance(_Schema):
    """The record of asrtool/provenance.py: what ran."""

    command: Text | None = None
    version: Text = ""
    git: GitState | None = None
    adapted_by: list[Text] = []  # commands of `asrtool adapt`


class LogRow(Provenance):
    """A row of log.jsonl."""

    event: Text
    step: Count = 0
    hours: Figure | None = None
    device_hours: Figure | None = None
    peak_memory_gb: Figure | None = None


class StartRow(LogRow):
    """The row of log.jsonl that a training writes when it begins or continues."""

    ranks: Count
    device: Text
    parameters: Count | None = None
    longest_seconds: Figure | None = None  # the longest utterance that is trained on


class DecodeFacts(Provenance):
    """decode.json."""

    audio_seconds: Figure = 0.0
    rtf: Figure = 0.0
    device: Text = ""
    batch_seconds: Figure = 0.0
    ranks: Count = 1
    jobs: Count = 1
    nbest: Count = 1
    rescore: Text | None = None


class NBestEntry(_Schema):
    """One hypothesis of an n-best list."""

    hyp: str
    score: Figure


class NBestRow(_Schema):
    """A row of hyps.jsonl with an n-best list. Without a list, or with an empty one, `hyp` is the only hypothesis."""

    hyp: str
    score: Figure
    nbest: list[NBestEntry] | None = None


class CombinedRow(_Schema):
    """A row of hyps.jsonl that is combined with others."""

    hyp: str
    nbest: list[NBestEntry] | None = None
    # [word, seconds], or [word, start, end, confidence]
    words: list[TimedWord | FramedWord] | None = None


class LatencyFigures(_Schema):
    """The latency of the model and the features, in milliseconds."""

    max: Figure
    mean: Figure


class TimeFigures(_Schema):
    """Statistics over many chunks or words, in milliseconds."""

    mean: Figure
    median: Figure
    p95: Figure
    max: Figure


class EmissionFigures(_Schema):
    """The delay from the end of a word to the time when it is final."""

    final_ms: TimeFigures


class OfflineAgreement(_Schema):
    """The agreement between the words of streaming and of offline decoding."""

    words: Count
    same_percent: Figure


class StreamFacts(Provenance):
    """stream.json."""

    rtf: Figure
    device: Text
    chunk_ms: Figure
    latency_ms: LatencyFigures
    compute_ms: TimeFigures
    offline: OfflineAgreement | None = None
    emission: EmissionFigures | None = None


class ReferenceWords(_Schema):
    """The number of words in the references."""

    length: Count


class ConfidenceFigures(_Schema):
    """Normalised cross entropy, if it is defined, and expected calibration error."""

    nce: Figure | None
    ece: Figure


class ConfidenceFacts(_Schema):
    """The quality of the confidences of words."""

    words: ConfidenceFigures


class ScoreFacts(_Schema):
    """wer.json."""

    token_type: Annotated[str, Field(pattern="^(words|phones)$")] = "words"
    wer: Figure
    wer_interval: Annotated[list[Figure], Field(min_length=2, max_length=2)] | None
    words: ReferenceWords
    hypotheses: Text | None = None
    normalised_by: dict[str, Any] | None = None  # rules of `asrtool score --normalise`
    confidence: ConfidenceFacts | None = None


def check_schema(schema: type[BaseModel], content: Any, where: str | Path, hint: str) -> dict:
    """Returns `content` if it follows the schema; raises UserError with the first field that does not."""
    try:
        schema.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, details["loc"]))[:100]
        place = f"{where}: {field}" if field else f"{where}"
        raise UserError(f"{place}: {details['msg'][:200]}; {hint}") from error
    return content
