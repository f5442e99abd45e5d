"""Several processes that know their rank, without Python's start for each."""

import multiprocessing
import os
import socket
from collections.abc import Callable

SECONDS = 100  # for all of it; a rank that waits for another one in vain is a failure, not a hang

# Forked from a process that has imported everything and done nothing: a fork of one that has trained may hang.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["asrtool.training.train", "torch.utils.tensorboard", __name__])


def run_on_ranks(size: int, work: Callable, *arguments) -> list:
    """What `work` returns on each rank: plain types or arrays. What goes wrong in one is raised here, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = context.Queue()
    processes = [context.Process(target=_as_rank, args=(r, size, port, queue, work, arguments)) for r in range(size)]
    for process in processes:
        process.start()
    try:
        results = dict(queue.get(timeout=SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[rank] for rank in range(size)]


def _as_rank(rank: int, size: int, port: int, queue, work: Callable, arguments: tuple) -> None:
    import asrtool.data.statistics
    import asrtool.training.train

    asrtool.data.statistics.STATISTICS_SECONDS = 30.0
    asrtool.training.train.plot_losses = lambda *_: None
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    try:
        queue.put((rank, work(*arguments)))
    except BaseException as error:
        queue.put((rank, error))
