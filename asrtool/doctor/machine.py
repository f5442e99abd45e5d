"""Checks of the machine: cores, memory, disk, shared memory, limits of a process, and environment variables."""

import locale
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.doctor.findings import Finding, Severity
from asrtool.machine import affinity_cores, container_cores, container_memory, total_memory
from asrtool.user_cache import user_cache

GB = 1e9
LOW_MEMORY = 4 * GB  # torch and a small model take 1-2 GB in each process, the loaders some hundred MB
LOW_DISK = 5 * GB  # stored features of 100 hours take 4 GB, and a model of 38 M parameters 0.5 GB a checkpoint
LOW_TMP = 0.5 * GB  # decoding and compiling graphs put temporary files there
LOW_SHARED_MEMORY = 0.25 * GB  # loader processes pass batches of about 10 MB through it; Docker gives 64 MB
LOW_OPEN_FILES = 1024  # a loader process opens feature archives, and a socket for each tensor that it passes on
LOW_PROCESSES = 512  # each rank starts loaders, and each process starts a thread per core
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """The figures that the checks judge: bytes, numbers of cores and of files; None where there is no limit."""

    cores: int  # of the machine
    usable_cores: int  # that this process may run on (its affinity)
    core_limit: float | None  # CPU time of a container, in cores
    memory: float  # of the machine
    memory_limit: float | None  # of a container
    shared_memory: float | None  # size of /dev/shm; None: there is none
    free_disk: Mapping[str, float]  # free bytes by folder
    open_files: float | None
    processes: float | None
    encoding: str  # of the locale
    variables: Mapping[str, str] = field(default_factory=dict)  # the environment
    unwritable: tuple[str, ...] = ()  # folders that cannot be written to

    @property
    def cpu(self) -> float:
        """The number of cores that this process can keep busy."""
        return min(self.usable_cores, self.core_limit or self.usable_cores)

    @property
    def usable_memory(self) -> float:
        """The bytes of memory that this process and its children can use."""
        return min(self.memory, self.memory_limit or self.memory)


def measure_machine(work: Path) -> Machine:
    """Returns the figures of this machine, with the disk of the folder `work` and of the temporary folder."""
    folders = {str(work): work, tempfile.gettempdir(): Path(tempfile.gettempdir())}
    needed = [*folders.values(), *filter(None, [user_cache()])]
    shared_memory = Path("/dev/shm")
    return Machine(
        cores=os.cpu_count() or 1,
        usable_cores=affinity_cores(),
        core_limit=container_cores(),
        memory=total_memory(),
        memory_limit=container_memory(),
        shared_memory=shutil.disk_usage(shared_memory).total if shared_memory.is_dir() else None,
        free_disk={name: shutil.disk_usage(folder).free for name, folder in folders.items()},
        open_files=_limit(resource.RLIMIT_NOFILE),
        processes=_limit(resource.RLIMIT_NPROC),
        encoding=locale.nl_langinfo(locale.CODESET),
        variables=dict(os.environ),
        unwritable=tuple(str(folder) for folder in needed if not is_writable(folder)),
    )


