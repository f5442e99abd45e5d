"""What the server is started with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrtool.serve.limits import Limits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServerSettings:
    """The address, access and habits of a server.

    model: the arguments of `asrtool.load`. port: 0 takes a free one. threads: CPU threads of the model of the streams,
    and of each process of uploads. token: what clients must send, None for no token. origins: web pages of other
    servers that may use this one, as browsers send them, such as https://example.org. drain_seconds: how long running
    streams may go on after SIGTERM. keep_audio: the folder that all audio is stored in; None stores nothing.
    """

    model: dict[str, Any]
    host: str = "127.0.0.1"
    port: int = 8750
    threads: int | None = None
    token: str | None = None
    origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain_seconds: float = 30.0
    keep_audio: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """True if only programs on this machine can connect."""
        return self.host in LOOPBACK

    def url(self, port: int) -> str:
        """Returns the address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{port}"
