"""What a client is told when a request is refused: a code, one line of text, a status of HTTP or WebSocket."""

from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from asrtool.errors import one_line
from asrtool.logs import printable


class Kind(NamedTuple):
    """An HTTP status, and a WebSocket close code (RFC 6455, section 7.4.1)."""

    status: int
    close: int


KINDS = {
    "bad_request": Kind(400, 1007),
    "unauthorized": Kind(401, 1008),
    "forbidden": Kind(403, 1008),
    "not_found": Kind(404, 1008),
    "method_not_allowed": Kind(405, 1008),
    "timeout": Kind(408, 1008),
    "too_large": Kind(413, 1009),
    "too_long": Kind(413, 1008),
    "unsupported_audio": Kind(415, 1003),
    "invalid": Kind(422, 1007),
    "idle": Kind(408, 1008),
    "slow_reader": Kind(408, 1008),
    "cannot_stream": Kind(422, 1008),
    "limit": Kind(503, 1013),
    "draining": Kind(503, 1013),
    "starting": Kind(503, 1013),
    "disk_full": Kind(503, 1013),
    "failed": Kind(500, 1011),
}
CODES = {400: "bad_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}  # of Starlette's own errors
MAX_MESSAGE = 1000  # characters


class RequestError(Exception):
    """A request is refused or ends early. code: a key of KINDS. retry_seconds: when it may succeed."""

    def __init__(self, code: str, message: str, retry_seconds: int | None = None):
        super().__init__(message)
        self.code = code
        self.message = printable(one_line(message))[:MAX_MESSAGE].encode("utf-8", "replace").decode()
        self.retry_seconds = retry_seconds

    @property
    def kind(self) -> Kind:
        """The statuses of HTTP and WebSocket."""
        return KINDS[self.code]

    def as_message(self) -> dict[str, Any]:
        """Returns the error as a message of /v1/stream."""
        tree: dict[str, Any] = {"type": "error", "code": self.code, "message": self.message}
        return tree if self.retry_seconds is None else tree | {"retry_after": self.retry_seconds}


def error_response(error: RequestError) -> JSONResponse:
    """Returns the error as an answer of HTTP, with the fields that OpenAI's clients read."""
    status = error.kind.status
    headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"code": error.code, "message": error.message, "type": kind, "param": None}
    return JSONResponse({"error": body}, status, headers)
