"""Search processes: the searches of streams beside the steps of the model."""

import gc
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from asrtool.errors import UserError
from asrtool.forking import fork_context
from asrtool.interrupts import init_worker, sigterm_held
from asrtool.live.stream_searches import SearchReply, SearchTask, StreamSearches

END_SECONDS = 2.0  # until a process that was asked to end is killed
MESSAGE_TASKS = 1000  # tasks in a message to a process, at most

OnReply = Callable[["SearchProcess", SearchReply | None], None]


class SearchProcess:
    """A forked process that runs the tasks of its streams; the graph is shared with the parent process.

    kaldi-decoder does not release Python's lock, so that threads would search one after the other, and stop the model's
    steps meanwhile. `on_reply` is called in a thread of its own with each reply, and with None after the process ended.
    """

    def __init__(self, searches: StreamSearches, on_reply: OnReply):
        self.streams: set[int] = set()
        context = fork_context()
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(searches, other), name="asrtool search")
        with sigterm_held():
            self._process.start()
        other.close()
        self._tasks: queue.SimpleQueue[SearchTask | int | None] = queue.SimpleQueue()
        self._on_reply = on_reply
        for target in (self._send, self._receive):
            threading.Thread(target=target, name="asrtool search messages", daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None  # it was started
        return self._process.pid

    def submit(self, task: SearchTask | int) -> None:
        """Sends a task, or the number of a stream to forget. It does not wait."""
        self._tasks.put(task)

    def close(self) -> None:
        """Ends the process."""
        self._tasks.put(None)
        self._process.join(END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self) -> None:
        """Sends what waits, several tasks in a message."""
        try:
            while True:
                tasks = [self._tasks.get()]
                while len(tasks) < MESSAGE_TASKS and not self._tasks.empty():
                    tasks.append(self._tasks.get())
                self._connection.send_bytes(pickle.dumps(tasks, protocol=pickle.HIGHEST_PROTOCOL))
                if None in tasks:
                    return
        except OSError:  # the process has ended; `_receive` reports it
            return

    def _receive(self) -> None:
        try:
            while True:
                self._on_reply(self, self._connection.recv())
        except (EOFError, OSError):
            self._process.join()
            self._connection.close()
            self._on_reply(self, None)


def process_ended() -> UserError:
    """Returns the error of the streams whose search process has ended."""
    return UserError("the search process of this stream was killed, for memory perhaps; start the stream again")


def _serve(searches: StreamSearches, connection: Connection) -> None:
    """Runs the tasks of the parent process until it closes the connection."""
    _leave_parent(connection.fileno())
    try:
        while True:
            for task in pickle.loads(connection.recv_bytes()):
                if task is None:
                    return
                if isinstance(task, int):
                    searches.forget(task)
                else:
                    connection.send_bytes(_pickled(searches.run(task)))
    except (EOFError, OSError):  # the parent process has ended
        return


def _pickled(reply: SearchReply) -> bytes:
    """Returns a reply as bytes; an exception that cannot be pickled becomes one that can."""
    try:
        data = pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL)
        if reply.error:
            pickle.loads(data)  # some exceptions cannot be created again
        return data
    except Exception:
        error = RuntimeError(f"{type(reply.error).__name__}: {reply.error}")
        return pickle.dumps(SearchReply(reply.number, error=error), protocol=pickle.HIGHEST_PROTOCOL)


def _leave_parent(connection: int) -> None:
    """Gives back what a forked process has of its parent: signals, files, sockets of a server, threads of torch."""
    import torch

    signal.set_wakeup_fd(-1)
    init_worker(ends_on_sigterm=False)
    os.closerange(3, connection)
    os.closerange(connection + 1, os.sysconf("SC_OPEN_MAX"))
    torch.set_num_threads(1)
    gc.freeze()  # so that collections do not touch, and copy, what is shared
