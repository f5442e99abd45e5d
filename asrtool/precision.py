"""Mixed precision: whether matrix products are computed with bf16 numbers, in training and in recognition."""

import logging
from contextlib import AbstractContextManager

import torch

from asrtool.device import lacks_bf16

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "auto")


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Returns True where precision "fp32", "bf16" or "auto" means bf16 on this device.

    A CPU without bf16 instructions computes in fp32, whatever is configured: bf16 would be 8 to 100 times slower there.
    """
    return precision != "fp32" and not lacks_bf16(device)


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Returns the context for a forward pass in the configured precision; weights and optimizer stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def log_precision_fallback(precision: str, device: torch.device) -> None:
    """Logs a warning where bf16 is configured, and the device computes in fp32."""
    if precision == "bf16" and lacks_bf16(device):
        logger.warning("this CPU has no bf16 instructions: precision bf16 falls back to fp32")
