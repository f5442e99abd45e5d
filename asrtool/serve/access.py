"""Who may use the server: a token, the Origin of web pages, the Host, and the headers of all answers."""

import hmac
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asrtool.errors import UserError, require_file
from asrtool.serve.errors import RequestError, error_response
from asrtool.serve.settings import LOOPBACK

SUBPROTOCOL = "asrtool"  # browsers cannot set headers: a token is a further subprotocol, asrtool.token.TOKEN
TOKEN_SUBPROTOCOL = "asrtool.token."
TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,512}")  # what a subprotocol may have (RFC 6455, section 4.1); 96 random bits
MAX_TOKEN_BYTES = 4096
NEEDS_TOKEN = ("/v1/", "/metrics")
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def read_token(path: Path) -> str:
    """Returns the token in a file. Raises UserError for a file that has none."""
    hint = "write one with `openssl rand -hex 32 >FILE`"
    require_file(path, "token file", hint)
    with path.open("rb") as file:
        text = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    if not TOKEN.fullmatch(text):
        raise UserError(f"{path} has no token: 16 to 512 letters, digits and . _ ~ - in one line; {hint}")
    return text


def given_token(scope: Scope) -> str | None:
    """Returns the token of a request: of its Authorization, or, for WebSockets, of a subprotocol."""
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for name in scope.get("subprotocols", ()):
        if name.startswith(TOKEN_SUBPROTOCOL):
            return str(name.removeprefix(TOKEN_SUBPROTOCOL))
    return None


class AccessControl:
    """The token, and the web pages and names of this server that requests may come from and be for.

    Without a token, a server on the loopback answers only under its own names: a web page whose name resolves to
    127.0.0.1 (DNS rebinding) is the same origin to its browser. `origins` are in lower case, as browsers send them.
    """

    def __init__(self, token: str | None, origins: Sequence[str], is_local: bool):
        self._token = token
        self._origins = set(origins)
        known = {*LOOPBACK, *(urlsplit(origin).hostname for origin in origins)}
        self._hosts = known if is_local and token is None else None

    def require_token(self, scope: Scope) -> None:
        """Raises RequestError unless the request has the token, compared in constant time."""
        if self._token is None:
            return
        given = given_token(scope)
        if given is None:
            raise RequestError("unauthorized", "this server needs a token: send Authorization: Bearer TOKEN")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            raise RequestError("unauthorized", "the token is not the server's")

    def require_origin(self, scope: Scope) -> None:
        """Raises RequestError for a web page of another server, and for a Host that is not this server's."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            raise RequestError("forbidden", "the Host of the request is not this server's; see --allow-origin")
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if _origin_host(origin) != host.lower():
            raise RequestError("forbidden", "web pages of other servers may not use this one; see --allow-origin")


def _origin_host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # such as a bracket that is not closed
        return None


class AccessGuard:
    """ASGI middleware: refuses requests by their Origin and token, and adds the headers of all answers.

    The token of a WebSocket is checked by its endpoint, since a browser learns nothing from a refused handshake.
    """

    def __init__(self, app: ASGIApp, access: AccessControl):
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self.access.require_origin(scope)
            if scope["type"] == "http" and scope["path"].startswith(NEEDS_TOKEN):
                self.access.require_token(scope)
        except RequestError as error:
            await _refuse(error, scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)


async def _refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    await error_response(error)(scope, receive, send)
