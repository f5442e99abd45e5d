"""Mixed precision: which numbers the products of training are computed with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from asrtool.device import lacks_bf16

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mkldnn_rnn_layer.default,
    aten.mkldnn_rnn_layer_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default


class RoundedProducts(TorchDispatchMode):
    """Products of bf16 numbers computed in fp32 and rounded, as a processor with bf16 instructions does it.

    Without such instructions torch takes 8 to 100 times as long as for fp32; this way it takes little longer.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Every operation comes here; products of bf16 tensors are changed."""
        kwargs = kwargs or {}
        known = function is ATTENTION or function in PRODUCTS
        if not known or not any(isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16 for a in args):
            return function(*args, **kwargs)
        args, kwargs = tree_map_only(torch.Tensor, _widen, (args, kwargs))
        if function is ATTENTION:
            y, log_sum = function(*args, **kwargs)  # the second is float32 for bf16 too
            return _round(y), log_sum
        return tree_map_only(torch.Tensor, _round, function(*args, **kwargs))


def _widen(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def _round(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16() if x.dtype == torch.float32 else x


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether products are of bf16 numbers with training.precision "fp32", "bf16" or "auto"."""
    return precision == "bf16" or precision == "auto" and not lacks_bf16(device)


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Around forward and backward passes: bf16 at a bearable speed where the processor has no bf16 instructions."""
    if precision == "bf16" and lacks_bf16(device):
        with RoundedProducts():
            yield
    else:
        yield
