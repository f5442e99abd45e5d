"""GET /v1/model: what the server recognises with, and what clients may use."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from asrtool.serve.service import Service, service_of


async def model_endpoint(request: Request) -> JSONResponse:
    """Describes the model and the limits."""
    return JSONResponse(describe_model(service_of(request)))


def describe_model(service: Service) -> dict[str, Any]:
    """Returns the answer of /v1/model."""
    model, limits = service.model, service.limits
    return {
        "name": service.name,
        "method": model.method,
        "units": model.experiment.tokenizer.output_type,
        "sampling_rate": model.sampling_rate,
        "streams": service.engine is not None,
        "no_streams": service.no_streams or None,
        "uploads": limits.upload_workers > 0,
        "chunk_seconds": service.timing.chunk_seconds if service.timing else None,
        "latency_seconds": service.timing.latency_seconds if service.timing else None,
        "hotwords": service.engine is not None and service.engine.takes_hotwords,
        "keeps_audio": service.keeper.folder is not None,
        "limits": {
            "max_streams": limits.max_streams,
            "max_minutes": limits.max_stream_seconds / 60,
            "max_upload_mb": limits.max_upload_bytes / (1 << 20),
            "max_upload_minutes": limits.max_upload_seconds / 60,
        },
    }
