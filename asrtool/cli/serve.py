"""`asrtool serve`."""

from typing import Any
from urllib.parse import urlsplit

import click

from asrtool.cli.options import (
    JOBS,
    PATH,
    Number,
    add_options,
    checkpoint_option,
    device_option,
    precision_option,
    threads_option,
)
from asrtool.cli.search_options import (
    METHOD,
    graph_option,
    graph_search_options,
    hotwords_option,
    lattice_search_options,
    no_rescore_option,
    prefix_search_options,
    serving_beam_option,
)
from asrtool.cli.transcribe import VADS
from asrtool.serve.limits import Limits, with_changes

PORT = click.IntRange(0, 65535)
WORKERS = click.IntRange(0, 64)
CLIENTS = click.IntRange(1, 1_000_000)
SECONDS = Number(0, 1e8, minimum_open=True)
MINUTES = Number(0, 1e6, minimum_open=True)
SIZE = Number(0, 1e6, minimum_open=True)  # in MB or GB
MB = 1 << 20
GB = 1 << 30
DEFAULT_PORTS = {"http": 80, "https": 443}  # which browsers leave out of an origin


class Origin(click.ParamType):
    """The origin of web pages, as browsers send it: scheme, host, and a port other than the default one."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """Returns the origin in lower case; fails with a usage error for anything else."""
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
            name = (host or "").encode("ascii" if ":" in (host or "") else "idna").decode("ascii")
        except ValueError:
            name, parts, port = "", urlsplit(""), None
        has_more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in DEFAULT_PORTS or not name or has_more or not value.isprintable() or " " in value:
            hint = "give a scheme and a host, and no path, such as https://example.org or http://10.0.0.5:8080"
            self.fail(f"{value!r} is not the origin of web pages; {hint}", param, context)
        shown = f"[{name}]" if ":" in name else name
        return f"{parts.scheme}://{shown}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


address_options = add_options(
    click.option(
        "--host", default="127.0.0.1", help="Address to listen on; with 0.0.0.0 every network, so give a token."
    ),
    click.option("--port", default=8750, type=PORT, help="Port to listen on; 0 takes a free one."),
    click.option(
        "--token-file", type=PATH, show_default="no token", help="File with the token that clients must send."
    ),
    click.option(
        "--tls-cert", type=PATH, show_default="no TLS", help="Certificate for TLS, with its chain, in PEM format."
    ),
    click.option(
        "--tls-key",
        type=PATH,
        show_default="no TLS",
        help="Private key of --tls-cert, in PEM format, without a password.",
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        type=Origin(),
        metavar="URL",
        show_default="web pages of this server only",
        help="Origin of web pages that may use the server, such as https://example.org, also the address of a "
        "reverse proxy; repeatable.",
    ),
)
limit_options = add_options(
    click.option(
        "--max-streams", default=Limits.max_streams, type=CLIENTS, help="Largest number of live streams at a time."
    ),
    click.option(
        "--max-stream-minutes",
        default=Limits.max_stream_seconds / 60,
        type=MINUTES,
        help="Longest live stream in minutes.",
    ),
    click.option(
        "--idle-seconds",
        default=Limits.idle_seconds,
        type=SECONDS,
        help="Time without audio after which a live stream ends.",
    ),
    click.option(
        "--upload-workers",
        default=Limits.upload_workers,
        type=WORKERS,
        help="Number of uploads recognised at a time, each by a process with a model of its own; 0 takes no uploads.",
    ),
    click.option(
        "--max-queued-uploads",
        default=Limits.max_queued_uploads,
        type=click.IntRange(0, 1_000_000),
        help="Largest number of uploads that wait.",
    ),
    click.option(
        "--max-upload-mb",
        default=Limits.max_upload_bytes / MB,
        type=SIZE,
        help="Largest upload in MB (2^20 bytes).",
    ),
    click.option(
        "--max-upload-minutes",
        default=Limits.max_upload_seconds / 60,
        type=MINUTES,
        help="Longest audio of an upload in minutes.",
    ),
    click.option(
        "--max-connections",
        default=Limits.max_connections,
        type=CLIENTS,
        help="Largest number of open connections.",
    ),
    click.option(
        "--limit",
        "changes",
        multiple=True,
        metavar="NAME=VALUE",
        help="Change of any limit, such as body_seconds=60; repeatable. docs/serving.md lists them.",
    ),
)
running_options = add_options(
    click.option(
        "--drain-seconds", default=30.0, type=Number(0, 1e8), help="Time for running streams to end after SIGTERM."
    ),
    click.option(
        "--keep-audio",
        type=PATH,
        show_default="nothing is stored",
        help="Folder that all audio and its results are stored in; if it is new, only its owner may read it.",
    ),
    click.option(
        "--max-kept-gb",
        default=Limits.max_kept_bytes / GB,
        type=SIZE,
        help="Largest size of the folder of --keep-audio in GB (2^30 bytes).",
    ),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of the log lines."),
)


@click.command()
@click.argument("model", type=PATH)
@address_options
@limit_options
@running_options
@click.option("--method", type=METHOD, show_default="the best that MODEL has the files for", help="Search method.")
@serving_beam_option
@prefix_search_options
@graph_option
@graph_search_options
@lattice_search_options
@no_rescore_option
@hotwords_option
@click.option("--jobs", default=1, type=JOBS, help="Number of processes. Uploads are searched in them.")
@click.option(
    "--vad",
    type=VADS,
    default="auto",
    help="Speech detector. Uploads are cut at its pauses, as in `asrtool transcribe`.",
)
@checkpoint_option()
@device_option()
@precision_option("fp32")
@threads_option()
def serve(
    model, host, port, token_file, tls_cert, tls_key, origins, max_streams, max_stream_minutes, idle_seconds,
    upload_workers, max_queued_uploads, max_upload_mb, max_upload_minutes, max_connections, changes, drain_seconds,
    keep_audio, max_kept_gb, log_format, method, jobs, vad, checkpoint, device, precision, threads, **options,
) -> None:  # fmt: skip
    """Serve live streams and uploads over WebSocket and HTTP, and a page to speak to.

    MODEL is an experiment folder or a pack. A model that cannot stream serves uploads only. The server listens on this
    machine only, unless --host says otherwise; it stores no audio, unless --keep-audio says so. SIGTERM or Ctrl-C ends
    it gracefully: running streams get --drain-seconds, a second signal ends it at once. Needs the extra `serve`:
    pip install 'asrtool[serve]'.

    The options of the server and its limits come first, then the options of the search, as in `asrtool transcribe`.
    Streams have no lattices: --lattice-beam, --rescore, --graph-lm and --no-rescore concern uploads only.

    \b
    asrtool serve exp/mine
    asrtool serve exp/mine --graph data/lang/graph --max-streams 20
    asrtool serve exp/mine --host 0.0.0.0 --token-file token.txt --tls-cert cert.pem --tls-key key.pem
    curl --data-binary @talk.mp3 'http://127.0.0.1:8750/v1/transcribe?format=srt'
    """
    from asrtool.serve.packages import require_packages

    require_packages()

    from asrtool.serve.access import read_token
    from asrtool.serve.json_logs import set_log_format
    from asrtool.serve.server import run_server
    from asrtool.serve.settings import ServerSettings

    limits = Limits(
        max_streams=max_streams,
        max_stream_seconds=60 * max_stream_minutes,
        idle_seconds=idle_seconds,
        upload_workers=upload_workers,
        max_queued_uploads=max_queued_uploads,
        max_upload_bytes=int(max_upload_mb * MB),
        max_upload_seconds=60 * max_upload_minutes,
        max_connections=max_connections,
        max_kept_bytes=int(max_kept_gb * GB),
    )
    given = {name: value for name, value in options.items() if value is not None}
    set_log_format(log_format)
    settings = ServerSettings(
        model={"path": model, "method": method, "jobs": jobs, "vad": vad, "checkpoint": checkpoint}
        | {"device": device, "precision": precision}
        | given,
        host=host,
        port=port,
        threads=threads,
        token=read_token(token_file) if token_file else None,
        origins=origins,
        tls_cert=tls_cert,
        tls_key=tls_key,
        drain_seconds=drain_seconds,
        keep_audio=keep_audio,
        limits=with_changes(limits, changes),
    )
    run_server(settings, lambda running: click.echo(f"listening on {running.url}"))
