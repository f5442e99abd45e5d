"""The processes of one run, as torchrun starts them, and what they tell each other.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and the address of the first machine; without it a run is
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

# In what torch says when a rank is gone
LOST = ("gloo", "Gloo", "NCCL", "onnection", "Timed out", "wait timeout", "Broken pipe")


class LostRank(AsrtoolError):
    """Another process is gone, or did not answer in time."""


class StoppedByFirst(AsrtoolError):
    """The first rank stopped, and says why."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many: in all, and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    group: Any = None  # torch's handle where these are some ranks only

    @property
    def first(self) -> bool:
        """Whether this process writes what one process must write for all."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Whether torchrun started the processes anew after one was lost."""
        return _number("TORCHELASTIC_RESTART_COUNT") > 0


ALONE = Ranks()


def this_rank() -> Ranks:
    """As torchrun says, else a run of one process. UserError where the environment has no such numbers."""
    names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
    ranks = Ranks(**{name: _number(key) for name, key in names.items() if key in os.environ})
    if not (ranks.rank < ranks.size and ranks.local_rank < ranks.local_size <= ranks.size):
        shown = ", ".join(f"{key}={os.environ[key]}" for key in names.values() if key in os.environ)
        raise UserError(
            f"the environment has {shown}, which is no process of a run; start with torchrun, or unset them"
        )
    return ranks


def _number(variable: str) -> int:
    """The number that a variable of the environment has, 0 where it is not set."""
    text = os.environ.get(variable, "0")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(
            f"the environment has {variable}={text[:30]}, which is no number; start with torchrun, or unset it"
        )
    return int(text)


@contextmanager
def connected(ranks: Ranks, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """The ranks can talk to each other inside. Who waits longer than `timeout_seconds` for another fails."""
    if ranks.size == 1:
        yield
        return
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store = meet(ranks, timeout_seconds)
        wait = timedelta(seconds=timeout_seconds)
        distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=wait)
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        first = str(error).strip().splitlines()[0][:200]
        raise LostRank(f"rank {ranks.rank} lost another one ({first}); start again with --resume") from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def meet(ranks: Ranks, timeout_seconds: float):
    """The store in which the ranks find each other, under a name that this start alone has.

    torchrun keeps one store over all its restarts, and in it the addresses of processes that are gone. The first rank
    draws a name; another takes it only when the first one, alive, has answered it under that name.
    """
    from torch import distributed

    store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(seconds=timeout_seconds)))
    mine = uuid.uuid4().hex
    if ranks.first:
        store.set("asrtool/name", mine)
        for rank in range(1, ranks.size):
            store.set(f"{mine}/{rank}/{store.get(f'{mine}/{rank}').decode()}", "met")
        return distributed.PrefixStore(mine, store)
    until = time.monotonic() + timeout_seconds
    while True:
        name = store.get("asrtool/name").decode()
        store.set(f"{name}/{ranks.rank}", mine)
        try:
            store.wait([f"{name}/{ranks.rank}/{mine}"], timedelta(seconds=1))
            return distributed.PrefixStore(name, store)
        except distributed.DistStoreError:  # the name may be of an earlier start: look again
            if time.monotonic() > until:
                raise


@contextmanager
def own_log(ranks: Ranks, folder: Path) -> Iterator[None]:
    """What ranks but the first write to stderr goes to FOLDER/rank-N.log inside; an error of their own comes out."""
    if ranks.first:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    with open(folder / f"rank-{ranks.rank}.log", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    except (StoppedByFirst, KeyboardInterrupt):
        raise  # the first one says it
    except BaseException:
        os.dup2(terminal, 2)
        raise
    finally:
        os.close(terminal)


def on_first(ranks: Ranks, work: Callable[[], Any]) -> Any:
    """What `work` returns, of plain types, done on the first rank alone and told to all. Its AsrtoolError ends all."""
    outcome = None
    if ranks.first:
        try:
            outcome = work()
        except AsrtoolError as error:
            outcome = error
    outcome = from_first(ranks, outcome)
    if isinstance(outcome, AsrtoolError):
        raise outcome if ranks.first else StoppedByFirst(str(outcome))
    return outcome


def from_first(ranks: Ranks, value: Any) -> Any:
    """The first rank's `value`, of plain types, on every rank."""
    if ranks.size == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def from_all(ranks: Ranks, value: Any) -> list[Any]:
    """Every rank's `value`, of plain types and tensors, in the order of the ranks, on every rank."""
    if ranks.size == 1:
        return [value]
    from torch import distributed

    values = [None] * ranks.size
    distributed.all_gather_object(values, value)
    return values


def total(ranks: Ranks, *numbers: float) -> list[float]:
    """The sums of `numbers` over the ranks, in float64."""
    if ranks.size == 1:
        return list(numbers)
    from torch import distributed

    sums = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(sums, group=ranks.group)
    return sums.tolist()
