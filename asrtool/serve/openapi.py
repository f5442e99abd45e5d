"""GET /openapi.json: the routes of HTTP, as OpenAPI 3.1. The WebSocket is described in docs/serving.md."""

from typing import Any

import asrtool
from asrtool.serve.openai_api import FORMATS
from asrtool.serve.transcription import MAX_CHANNEL, MEDIA_TYPES

JSON = "application/json"
TEXT = {"type": "string"}
NUMBER = {"type": "number"}
OPTIONAL_NUMBER = {"type": ["number", "null"]}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


ERROR = _object(
    {"error": _object({"code": TEXT, "message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}})}
)
WORD = _object({"text": TEXT, "start": NUMBER, "end": NUMBER, "confidence": OPTIONAL_NUMBER})
SEGMENT = _object({"start": NUMBER, "end": NUMBER, "text": TEXT, "confidence": OPTIONAL_NUMBER, "words": _array(WORD)})
TRANSCRIPT = _object(
    {
        "recording": TEXT,
        "seconds": NUMBER,
        "channel": {"type": ["integer", "null"]},
        "method": TEXT,
        "text": TEXT,
        "segments": _array(SEGMENT),
        "asrtool": TEXT,
    }
)
OPENAI_TRANSCRIPT = _object(
    {"text": TEXT},
    task=TEXT,
    language=TEXT,
    duration=NUMBER,
    usage=_object({"type": TEXT, "seconds": NUMBER}),
    segments=_array({"type": "object"}),
    words=_array(_object({"word": TEXT, "start": NUMBER, "end": NUMBER})),
)
LIMITS = _object({"max_streams": NUMBER, "max_minutes": NUMBER, "max_upload_mb": NUMBER, "max_upload_minutes": NUMBER})
MODEL = _object(
    {
        "name": TEXT,
        "method": TEXT,
        "units": TEXT,
        "sampling_rate": {"type": "integer"},
        "streams": {"type": "boolean"},
        "no_streams": {"type": ["string", "null"]},
        "uploads": {"type": "boolean"},
        "chunk_seconds": OPTIONAL_NUMBER,
        "latency_seconds": OPTIONAL_NUMBER,
        "hotwords": {"type": "boolean"},
        "keeps_audio": {"type": "boolean"},
        "limits": {"$ref": "#/components/schemas/Limits"},
    }
)
OPENAI_MODEL = _object({"id": TEXT, "object": TEXT, "created": {"type": "integer"}, "owned_by": TEXT})
SCHEMAS = {
    "Error": ERROR,
    "Transcript": TRANSCRIPT,
    "OpenAITranscript": OPENAI_TRANSCRIPT,
    "Limits": LIMITS,
    "Model": MODEL,
    "OpenAIModel": OPENAI_MODEL,
}
REASONS = {
    "400": "The request is malformed.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from a web page of another server, or is for another host.",
    "404": "The server has nothing of this name; with --upload-workers 0, also no uploads.",
    "408": "The body did not arrive in time.",
    "413": "The upload has too many bytes, or too much audio.",
    "415": "The upload is not audio that can be recognised.",
    "422": "A parameter has a value that is not possible.",
    "500": "The recognition failed.",
    "503": "Too many uploads wait, or the server starts or ends; Retry-After says when to come back.",
}
UPLOAD_ERRORS = tuple(REASONS)


def schema() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "asrtool serve", "version": asrtool.__version__},
        "paths": _paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _paths() -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": TEXT}
    return {
        "/health": {"get": _operation("Whether the server lives", {JSON: _object({"status": TEXT})})},
        "/ready": {"get": _operation("Whether streams are accepted", {JSON: _object({"status": TEXT})}, "503")},
        "/metrics": {"get": _operation("Metrics in Prometheus' text format", {"text/plain": TEXT}, "401")},
        "/v1/model": {"get": _operation("The model and the limits", {JSON: _reference("Model")}, "401")},
        "/v1/models": {
            "get": _operation(
                "The model, as OpenAI lists it",
                {JSON: _object({"object": TEXT, "data": _array(_reference("OpenAIModel"))})},
                "401",
            )
        },
        "/v1/models/{name}": {
            "get": _operation("One model", {JSON: _reference("OpenAIModel")}, "401", "404") | {"parameters": [name]}
        },
        "/v1/transcribe": {"post": _transcribe()},
        "/v1/audio/transcriptions": {"post": _openai_transcribe()},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(summary: str, content: dict[str, Any], *errors: str) -> dict[str, Any]:
    """Returns an operation that answers 200 with one of the media types of `content`."""
    answers: dict[str, Any] = {
        "200": {"description": summary, "content": {name: {"schema": tree} for name, tree in content.items()}}
    }
    for status in {"403": None, **dict.fromkeys(errors)}:  # any request may come from another web page
        error = {"description": REASONS[status], "content": {JSON: {"schema": _reference("Error")}}}
        answers[status] = error
    return {"summary": summary, "responses": answers}


def _transcribe() -> dict[str, Any]:
    contents: dict[str, Any] = {name.partition(";")[0]: TEXT for name in MEDIA_TYPES.values()}
    contents[JSON] = _reference("Transcript")
    channel = {"anyOf": [{"const": "mix"}, {"type": "integer", "minimum": 0, "maximum": MAX_CHANNEL}]}
    parameters = [
        _query("format", {"enum": list(MEDIA_TYPES), "default": "json"}, "The format of the answer"),
        _query("channel", channel, "The channel to recognise, from 0 on, or the mean of all"),
        _query("name", TEXT, "The name of the file, for the answer"),
    ]
    form = _object(
        {"file": {"type": "string", "format": "binary"}}, **{each["name"]: each["schema"] for each in parameters}
    )
    body = {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": form},
        },
    }
    summary = "The words of an audio file, as `asrtool transcribe` writes them"
    return _operation(summary, contents, *UPLOAD_ERRORS) | {"parameters": parameters, "requestBody": body}


def _query(name: str, tree: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": tree, "description": text}


def _openai_transcribe() -> dict[str, Any]:
    form = _object(
        {"file": {"type": "string", "format": "binary"}},
        model=TEXT,
        language=TEXT,
        prompt=TEXT,
        temperature=NUMBER,
        response_format={"enum": list(FORMATS), "default": "json"},
        stream={"type": "boolean", "default": False},
        **{"timestamp_granularities[]": _array({"enum": ["word", "segment"]})},
    )
    contents: dict[str, Any] = {MEDIA_TYPES[name].partition(";")[0]: TEXT for name in FORMATS.values()}
    contents |= {JSON: _reference("OpenAITranscript"), "text/event-stream": TEXT}
    body = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return _operation("OpenAI's API for transcriptions", contents, *UPLOAD_ERRORS) | {"requestBody": body}
