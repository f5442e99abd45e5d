"""Listed figures of devices for `asrtool plan`: peak speed, memory, links, power and price, with sources and dates.

Peak speeds are for dense matrix products, without sparsity. Prices are examples of what was listed on a day; they
change, so that a plan for a budget needs a price of one's own (`--price`).
"""

from dataclasses import dataclass

from asrtool.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Rate:
    """A price that was listed: USD for an hour of one device, where, and when it was read."""

    price: float
    source: str
    date: str


@dataclass(frozen=True)
class Device:
    """What a training needs to know about a device. Speeds are in FLOP/s, sizes in bytes, links in bytes/s one way."""

    name: str
    description: str
    fp32: float  # peak
    bf16: float | None  # peak; None: no such instructions, and training.precision bf16 or auto means fp32
    fp32_utilisation: float  # share of the peak that training reaches
    bf16_utilisation: float
    memory: float
    watts: float  # the board, or the share of a processor, at its rated power
    link: float  # to the other devices of its machine
    per_machine: int
    source: str
    is_gpu: bool = True
    is_measured: bool = False  # the utilisation was measured by training with asrtool, not assumed
    rate: Rate | None = None

    def keeps_all_cores_busy(self, devices: int) -> bool:
        """Returns True if so many processes leave no core of a machine to loader processes: on CPUs alone."""
        return not self.is_gpu and devices % self.per_machine == 0


NVIDIA = "NVIDIA's data sheet"
LAMBDA = "lambda.ai/instances, 8 GPUs on demand"
RUNPOD = "runpod.io/pricing, on demand"
# Norms, activation functions, attention to short utterances and the optimiser are bound by memory: the faster a device
# computes products, the smaller is their share of a step. The shares of GPUs are assumptions.
FP32_SHARE = 0.35
GIGA, TERA = 1e9, 1e12

DEVICES = {
    device.name: device
    for device in (
        Device(
            "h200", "NVIDIA H200 SXM", 67 * TERA, 989 * TERA, FP32_SHARE, 0.10, 141 * GIGA, 700, 450 * GIGA, 8,
            NVIDIA, rate=Rate(4.59, RUNPOD, "2026-10-07"),
        ),
        Device(
            "h100", "NVIDIA H100 SXM", 67 * TERA, 989 * TERA, FP32_SHARE, 0.10, 80 * GIGA, 700, 450 * GIGA, 8,
            NVIDIA, rate=Rate(3.99, LAMBDA, "2026-09-20"),
        ),
        Device(
            "b200", "NVIDIA B200 SXM", 75 * TERA, 2250 * TERA, FP32_SHARE, 0.06, 180 * GIGA, 1000, 900 * GIGA, 8,
            NVIDIA, rate=Rate(6.69, LAMBDA, "2026-09-20"),
        ),
        Device(
            "a100", "NVIDIA A100 SXM 80 GB", 19.5 * TERA, 312 * TERA, FP32_SHARE, 0.18, 80 * GIGA, 400,
            300 * GIGA, 8, NVIDIA, rate=Rate(2.79, LAMBDA, "2026-09-20"),
        ),
        Device(
            "v100", "NVIDIA V100 SXM2 16 GB", 15.7 * TERA, None, FP32_SHARE, FP32_SHARE, 16 * GIGA, 300, 150 * GIGA, 8,
            NVIDIA, rate=Rate(0.79, LAMBDA, "2026-09-20"),
        ),
        Device(
            "l4", "NVIDIA L4", 30.3 * TERA, 121 * TERA, FP32_SHARE, 0.30, 24 * GIGA, 72, 32 * GIGA, 8, NVIDIA
        ),
        Device(
            "l40s", "NVIDIA L40S", 91.6 * TERA, 362 * TERA, FP32_SHARE, 0.15, 48 * GIGA, 350, 32 * GIGA, 8, NVIDIA
        ),
        Device(
            "cpu", "one core of a server with AVX2 (AMD EPYC)", 78 * GIGA, None, 0.45, 0.45, 4 * GIGA, 5, 10 * GIGA, 64,
            "2.45 GHz x 32 operations; measured with asrtool, docs/planning.md", is_gpu=False, is_measured=True,
        ),
        Device(
            "cpu-amx", "one core of a server with AMX (Intel Xeon)", 110 * GIGA, 1000 * GIGA, 0.16, 0.07, 4 * GIGA, 7,
            10 * GIGA, 48, "matrix products and an encoder's step as measured", is_gpu=False, is_measured=True,
        ),
    )
}  # fmt: skip


def find_device(name: str) -> Device:
    """Returns the device of a name. Raises UserError for an unknown one."""
    device = DEVICES.get(name.lower())
    if device is None:
        raise UserError(f"--device {name[:50]} is not listed; {did_you_mean(name, [*DEVICES, 'this'])}")
    return device