def is_writable(folder: Path) -> bool:
    """Returns True if files can be created in `folder`, or it can be created."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return False
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_machine(machine: Machine) -> Iterator[Finding]:
    """Yields the findings about a machine."""
    yield from check_cpu(machine)
    yield from check_memory(machine)
    yield from check_disk(machine)
    yield from check_limits(machine)
    yield from check_locale(machine)


def check_cpu(machine: Machine) -> Iterator[Finding]:
    """Yields findings about the cores, and about the numbers of threads that environment variables ask for."""
    if machine.core_limit is not None and machine.core_limit < machine.usable_cores:
        cause = f"the container may use {machine.core_limit:g} cores, and programs see {machine.usable_cores}"
        cores = max(1, int(machine.core_limit))
        remedy = f"export OMP_NUM_THREADS={cores}, and give --jobs {cores} and --threads {cores}"
        if machine.variables.get("OMP_NUM_THREADS") != str(cores):
            yield Finding("core-limit", Severity.WARNING, "CPU", cause, remedy)
    for name in THREAD_VARIABLES:
        yield from _check_threads(name, machine.variables.get(name), machine)


def _check_threads(name: str, value: str | None, machine: Machine) -> Iterator[Finding]:
    if value is None:
        return
    if not value.isdecimal() or int(value) < 1:
        cause = f"{name}={value!r} is not a number of threads"
        yield Finding("thread-variable", Severity.WARNING, name, cause, f"unset {name}")
    elif int(value) > machine.cpu:
        cause = f"{name}={value}, and this process can use {machine.cpu:g} cores: threads wait for each other"
        yield Finding("thread-variable", Severity.WARNING, name, cause, f"export {name}={max(1, int(machine.cpu))}")
    elif int(value) == 1 < machine.cpu and "WORLD_SIZE" not in machine.variables:  # torchrun sets it to 1 itself
        cause = f"{name}=1, and this process can use {machine.cpu:g} cores"
        yield Finding("thread-variable", Severity.NOTE, name, cause, f"unset {name}, unless other work needs the cores")


def check_memory(machine: Machine) -> Iterator[Finding]:
    """Yields a warning for little memory."""
    if machine.usable_memory < LOW_MEMORY:
        origin = "the container's limit" if machine.usable_memory < machine.memory else "the memory of the machine"
        cause = f"{origin} is {machine.usable_memory / GB:.1f} GB; training needs about {LOW_MEMORY / GB:.0f} GB"
        remedy = "raise the limit, or lower data.batch_seconds and data.workers"
        yield Finding("low-memory", Severity.WARNING, "memory", cause, remedy)


def check_disk(machine: Machine) -> Iterator[Finding]:
    """Yields findings about full disks, folders that cannot be written, and a small /dev/shm."""
    temporary = tempfile.gettempdir()
    for folder, free in machine.free_disk.items():
        needed = LOW_TMP if folder == temporary else LOW_DISK
        if free < needed:
            remedy = (
                "export TMPDIR=ANOTHER_FOLDER" if folder == temporary else "free some space, or give another --work"
            )
            cause = f"{free / GB:.2f} GB are free; {needed / GB:g} GB are advisable"
            yield Finding("low-disk", Severity.WARNING, folder, cause, remedy)
    for folder in machine.unwritable:
        severity = Severity.WARNING if folder == str(user_cache()) else Severity.ERROR
        remedy = "export XDG_CACHE_HOME=ANOTHER_FOLDER" if severity is Severity.WARNING else "give another folder"
        yield Finding("unwritable-folder", severity, folder, "files cannot be created in this folder", remedy)
    if machine.shared_memory is None or machine.shared_memory < LOW_SHARED_MEMORY:
        size = "there is none" if machine.shared_memory is None else f"it has {machine.shared_memory / 1e6:.0f} MB"
        cause = f"{size}; loader processes and NCCL pass data through it, and stop when it is full"
        remedy = "start the container with --shm-size=8g (or --ipc=host), or set data.workers=0"
        yield Finding("small-shared-memory", Severity.WARNING, "/dev/shm", cause, remedy)


def check_limits(machine: Machine) -> Iterator[Finding]:
    """Yields warnings for low limits of a process (`ulimit`)."""
    if machine.open_files is not None and machine.open_files < LOW_OPEN_FILES:
        cause = f"a process may open {machine.open_files:.0f} files; loaders need more"
        yield Finding("open-files", Severity.WARNING, "ulimit -n", cause, f"ulimit -n {LOW_OPEN_FILES * 4}")
    if machine.processes is not None and machine.processes < LOW_PROCESSES:
        cause = f"the user may run {machine.processes:.0f} processes and threads; ranks and loaders need more"
        yield Finding("process-limit", Severity.WARNING, "ulimit -u", cause, f"ulimit -u {LOW_PROCESSES * 8}")


def check_locale(machine: Machine) -> Iterator[Finding]:
    """Yields a warning if the locale is not UTF-8: tools besides asrtool then read transcripts in another encoding."""
    if machine.encoding.lower().replace("-", "") != "utf8":
        cause = f"the encoding is {machine.encoding}; sort, awk and other tools of recipes may damage transcripts"
        yield Finding("locale", Severity.WARNING, "locale", cause, "export LC_ALL=C.UTF-8")
    if machine.variables.get("PYTHONIOENCODING", "utf-8").partition(":")[0].lower().replace("-", "") != "utf8":
        value = machine.variables["PYTHONIOENCODING"]
        cause = f"PYTHONIOENCODING={value}: names outside of that encoding cannot be printed"
        yield Finding("locale", Severity.WARNING, "PYTHONIOENCODING", cause, "unset PYTHONIOENCODING")


def machine_facts(machine: Machine) -> dict[str, object]:
    """Returns the figures for the report."""
    limit = "" if machine.core_limit is None else f", container limit {machine.core_limit:g}"
    memory_limit = "" if machine.memory_limit is None else f", container limit {machine.memory_limit / GB:.1f} GB"
    shared = "none" if machine.shared_memory is None else f"{machine.shared_memory / GB:.1f} GB"
    return {
        "cores": f"{machine.usable_cores} of {machine.cores} usable{limit}",
        "memory": f"{machine.memory / GB:.1f} GB{memory_limit}",
        "free disk": {folder: f"{free / GB:.1f} GB" for folder, free in machine.free_disk.items()},
        "/dev/shm": shared,
        "limits": f"{_shown(machine.open_files)} open files, {_shown(machine.processes)} processes",
        "encoding": machine.encoding,
    }


def _shown(limit: float | None) -> str:
    return "unlimited" if limit is None else f"{limit:.0f}"


def _limit(which: int) -> float | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
