"""Transformer encoders: whole utterance, sliding window or chunks; Pre-Norm or Post-Norm; convolution or none."""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asrtool.config import ModelConfig
from asrtool.models.attention import Context, SelfAttention, sinusoids
from asrtool.models.caches import Caches
from asrtool.models.convolution import InterleavedConvolution
from asrtool.models.dropout import Dropout
from asrtool.models.initialise import depth_scaled
from asrtool.models.masks import padding_mask

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class FeedForward(nn.Sequential):
    """Position-wise feed-forward layer; `dropout` is inside it."""

    def __init__(self, dim: int, ff_dim: int, activation: str = "silu", dropout: float = 0.0):
        inside = nn.Sequential(ACTIVATIONS[activation](), Dropout(dropout))
        super().__init__(nn.Linear(dim, ff_dim), inside, nn.Linear(ff_dim, dim))


class Block(nn.Module):
    """Attention, feed-forward layer and, where there is one, convolution.

    "pre" norm: x + attention(norm(x)), x + feed_forward(norm(x)) (arXiv 2002.04745). "post": norm(x + attention(x)),
    norm(x + feed_forward(x)) (arXiv 1706.03762). The convolution comes after both.
    """

    def __init__(self, config: ModelConfig, context: Context):
        super().__init__()
        dim, self.pre = config.dim, config.norm == "pre"
        self.attention_norm = nn.LayerNorm(dim)
        relative = config.positional_encoding == "relative"
        self.attention = SelfAttention(dim, config.heads, context, relative, config.attention_dropout)
        self.ff_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, config.ff_dim, config.activation, config.ff_dropout)
        self.dropout = Dropout(config.dropout)
        self.convolution = None
        if config.convolution.kind != "none":
            self.convolution = InterleavedConvolution(config.convolution, dim, config.dropout, context.chunk)

    @property
    def delay(self) -> int:
        """Frames that `step` runs behind."""
        return self.attention.context.delay + (self.convolution.delay if self.convolution else 0)

    def forward(self, x: Tensor, keep: Tensor | list[int]) -> Tensor:
        """(N, T, D); `keep` (N, T) bool, true where there is data.

        Or without padding: (sum of lengths, D), the utterances one after the other, and the list of their lengths.
        """
        y = self.attention(self._enter(self.attention_norm, x), keep, self.memory(x))
        x = self._feed_forward(self._leave(self.attention_norm, x, y))
        return self.convolution(x, keep) if self.convolution else x

    def memory(self, x: Tensor) -> Tensor | None:
        """What stands in for the input of the attention where later chunks look at it; None for itself."""
        return None

    def initial_state(self, batch: int) -> list[Tensor]:
        """Of the attention, of the residual connection that waits for it, and of the convolution."""
        state, delay = self.attention.initial_state(batch), self.attention.context.delay
        if delay:
            state.append(self.ff_norm.weight.new_zeros(batch, delay, len(self.ff_norm.weight)))
        return state + (self.convolution.initial_state(batch) if self.convolution else [])

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,); returns those `delay` earlier."""
        delay = self.attention.context.delay
        y = self.attention.step(self._enter(self.attention_norm, x), first, lens, caches)
        x = caches.delay(x) if delay else x
        x = self._feed_forward(self._leave(self.attention_norm, x, y))
        return self.convolution.step(x, first - delay, lens, caches) if self.convolution else x

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self._leave(self.ff_norm, x, self.feed_forward(self._enter(self.ff_norm, x)))

    def _enter(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return norm(x) if self.pre else x

    def _leave(self, norm: nn.LayerNorm, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.dropout(y)
        return x if self.pre else norm(x)


def contexts(config: ModelConfig) -> list[Context]:
    """What the frames see in each layer, the lowest first."""
    if config.chunk_size:
        return [Context(config.memory, None, config.chunk_size)] * config.layers
    if config.mask == "full":
        return [Context()] * config.layers
    return [
        Context(*pair)
        for pair in zip(config.per_layer(config.left_context), config.per_layer(config.right_context), strict=True)
    ]


class TransformerEncoder(nn.Module):
    """Blocks and a final norm, which Post-Norm blocks without convolution have already.

    Padded frames are never attended to; what they hold themselves is nobody's input.
    """

    block = Block

    def __init__(self, config: ModelConfig, pack_frames: bool = True):
        super().__init__()
        self.sinusoidal, self.chunk = config.positional_encoding == "sinusoidal", config.chunk_size or 1
        self.layer_drop, self.recompute = config.layer_drop, config.activation_checkpointing
        # On a CPU, whose time goes into products, frames of padding are left out of them where nothing needs them.
        self.packs = pack_frames and config.chunk_size is None and config.convolution.kind == "none"
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.block(config, context) for context in contexts(config))
        ends_in_norm = config.norm == "post" and config.convolution.kind == "none"
        self.norm = nn.Identity() if ends_in_norm else nn.LayerNorm(config.dim)
        if config.init.scheme == "depth_scaled":
            for layer, block in enumerate(self.blocks, 1):
                depth_scaled(block, layer, config.init)

    @property
    def right(self) -> float:
        """Frames that an output needs beyond its chunk."""
        whole = any(b.attention.context.delay is None for b in self.blocks)
        return math.inf if whole else sum(block.delay for block in self.blocks)

    @property
    def left(self) -> float:
        """Frames before it that an output may depend on; with chunks, before the start of its chunk."""
        if any(b.attention.context.left is None for b in self.blocks):
            return math.inf
        frame = 0
        for block in reversed(self.blocks):
            if block.convolution:
                frame -= block.convolution.left
            frame -= frame % self.chunk + block.attention.context.left
        return -frame

    @property
    def streams(self) -> bool:
        """Whether there is a bound to what must be waited for and kept."""
        return all(None not in (b.attention.context.left, b.attention.context.delay) for b in self.blocks)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        return self.outputs(x, x_lens)[0]

    def outputs(self, x: Tensor, x_lens: Tensor, middle: bool = False) -> list[Tensor]:
        """What `forward` returns; with `middle` also what it would return if the lower half of the blocks were all."""
        size = x.shape[1]
        x = nn.functional.pad(self._enter(x, torch.arange(size, device=x.device)), (0, 0, 0, -size % self.chunk))
        keep = padding_mask(x_lens, x.shape[1])
        if self.packs and x.device.type == "cpu" and not torch.compiler.is_exporting():  # a graph knows no lengths
            found = self._through_blocks(x[keep], x_lens.tolist(), middle)
            return [torch.zeros_like(x, dtype=y.dtype).masked_scatter(keep[:, :, None], y) for y in found]
        return [y[:, :size] for y in self._through_blocks(x, keep, middle)]

    def _through_blocks(self, x: Tensor, keep: Tensor | list[int], middle: bool) -> list[Tensor]:
        found = []
        for number, block in enumerate(self.blocks):
            if middle and number == len(self.blocks) // 2:
                found.append(self.norm(x))
            if self.training and self.layer_drop and torch.rand(()) < self.layer_drop:
                continue
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, keep, use_reentrant=False)
            else:
                x = block(x, keep)
        return [self.norm(x), *found]

    def initial_state(self, batch: int) -> list[Tensor]:
        """Of the blocks, in their order."""
        return [tensor for block in self.blocks for tensor in block.initial_state(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,), n in whole chunks; returns those `right` earlier."""
        x = self._enter(x, first[:, None] + torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            x = block.step(x, first, lens, caches)
            first = first - block.delay
        return self.norm(x)

    def _enter(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x * math.sqrt(x.shape[2])  # else the positions, and soon the residuals, drown what was heard (section 3.4)
        if self.sinusoidal:
            x = x + sinusoids(positions, x.shape[2]).to(x.dtype)
        return self.dropout(x)
