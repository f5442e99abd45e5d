"""What a training has on this machine: processor cores, memory, bf16 instructions and GPUs."""

from dataclasses import dataclass

from asrtool.machine import usable_cores, usable_memory


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
        cores=usable_cores(),
        memory=float(usable_memory()),
        has_bf16=not lacks_bf16(torch.device("cpu")),
        gpus=tuple(gpu.name for gpu in properties),
        gpu_memory=float(min((gpu.total_memory for gpu in properties), default=0)),
    )
