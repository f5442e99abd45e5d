"""The routes of the server, and how their errors are answered."""

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asrtool.serve.access import AccessControl, AccessGuard
from asrtool.serve.errors import CODES, RequestError, error_response
from asrtool.serve.metrics import CONTENT_TYPE, Metrics
from asrtool.serve.model_info import model_endpoint
from asrtool.serve.openai_api import models_endpoint, one_model_endpoint, transcriptions_endpoint
from asrtool.serve.openapi import schema
from asrtool.serve.page import INDEX, PAGE_FILES, PAGE_HEADERS, page_file
from asrtool.serve.service import Service, service_of
from asrtool.serve.stream_socket import stream_endpoint
from asrtool.serve.transcription import transcribe_endpoint

CLIENT_LEFT = 499  # nobody reads it; the status that nginx logs


def create_application(service: Service, access: AccessControl) -> Starlette:
    """Returns the ASGI application of a service."""
    application = Starlette(
        routes=[
            Route("/", page_endpoint),
            Route("/page/{name}", page_endpoint),
            Route("/health", health_endpoint),
            Route("/ready", ready_endpoint),
            Route("/metrics", metrics_endpoint),
            Route("/openapi.json", openapi_endpoint),
            Route("/v1/model", model_endpoint),
            Route("/v1/transcribe", transcribe_endpoint, methods=["POST"]),
            Route("/v1/audio/transcriptions", transcriptions_endpoint, methods=["POST"]),
            Route("/v1/models", models_endpoint),
            Route("/v1/models/{name}", one_model_endpoint),
            WebSocketRoute("/v1/stream", stream_endpoint),
            WebSocketRoute("/{path:path}", no_stream_endpoint),
        ],
        middleware=[Middleware(RequestCounter, metrics=service.metrics), Middleware(AccessGuard, access=access)],
        exception_handlers={
            RequestError: _answer_error,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_failure,
        },
    )
    application.router.redirect_slashes = False
    application.state.service = service
    application.state.access = access
    return application


async def page_endpoint(request: Request) -> Response:
    """Serves the page, and the files that it loads."""
    name = request.path_params.get("name", INDEX)
    if name not in PAGE_FILES:
        raise RequestError("not_found", "the page has no file of this name")
    return Response(page_file(name), media_type=PAGE_FILES[name], headers=PAGE_HEADERS)


async def health_endpoint(request: Request) -> JSONResponse:
    """Answers as long as the process serves requests."""
    return JSONResponse({"status": "alive"})


async def ready_endpoint(request: Request) -> JSONResponse:
    """Answers 200 if streams and uploads are accepted, 503 while the server starts or drains."""
    service_of(request).require_ready()
    return JSONResponse({"status": "ready"})


async def metrics_endpoint(request: Request) -> Response:
    """Returns the metrics in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def openapi_endpoint(request: Request) -> JSONResponse:
    """Returns the OpenAPI schema of the HTTP routes."""
    return JSONResponse(schema())


async def no_stream_endpoint(websocket: WebSocket) -> None:
    """Refuses a WebSocket of another address."""
    error = RequestError("not_found", "WebSockets are served at /v1/stream")
    await websocket.send_denial_response(error_response(error))


def _answer_error(request: Request, error: Any) -> Response:
    return error_response(error)


def _answer_http_error(request: Request, error: Any) -> Response:
    code = CODES.get(error.status_code, "bad_request")
    response = error_response(RequestError(code, f"{error.detail}: {request.method} {request.url.path}"))
    response.headers.update(error.headers or {})
    return response


def _answer_nobody(request: Request, error: Any) -> Response:
    return Response(status_code=CLIENT_LEFT)


def _answer_failure(request: Request, error: Any) -> Response:
    return error_response(RequestError("failed", "the server failed; its log has the reason"))


class RequestCounter:
    """ASGI middleware: counts answers by their status."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        try:
            await self.app(scope, receive, count)
        except Exception:  # Starlette answers it outside of this middleware
            self.metrics.requests.labels("500").inc()
            raise
