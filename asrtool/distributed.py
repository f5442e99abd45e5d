"""The processes ("ranks") of one run, as torchrun starts them, and how they exchange values.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and the address of the first machine. Without it a run is
one process, and everything here does nothing.
"""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from asrtool.errors import AsrtoolError, UserError
from asrtool.machine import pin_to_cores, share_of_cores

# One of these is in the message of torch when a rank is gone
LOST_RANK_SIGNS = ("gloo", "Gloo", "NCCL", "onnection", "Timed out", "wait timeout", "Broken pipe")


class LostRank(AsrtoolError):
    """Another process is gone, or did not answer in time."""


class StoppedByFirstRank(AsrtoolError):
    """The first rank stopped with an error, and reports it."""


@dataclass(frozen=True)
class Ranks:
    """The number of this process and of all processes, in the run and on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    group: Any = None  # torch's process group, where these are only some of the ranks

    @property
    def is_first(self) -> bool:
        """Returns True for the process that writes what only one process may write."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Returns True if torchrun started the processes again after one was lost."""
        return _environment_number("TORCHELASTIC_RESTART_COUNT") > 0


SINGLE_PROCESS = Ranks()


def this_rank() -> Ranks:
    """Returns the numbers that torchrun sets, or SINGLE_PROCESS without torchrun. UserError for impossible numbers."""
    variables = {
        "rank": "RANK",
        "world_size": "WORLD_SIZE",
        "local_rank": "LOCAL_RANK",
        "local_world_size": "LOCAL_WORLD_SIZE",
    }
    ranks = Ranks(**{field: _environment_number(key) for field, key in variables.items() if key in os.environ})
    if not (ranks.rank < ranks.world_size and ranks.local_rank < ranks.local_world_size <= ranks.world_size):
        shown = ", ".join(f"{key}={os.environ[key]}" for key in variables.values() if key in os.environ)
        raise UserError(
            f"the environment has {shown}, which does not describe a process of a run; start with torchrun, "
            "or unset them"
        )
    return ranks


def _environment_number(variable: str) -> int:
    """The number in an environment variable, 0 where it is not set."""
    text = os.environ.get(variable, "0")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(
            f"the environment has {variable}={text[:30]}, which is not a number; start with torchrun, or unset it"
        )
    return int(text)


@contextmanager
def process_group(ranks: Ranks, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """Connects the ranks inside. A rank that waits longer than `timeout_seconds` for another one fails."""
    if ranks.world_size == 1:
        yield
        return
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store = rendezvous(ranks, timeout_seconds)
        timeout = timedelta(seconds=timeout_seconds)
        distributed.init_process_group(
            backend, store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=timeout
        )
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST_RANK_SIGNS):
            raise
        message = str(error).strip().splitlines()[0][:200]
        raise LostRank(f"rank {ranks.rank} lost another one ({message}); start again with --resume") from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def rendezvous(ranks: Ranks, timeout_seconds: float) -> Any:
    """Returns the store in which the ranks find each other, under a prefix that is unique to this start.

    torchrun keeps one store over all its restarts, and in it the addresses of processes that are gone. The first rank
    draws a prefix; another rank uses it only when the first rank, alive, has answered it under that prefix.
    """
    from torch import distributed

    store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(seconds=timeout_seconds)))
    own_key = uuid.uuid4().hex
    if ranks.is_first:
        store.set("asrtool/prefix", own_key)
        for rank in range(1, ranks.world_size):
            answered_key = store.get(f"{own_key}/{rank}").decode()
            store.set(f"{own_key}/{rank}/{answered_key}", "answered")
        return distributed.PrefixStore(own_key, store)
    deadline = time.monotonic() + timeout_seconds
    while True:
        prefix = store.get("asrtool/prefix").decode()
        store.set(f"{prefix}/{ranks.rank}", own_key)
        try:
            store.wait([f"{prefix}/{ranks.rank}/{own_key}"], timedelta(seconds=1))
            return distributed.PrefixStore(prefix, store)
        except distributed.DistStoreError:  # the prefix may belong to an earlier start: read it again
            if time.monotonic() > deadline:
                raise


@contextmanager
def rank_log(ranks: Ranks, folder: Path) -> Iterator[None]:
    """Sends the stderr of every rank but the first to FOLDER/rank-N.log inside; a rank's own error is shown on stderr.

    The file descriptor is redirected, so that the output of libraries and of worker processes goes there, too.
    """
    if ranks.is_first:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    with open(folder / f"rank-{ranks.rank}.log", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    except (StoppedByFirstRank, KeyboardInterrupt):
        raise  # the first rank reports it
    except BaseException:
        os.dup2(terminal, 2)
        raise
    finally:
        os.close(terminal)


def on_first_rank(ranks: Ranks, work: Callable[[], Any]) -> Any:
    """Runs `work` on the first rank only and returns its result, of plain types, on every rank.

    An AsrtoolError of `work` ends every rank: the others raise StoppedByFirstRank.
    """
    outcome = None
    if ranks.is_first:
        try:
            outcome = work()
        except AsrtoolError as error:
            outcome = error
    outcome = broadcast_from_first(ranks, outcome)
    if isinstance(outcome, AsrtoolError):
        raise outcome if ranks.is_first else StoppedByFirstRank(str(outcome))
    return outcome


def broadcast_from_first(ranks: Ranks, value: Any) -> Any:
    """Returns the first rank's `value`, of plain types, on every rank."""
    if ranks.world_size == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather_from_all(ranks: Ranks, value: Any) -> list[Any]:
    """Returns every rank's `value`, of plain types and tensors, in the order of the ranks, on every rank."""
    if ranks.world_size == 1:
        return [value]
    from torch import distributed

    values = [None] * ranks.world_size
    distributed.all_gather_object(values, value)
    return values


def pin_local_ranks(ranks: Ranks, device: torch.device) -> None:
    """Gives each rank of a machine its own share of the cores, where they compute on the CPU. Called on all ranks.

    Without it, the system moves threads from core to core, and two ranks meet on one of them. Nothing is changed where
    the ranks have been given different cores already, or where there are fewer cores than ranks. A rank that has more
    threads than cores gets as many as cores.
    """
    if ranks.local_world_size == 1 or device.type != "cpu":
        return
    cores = sorted(os.sched_getaffinity(0))
    first = ranks.rank - ranks.local_rank
    local = gather_from_all(ranks, cores)[first : first + ranks.local_world_size]
    if any(other != cores for other in local) or len(cores) < ranks.local_world_size:
        return
    share = share_of_cores(cores, ranks.local_rank, ranks.local_world_size)
    torch.set_num_threads(min(torch.get_num_threads(), len(share)))
    pin_to_cores(share)


def sum_over_ranks(ranks: Ranks, *numbers: float) -> list[float]:
    """Returns the sum of each of the `numbers` over the ranks, in float64."""
    if ranks.world_size == 1:
        return list(numbers)
    from torch import distributed

    sums = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(sums, group=ranks.group)
    return sums.tolist()
