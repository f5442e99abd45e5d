"""The processes of one run, as torchrun starts them, and what they tell each other.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and the address of the first machine; without it a run is
one process, and everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many: in all, and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what one process must write for all."""
        return self.rank == 0


ALONE = Ranks()


def this_rank() -> Ranks:
    """As torchrun says, else a run of one process."""
    names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
    return Ranks(**{name: int(os.environ[key]) for name, key in names.items() if key in os.environ})


@contextmanager
def connected(ranks: Ranks, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """The ranks can talk to each other inside. Who waits longer than `timeout_seconds` for another fails."""
    if ranks.size == 1:
        yield
        return
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield
    finally:
        distributed.destroy_process_group()


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
    distributed.all_reduce(sums)
    return sums.tolist()
