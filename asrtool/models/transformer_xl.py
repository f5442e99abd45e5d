"""Transformer-XL as an acoustic model (arXiv 1901.02860; for speech 2005.09684): chunks with memory."""

import torch
from torch import Tensor

from asrtool.models.transformer import Block, TransformerEncoder


class TransformerXlBlock(Block):
    """Keys and values come from the chunk and from the memory before it; attention has no gradient into the memory.

    The memory holds the layer's inputs before their norm, without gradient; norm and projections are applied to it as
    to the chunk, and learn from it. A chunk sees its own future, so that distances of relative positions are negative
    too. Training computes all chunks of an utterance at once: the memory of a chunk is the input of the same layer,
    which is there for the whole utterance. A stream keeps the memory's keys and values, which are the same numbers.
    """

    def memory(self, x: Tensor) -> Tensor | None:
        """The input of the attention, computed again without gradient; None where there is no gradient anyway."""
        return self._pre_norm(self.attention_norm, x.detach()) if torch.is_grad_enabled() else None


class TransformerXl(TransformerEncoder):
    """The history grows with the layers: `layers` times `memory` frames. The look-ahead does not: the chunk's rest."""

    block_class = TransformerXlBlock
