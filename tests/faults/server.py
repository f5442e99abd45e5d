"""Forks commands of asrtool: `python3 -m tests.faults.server`, with a request, one line of JSON, for each on stdin.

{"arguments": [...], "log": FILE, "before": [NAME, [VALUE, ...]]} is answered with the number of a new process, which
calls the function NAME of limits.py first and then asrtool's `main`; {"wait": PID} with the exit status of that process
(negative: the signal), or null while it runs. The server has torch and lhotse imported, no threads, and nothing of a
test in it, so that what it forks is like a command from a shell, but starts in a tenth of a second instead of three.
"""

import atexit
import json
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

from tests.faults import limits


def serve() -> None:
    """Answers requests until stdin ends."""
    _import()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _status(request["wait"])
        else:
            answer = os.fork()
            if answer == 0:  # the child
                _run(**request)
        print(json.dumps(answer), flush=True)


def _import() -> None:
    """Imports the modules of commands once, before they are forked."""
    import kaldi_decoder  # noqa: F401
    import kaldifst  # noqa: F401

    import asrtool.cli
    import asrtool.data.loading
    import asrtool.decoding.decode
    import asrtool.training.train  # noqa: F401


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _run(arguments: list[str], log: str, before: tuple[str, list] | None) -> NoReturn:
    """Runs `asrtool ARGUMENTS`, with stdout and stderr in `log`, and at the end the peak memory in LOG.peak."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(file)
    sys.argv = ["asrtool", *arguments]
    atexit.register(lambda: Path(f"{log}.peak").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
    if before:
        getattr(limits, before[0])(*before[1])
    from asrtool.cli import main

    main()
    sys.exit(0)


if __name__ == "__main__":
    serve()
