"""Where the server listens: its address, the files of TLS, and who could reach it."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

from asrtool.errors import UserError, require_file
from asrtool.serve.connections import abort_unread
from asrtool.serve.settings import ServerSettings

logger = logging.getLogger(__name__)


def bound_socket(settings: ServerSettings) -> socket.socket:
    """Returns a socket that has the address, and does not listen yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    abort_unread(listener, settings.limits.send_seconds)
    try:
        with address_errors(settings):
            listener.bind((settings.host, settings.port))
    except UserError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def address_errors(settings: ServerSettings) -> Iterator[None]:
    """Raises UserError for errors of the address inside.

    Another program may listen on it between bind and listen, which the system allows with SO_REUSEADDR.
    """
    try:
        yield
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "choose another --host or --port; --port 0 takes a free one"
        raise UserError(f"cannot listen on {settings.host} port {settings.port}: {reason}; {hint}") from error


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Returns the context of TLS, None without. Raises UserError for files that are not a certificate and its key."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UserError("--tls-cert and --tls-key are given together, as files in PEM format")
    require_file(cert, "certificate", "give a file in PEM format")
    require_file(key, "private key", "give a file in PEM format")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UserError(f"{cert} and {key} are not a certificate and its key in PEM format ({error})") from error
    return context


def _refuse_password() -> str:
    raise ValueError("the key has a password; decrypt it with `openssl pkey`")


def warn_if_exposed(settings: ServerSettings) -> None:
    """Logs warnings if other machines can connect without a token or without encryption."""
    if settings.is_local:
        return
    if settings.token is None:
        logger.warning(f"everybody who reaches {settings.host} can use this server; give a --token-file")
    if settings.tls_cert is None:
        logger.warning("audio and token are not encrypted; give --tls-cert and --tls-key, or use a reverse proxy")
