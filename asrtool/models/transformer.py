"""Transformer encoders: whole utterance, sliding window or chunks; Pre-Norm or Post-Norm; convolution or not."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asrtool.config import ModelConfig
from asrtool.models.attention import AttentionContext, SelfAttention
from asrtool.models.caches import Caches
from asrtool.models.convolution import InterleavedConvolution
from asrtool.models.dropout import Dropout
from asrtool.models.initialise import depth_scaled_init
from asrtool.models.interface import Encoder
from asrtool.models.masks import StepFrames, padding_mask, valid_frames
from asrtool.models.relative_positions import sinusoids

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class FeedForward(nn.Sequential):
    """Position-wise feed-forward layer; `dropout` follows the activation."""

    def __init__(self, dim: int, ff_dim: int, activation: str = "silu", dropout: float = 0.0):
        inside = nn.Sequential(ACTIVATIONS[activation](), Dropout(dropout))
        super().__init__(nn.Linear(dim, ff_dim), inside, nn.Linear(ff_dim, dim))


class Block(nn.Module):
    """Attention, feed-forward layer and, optionally, convolution.

    "pre" norm: x + attention(norm(x)), x + feed_forward(norm(x)) (arXiv 2002.04745). "post": norm(x + attention(x)),
    norm(x + feed_forward(x)) (arXiv 1706.03762). The convolution comes after both.
    """

    def __init__(self, config: ModelConfig, context: AttentionContext):
        super().__init__()
        dim = config.dim
        self.is_pre_norm = config.norm == "pre"
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
    def delay(self) -> float:
        """Frames that `step` runs behind; infinite where it needs the whole utterance."""
        if self.attention.context.delay is None:
            return math.inf
        return self.attention.context.delay + (self.convolution.delay if self.convolution else 0)

    def forward(self, x: Tensor, padding_mask: Tensor | list[int]) -> Tensor:
        """(N, T, D); padding_mask (N, T) bool, False at padding.

        x may also be packed: (sum of lengths, D), the utterances one after the other, each padded to whole chunks if
        there are chunks, and the list of their lengths without padding instead of the mask.
        """
        y = self.attention(self._pre_norm(self.attention_norm, x), padding_mask, self.memory(x))
        x = self._add_branch(self.attention_norm, x, y)
        x = self._add_feed_forward(x)
        return self.convolution(x, padding_mask) if self.convolution else x

    def memory(self, x: Tensor) -> Tensor | None:
        """What replaces the input of the attention where later chunks see it; None for that input itself."""
        return None

    def initial_state(self, batch: int) -> list[Tensor]:
        """The states of the attention, of the residual connection that waits for it, and of the convolution."""
        state = self.attention.initial_state(batch)
        delay = self.attention.context.delay
        if delay:
            state.append(self.ff_norm.weight.new_zeros(batch, delay, len(self.ff_norm.weight)))
        if self.convolution:
            state += self.convolution.initial_state(batch)
        return state

    def step(self, x: Tensor, behind: int, frames: StepFrames, caches: Caches) -> Tensor:
        """x (N, n, D), `behind` frames earlier than `frames`; returns (N, n, D), `delay` earlier than x."""
        delay = self.attention.context.delay
        y = self.attention.step(self._pre_norm(self.attention_norm, x), behind, frames, caches)
        if delay:
            x = caches.delay(x)
            behind += delay
        x = self._add_branch(self.attention_norm, x, y)
        x = self._add_feed_forward(x)
        return self.convolution.step(x, frames.first - behind, frames.lens, caches) if self.convolution else x

    def _add_feed_forward(self, x: Tensor) -> Tensor:
        return self._add_branch(self.ff_norm, x, self.feed_forward(self._pre_norm(self.ff_norm, x)))

    def _pre_norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """The input of a branch: normalised in a Pre-Norm block."""
        return norm(x) if self.is_pre_norm else x

    def _add_branch(self, norm: nn.LayerNorm, x: Tensor, y: Tensor) -> Tensor:
        """The residual connection around the branch whose output is y: normalised in a Post-Norm block."""
        x = x + self.dropout(y)
        return x if self.is_pre_norm else norm(x)


def attention_contexts(config: ModelConfig) -> list[AttentionContext]:
    """What the frames see in each layer, the lowest first."""
    if config.chunk_size:
        return [AttentionContext(left=config.memory, chunk=config.chunk_size)] * config.layers
    if config.mask == "full":
        return [AttentionContext()] * config.layers
    left = config.per_layer(config.left_context)
    right = config.per_layer(config.right_context)
    return [AttentionContext(left=a, right=b) for a, b in zip(left, right, strict=True)]


class TransformerEncoder(Encoder):
    """Blocks and a final norm, which Post-Norm blocks without convolution have already.

    Padded frames are never attended to; what comes out for them is ignored.
    """

    block_class = Block
    blocks: Sequence[Block]

    def __init__(self, config: ModelConfig, pack_frames: bool = True):
        """With `pack_frames`, a CPU leaves padding out of all products."""
        super().__init__()
        self.is_sinusoidal = config.positional_encoding == "sinusoidal"
        self.chunk = config.chunk_size or 1
        self.layer_drop = config.layer_drop
        self.activation_checkpointing = config.activation_checkpointing
        self.pack_frames = pack_frames
        self.dropout = Dropout(config.dropout)
        blocks = [self.block_class(config, context) for context in attention_contexts(config)]
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]  # torch has no type for its elements
        ends_in_norm = config.norm == "post" and config.convolution.kind == "none"
        self.norm = nn.Identity() if ends_in_norm else nn.LayerNorm(config.dim)
        if config.init.scheme == "depth_scaled":
            for layer, block in enumerate(self.blocks, 1):
                depth_scaled_init(block, layer, config.init)
        self.can_stream = all(block.attention.context.can_stream for block in self.blocks)
        self.right = sum(block.delay for block in self.blocks)
        self.left = self._left_context()
        self.reach = self._reach() if self.can_stream else 0

    def _left_context(self) -> float:
        """Frames before an output that it may depend on; with chunks, frames before the start of its chunk."""
        frame = 0
        for block in reversed(self.blocks):
            if block.attention.context.left is None:
                return math.inf
            if block.convolution:
                frame -= block.convolution.left
            frame -= frame % self.chunk + block.attention.context.left
        return -frame

    def _reach(self) -> int:
        """Frames before a step that attention has keys of, at most; layers run behind by the delays of those below."""
        reach = 0
        behind = 0
        for block in self.blocks:
            reach = max(reach, behind + block.attention.context.cache_size)
            behind += int(block.delay)
        return reach

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        return self._encode(x, x_lens, with_intermediate=False)[0]

    def forward_with_intermediate(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D), (N,); returns what `forward` does, and what it would return with the lower half of the blocks."""
        last, intermediate = self._encode(x, x_lens, with_intermediate=True)
        return last, intermediate

    def _encode(self, x: Tensor, x_lens: Tensor, with_intermediate: bool) -> list[Tensor]:
        size = x.shape[1]
        x = self._embed(x, torch.arange(size, device=x.device))
        x = nn.functional.pad(x, (0, 0, 0, -size % self.chunk))  # (N, M * chunk, D)
        is_exporting = torch.compiler.is_exporting()  # an exported graph does not know the lengths
        if self.pack_frames and x.device.type == "cpu" and not is_exporting:
            # (N, M * chunk): True in the whole chunks of each utterance
            mask = padding_mask(x_lens + -x_lens % self.chunk, x.shape[1])
            outputs = self._run_blocks(x[mask], x_lens.tolist(), with_intermediate)  # (sum of rounded lengths, D) each
            outputs = [torch.zeros_like(x, dtype=y.dtype).masked_scatter(mask[:, :, None], y) for y in outputs]
        else:
            outputs = self._run_blocks(x, padding_mask(x_lens, x.shape[1]), with_intermediate)
        return [y[:, :size] for y in outputs]

    def _run_blocks(self, x: Tensor, padding_mask: Tensor | list[int], with_intermediate: bool) -> list[Tensor]:
        """The normalised output of the last block, then of the block in the middle; x as in `Block.forward`."""
        intermediate = []
        for number, block in enumerate(self.blocks):
            if with_intermediate and number == len(self.blocks) // 2:
                intermediate = [self.norm(x)]
            if self.training and self.layer_drop and torch.rand(()) < self.layer_drop:
                continue
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, padding_mask, use_reentrant=False)
            else:
                x = block(x, padding_mask)
        return [self.norm(x), *intermediate]

    def initial_state(self, batch: int) -> list[Tensor]:
        """The states of the blocks, in their order."""
        return [tensor for block in self.blocks for tensor in block.initial_state(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,), n in whole chunks; returns those `right` earlier."""
        size = x.shape[1]
        x = self._embed(x, first[:, None] + torch.arange(size, device=x.device))
        frames = StepFrames(first, lens, valid_frames(first - self.reach, self.reach + size, lens))
        behind = 0
        for block in self.blocks:
            x = block.step(x, behind, frames, caches)
            behind += int(block.delay)
        return self.norm(x)

    def _embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Scales x (N, T, D), since positions, and soon residuals, would drown it otherwise (section 3.4), and adds the
        sinusoids of `positions` (T,) or (N, T)."""
        x = x * math.sqrt(x.shape[2])
        if self.is_sinusoidal:
            x = x + sinusoids(positions, x.shape[2]).to(x.dtype)
        return self.dropout(x)
