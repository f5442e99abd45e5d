"""The part of OpenAI's API that transcribes: POST /v1/audio/transcriptions, GET /v1/models.

Any program that lets its user set the base URL can use it. `model` may be any name, since many programs have one built
in; `language`, `prompt` and `temperature` are accepted and have no effect: a model here has one language.
"""

import contextlib
import json
import math
import zlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asrtool.serve.errors import RequestError, error_response
from asrtool.serve.service import service_of
from asrtool.serve.transcription import MEDIA_TYPES, UploadRun
from asrtool.serve.upload_worker import Job
from asrtool.serve.uploads import Upload, until_disconnect

FORMATS = {"json": "json", "text": "txt", "srt": "srt", "verbose_json": "json", "vtt": "vtt"}  # names of ours
GRANULARITIES = ("word", "segment")
LEAST_CONFIDENCE = 1e-6  # log-probs stay finite


async def transcriptions_endpoint(request: Request) -> Response:
    """Recognises the field `file` of a form."""
    run = UploadRun(service_of(request))
    async with run.opened(request) as upload:
        name = _choice(upload, "response_format", "json", tuple(FORMATS))
        granularities = _granularities(upload)
        if _choice(upload, "stream", "false", ("false", "true")) == "true":
            job = Job(upload.file.name, upload.name, "json", has_segments=True, id=run.id)
            events = server_sent_events(run.events(job))
            return await run.streamed(request, events, "text/event-stream", _error_event)
        job = Job(upload.file.name, upload.name, FORMATS[name], id=run.id)
        done = await until_disconnect(request, run.result(job))
        if name == "json":
            return JSONResponse(short_json(json.loads(done["content"])))
        if name == "verbose_json":
            language = upload.fields.get("language", [""])[-1]
            return JSONResponse(verbose_json(json.loads(done["content"]), language, granularities))
        return Response(done["content"], media_type=MEDIA_TYPES[FORMATS[name]])


def _choice(upload: Upload, field: str, default: str, valid: tuple[str, ...]) -> str:
    """Returns the value of a field of the form. Raises RequestError for one that is not valid."""
    value = upload.fields.get(field, [default])[-1].lower()
    if value not in valid:
        raise RequestError("bad_request", f"{field} is one of {', '.join(valid)}")
    return value


def _granularities(upload: Upload) -> list[str]:
    values = upload.fields.get("timestamp_granularities[]") or upload.fields.get("timestamp_granularities")
    for value in values or ():
        if value not in GRANULARITIES:
            raise RequestError("bad_request", f"timestamp_granularities[] is one of {', '.join(GRANULARITIES)}")
    return values or ["segment"]


def short_json(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the response format "json" of a result of `asrtool transcribe`."""
    return {"text": result["text"], "usage": {"type": "duration", "seconds": math.ceil(result["seconds"])}}


def verbose_json(result: dict[str, Any], language: str, granularities: list[str]) -> dict[str, Any]:
    """Returns the response format "verbose_json" of a result of `asrtool transcribe`."""
    tree: dict[str, Any] = {
        "task": "transcribe",
        "language": language,
        "duration": result["seconds"],
        **short_json(result),
    }
    if "segment" in granularities:
        tree["segments"] = [_segment(number, segment) for number, segment in enumerate(result["segments"])]
    if "word" in granularities:
        words = [word for segment in result["segments"] for word in segment["words"]]
        tree["words"] = [{"word": word["text"], "start": word["start"], "end": word["end"]} for word in words]
    return tree


def _segment(number: int, segment: dict[str, Any]) -> dict[str, Any]:
    """Returns a segment with all fields that clients expect.

    avg_logprob is the logarithm of the confidence. What this toolkit does not have is 0 or empty: tokens, temperature,
    the probability of no speech (segments have words), the position in frames.
    """
    confidence = segment["confidence"]
    text = segment["text"].encode()
    return {
        "id": number,
        "seek": 0,
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["text"],
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(confidence or 0.0, LEAST_CONFIDENCE)), 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
        "confidence": confidence,
    }


async def server_sent_events(events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[str, None]:
    """Yields the text of each segment as soon as it is recognised, then all of it, as `stream=true` of OpenAI does."""
    texts: list[str] = []
    async with contextlib.aclosing(events):
        async for event in events:
            if event["event"] == "recording":
                yield ": recognising\n\n"  # a comment: the upload was read
            elif event["event"] == "segment":
                text = event["segment"]["text"]
                delta = f" {text}" if texts else text
                texts.append(text)
                yield _event({"type": "transcript.text.delta", "delta": delta})
            else:
                yield _event({"type": "transcript.text.done", "text": " ".join(texts)})


def _event(tree: dict[str, Any]) -> str:
    return f"data: {json.dumps(tree, ensure_ascii=False)}\n\n"


def _error_event(error: RequestError) -> str:
    return f"data: {bytes(error_response(error).body).decode()}\n\n"


async def models_endpoint(request: Request) -> JSONResponse:
    """Lists the one model."""
    return JSONResponse({"object": "list", "data": [_model(service_of(request).name)]})


async def one_model_endpoint(request: Request) -> JSONResponse:
    """Describes the model, if the name is its name."""
    name = service_of(request).name
    if request.path_params["name"] != name:
        raise RequestError("not_found", f"the only model is {name}")
    return JSONResponse(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "asrtool"}
