"""Transformer-XL as an acoustic model (arXiv 1901.02860; for speech 2005.09684): chunks with memory."""

import torch
from torch import Tensor

from asrtool.models.transformer import Block, TransformerEncoder


class TransformerXlBlock(Block):
    """Keys and values of the chunk and of `memory` frames before it; gradients of the attention stay within the chunk.

    The memory holds the layer's inputs before their norm, without gradient; norm and projections are applied to it as
    to the chunk, and learn from it. A chunk sees its own future, so the distances of the relative positions are
    negative too. Training takes all chunks of an utterance at once: what a chunk remembers is the input of the same
    layer, which is there for the whole utterance. A stream keeps the memory's keys and values, the same numbers.
    """

    def memory(self, x: Tensor) -> Tensor | None:
        """The input of the attention, once more and without gradient; None where there is none anyway."""
        return self._enter(self.attention_norm, x.detach()) if torch.is_grad_enabled() else None


class TransformerXl(TransformerEncoder):
    """The history grows with the layers: `layers` times `memory` frames. The look-ahead does not: the chunk's rest."""

    block = TransformerXlBlock
