"""What this process may use of the machine: cores, memory and the processor's instructions.

A container may allow less than the machine has: its control groups limit cores and memory. This module imports neither
torch nor any other part of asrtool.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")
NO_LIMIT_BYTES = 2**60  # version 1 of control groups writes a number above this for "no limit"


def affinity_cores() -> int:
    """Returns the number of cores that this process may run on, without the limit of a container."""
    return len(os.sched_getaffinity(0))


def share_of_cores(cores: Sequence[int], number: int, count: int) -> set[int]:
    """Returns the cores of process `number` of `count` that share `cores`; all of them where there is not one for each.

    Each process has a run of neighbours, which often share a cache.
    """
    in_order = sorted(cores)
    if len(in_order) < count:
        return set(in_order)
    return set(in_order[number * len(in_order) // count : (number + 1) * len(in_order) // count])


def pin_to_cores(cores: set[int]) -> None:
    """Lets all threads of this process, and those and the processes that they start, run on these cores alone."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


def usable_cores(root: Path = CONTROL_GROUPS) -> int:
    """Returns the number of cores that this process can keep busy, at least 1: a container may limit its CPU time."""
    limit = container_cores(root)
    return affinity_cores() if limit is None else max(1, min(affinity_cores(), int(limit)))


def total_memory() -> int:
    """Returns the bytes of main memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory() -> int:
    """Returns the bytes of main memory that new data may take, caches that the system can give up included."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def usable_memory(root: Path = CONTROL_GROUPS) -> int:
    """Returns the bytes of main memory that this process and its children may use."""
    limit = container_memory(root)
    return total_memory() if limit is None else min(total_memory(), limit)


def container_cores(root: Path = CONTROL_GROUPS) -> float | None:
    """Returns the CPU limit of the container in cores, of control groups version 2 or 1; None without a limit."""
    quota, _, period = _read(root / "cpu.max").partition(" ")  # version 2: "QUOTA PERIOD" or "max PERIOD"
    if not period:
        quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return int(quota) / int(period)
    return None


def container_memory(root: Path = CONTROL_GROUPS) -> int | None:
    """Returns the memory limit of the container in bytes, of control groups version 2 or 1; None without a limit."""
    text = _read(root / "memory.max") or _read(root / "memory/memory.limit_in_bytes")
    return int(text) if text.isdecimal() and int(text) < NO_LIMIT_BYTES else None


def cpu_name(path: Path = CPU_INFO) -> str:
    """Returns the model of the processor; "CPU" where the system does not say."""
    return _cpu_field("model name", path) or "CPU"


def cpu_flags(path: Path = CPU_INFO) -> set[str]:
    """Returns the names of the processor's instruction sets, such as "avx2"; empty where the system does not say."""
    return set(_cpu_field("flags", path).split())


def _cpu_field(name: str, path: Path) -> str:
    """Returns the first value of a field of /proc/cpuinfo; empty if there is none."""
    for line in _read(path).splitlines():
        field, _, value = line.partition(":")
        if field.strip() == name:
            return value.strip()
    return ""


def _read(path: Path) -> str:
    """Returns the text of a file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
