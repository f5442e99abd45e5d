"""Starts the server, and runs it to its end."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import uvicorn

from asrtool.inference.model import load
from asrtool.serve.access import AccessControl
from asrtool.serve.application import create_application
from asrtool.serve.connections import LimitedWebSocket, ServerLoop, allow_connections, http_protocol
from asrtool.serve.ending import CLOSE_SECONDS, Ending
from asrtool.serve.listening import address_errors, bound_socket, tls_context, warn_if_exposed
from asrtool.serve.service import Service
from asrtool.serve.settings import ServerSettings
from asrtool.serve.upload_pool import UploadPool


class RunningServer(NamedTuple):
    """A server that accepts streams and uploads. Any thread may call `stop`, which does what SIGTERM does."""

    url: str
    stop: Callable[[], object]


OnReady = Callable[[RunningServer], object]


def run_server(settings: ServerSettings, on_ready: OnReady) -> None:
    """Serves until SIGTERM or SIGINT, or until the `stop` that `on_ready` is called with, once streams are accepted.

    Raises UserError for what cannot be opened: the model, the address, the files of TLS, the folder of audio.
    """
    context = tls_context(settings)
    with contextlib.closing(bound_socket(settings)) as listener:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        pool = UploadPool(settings.model, settings.threads or torch.get_num_threads(), settings.limits)
        try:
            model = load(**settings.model)
            service = Service(model, settings, pool)
        except BaseException:
            pool.close()
            raise
        with model, contextlib.closing(service):
            warn_if_exposed(settings)
            allow_connections(settings.limits)
            service.warm_up()
            with address_errors(settings):
                listener.listen()
            loop = partial(ServerLoop, settings.limits.header_seconds)
            with _frozen_objects(), asyncio.Runner(loop_factory=loop) as runner:
                runner.run(_serve(service, listener, context, on_ready))


@contextlib.contextmanager
def _frozen_objects() -> Iterator[None]:
    """Leaves the objects that exist at the beginning out of garbage collections.

    Model and modules have some 300,000, in which each full collection would look for cycles while streams wait.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class QuietServer(uvicorn.Server):
    """uvicorn's server, whose signals are handled here: it would close running streams at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals as they are."""
        yield


def _uvicorn_config(service: Service, context: ssl.SSLContext | None) -> uvicorn.Config:
    settings, limits = service.settings, service.limits
    access = AccessControl(settings.token, settings.origins, settings.is_local)
    return uvicorn.Config(
        create_application(service, access),
        loop="asyncio",
        http=http_protocol(limits),
        ws=LimitedWebSocket,
        ws_max_size=limits.max_message_bytes,
        ws_ping_interval=20.0,  # keeps connections through proxies
        ws_ping_timeout=None,  # while a client is far ahead, its pong waits behind its audio
        ws_per_message_deflate=False,  # audio is not compressible, and a bomb is
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ssl_context_factory=(lambda _config, _default: context) if context else None,
    )


async def _serve(service: Service, listener: socket.socket, context: ssl.SSLContext | None, on_ready: OnReady) -> None:
    server = QuietServer(_uvicorn_config(service, context))
    service.connections = server.server_state.connections
    ending = Ending(service, server)
    loop = asyncio.get_running_loop()
    with ending.handled_signals():
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await _until_ready(service, serving)
            if not service.is_draining:
                url = service.settings.url(listener.getsockname()[1])
                on_ready(RunningServer(url, partial(loop.call_soon_threadsafe, ending.handle)))
            await serving
        except BaseException:
            server.should_exit = server.force_exit = True
            raise
        finally:
            await asyncio.gather(serving, return_exceptions=True)


async def _until_ready(service: Service, serving: "asyncio.Task[None]") -> None:
    """Waits for the processes of uploads, or for the end of the server."""
    starting = asyncio.create_task(service.pool.start())
    await asyncio.wait((starting, serving), return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and not service.is_draining:
        starting.result()
