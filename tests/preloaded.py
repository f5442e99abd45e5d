"""Runs commands of asrtool in forks of one process that has imported everything: each starts at once, not in seconds.

    python3 -m tests.preloaded serve SOCKET                    # until it is terminated
    python3 -S preloaded.py run SOCKET train conf/x.yaml ...   # as `python3 -m asrtool train conf/x.yaml ...`

The command has the working folder, the environment, the streams and the arguments of the second call, which returns its
exit status. Variables that libraries read when they are imported, such as OMP_NUM_THREADS, have the server's values.
"""

import json
import os
import socket
import sys

STREAMS = [0, 1, 2]
LONGEST_REQUEST = 1 << 16  # bytes


def serve(path: str) -> None:
    """Answers each connection by a fork that runs one command."""
    import signal

    from tests import all_imports  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks; they report their own exit status
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Runs the command of a connection, sends its exit status and ends this process."""
    request, streams, *_ = socket.recv_fds(connection, LONGEST_REQUEST, len(STREAMS))
    call = json.loads(request)
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = ["asrtool", *call["arguments"]]
    status = 70
    try:
        from asrtool.cli import main

        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


def run(path: str, arguments: list[str]) -> int:
    """Has a command run by the server at `path`; returns its exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        call = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
        request = json.dumps(call).encode()
        if len(request) > LONGEST_REQUEST:
            sys.exit(f"preloaded.py: a call of {len(request)} bytes; at most {LONGEST_REQUEST} are read")
        socket.send_fds(connection, [request], STREAMS)
        status = connection.recv(1)
        return status[0] if status else 70


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
