"""torch.compile for training: the blocks of a Transformer become fused kernels.

The blocks are compiled, not the whole model: all blocks of one kind share what the first one compiled, so that 100
layers take no longer to compile than one. Numbers of utterances and of frames are variables of the compiled code:
batches of other sizes do not compile it again. Modules stay what they are: weights have the same names, and a training
with torch.compile can be resumed without it, and the other way round.
"""

import importlib.util
import logging
import os
import shutil

import torch
from torch import nn

from asrtool.errors import UserError

logger = logging.getLogger(__name__)

BACKEND = "inductor"  # torch's own; tests take one that needs no C++ compiler
# Variants of a block that torch compiles before it gives up: layers with masks of their own, training and validation
MAX_VARIANTS = 256


def compile_blocks(model: nn.Module, device: torch.device) -> None:
    """Lets torch compile the blocks of the model's encoder when they first run. Raises UserError without a compiler.

    The encoder must not pack frames (see TransformerEncoder): packed batches have lists of lengths, and torch would
    compile each of them.
    """
    if BACKEND == "inductor":
        _require_compiler(device)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_VARIANTS)
    for block in model.encoder.blocks:  # type: ignore[union-attr]  # the configuration requires a Transformer
        block.compile(backend=BACKEND, dynamic=True)
    logger.info("torch.compile compiles the blocks in the first steps, which takes minutes")


def _require_compiler(device: torch.device) -> None:
    """Raises UserError if what torch's inductor needs for `device` is not installed."""
    if device.type == "cuda" and not importlib.util.find_spec("triton"):
        raise UserError("training.compile needs the package triton on a GPU: install it, or set training.compile=false")
    if not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("training.compile needs a C++ compiler (g++): install it, or set training.compile=false")
