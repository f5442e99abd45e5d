"""The speed of several training processes at once on this machine's CPU, which share caches, memory and its clock."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from asrtool.distributed import Ranks, pin_local_ranks
from asrtool.errors import AsrtoolError
from asrtool.interrupts import init_worker
from asrtool.planning.communication import ring_bytes

ALL_REDUCES = 5  # that are timed, after one that is not


class ProcessSpeed(NamedTuple):
    """What a process reaches while the others work, too."""

    speed: float  # what `work` returns
    link: float  # bytes/s that it sends while all processes sum up a buffer


def speed_of_processes(count: int, threads: int, num_bytes: int, work: Callable[[], float]) -> ProcessSpeed:
    """Runs `work`, which measures a speed, in `count` processes at once; returns the means of all processes.

    Then the processes sum up a buffer of `num_bytes` with gloo, as ddp does with the gradients. `work` is pickled.
    """
    context = multiprocessing.get_context("spawn")
    initializer = partial(init_worker, ends_on_sigterm=True)
    with tempfile.TemporaryDirectory() as folder:
        measure = partial(_measure_rank, count, threads, num_bytes, Path(folder) / "store", work)
        try:
            with ProcessPoolExecutor(count, context, initializer) as pool:
                speeds = list(pool.map(measure, range(count)))
        except BrokenProcessPool as error:
            raise AsrtoolError("a process that measured the speed is gone; is the memory too small?") from error
    return ProcessSpeed(*(sum(values) / count for values in zip(*speeds, strict=True)))


def _measure_rank(
    count: int, threads: int, num_bytes: int, store: Path, work: Callable[[], float], rank: int
) -> ProcessSpeed:
    """What one process measures, on cores of its own as in a training. The barrier lets all of them begin at once."""
    from torch import distributed

    torch.set_num_threads(threads)
    distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=count)
    try:
        pin_local_ranks(Ranks(rank, count, rank, count), torch.device("cpu"))
        distributed.barrier()
        speed = work()
        buffer = torch.zeros(max(1, num_bytes // 4))
        distributed.all_reduce(buffer)
        start = time.monotonic()
        for _ in range(ALL_REDUCES):
            distributed.all_reduce(buffer)
        seconds = (time.monotonic() - start) / ALL_REDUCES
        return ProcessSpeed(speed, ring_bytes(num_bytes, count) / max(seconds, 1e-9))
    finally:
        distributed.destroy_process_group()
