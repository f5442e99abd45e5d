"""What a training has on this machine: processor cores, memory, bf16 instructions and GPUs."""

import os
from dataclasses import dataclass
from pathlib import Path

MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of containers


@dataclass(frozen=True)
class Machine:
    """The machine that a recipe is written for."""

    cores: int  # that this process may use
    memory: float  # bytes of main memory
    has_bf16: bool  # the processor has bf16 instructions
    gpus: tuple[str, ...] = ()  # names
    gpu_memory: float = 0.0  # bytes of the smallest GPU

    @property
    def has_gpu(self) -> bool:
        """Returns True if the training runs on GPUs."""
        return bool(self.gpus)

    def __str__(self) -> str:
        bf16 = "bf16" if self.has_bf16 else "no bf16"
        text = f"{self.cores} cores ({bf16}), {self.memory / 1e9:.0f} GB of memory"
        if not self.gpus:
            return f"{text}, no GPU"
        return f"{text}, {len(self.gpus)} x {self.gpus[0]} with {self.gpu_memory / 1e9:.0f} GB"


def describe_machine() -> Machine:
    """Returns what this process may use of the machine it runs on."""
    import torch

    from asrtool.device import lacks_bf16

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    properties = [torch.cuda.get_device_properties(number) for number in range(count)]
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory=_memory(),
        has_bf16=not lacks_bf16(torch.device("cpu")),
        gpus=tuple(gpu.name for gpu in properties),
        gpu_memory=float(min((gpu.total_memory for gpu in properties), default=0)),
    )


def _memory() -> float:
    """Bytes of main memory, or of the container's limit if that is smaller."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in map(Path, MEMORY_LIMITS):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdecimal():
            memory = min(memory, float(text))
    return memory
