"""Latency-controlled BLSTM (Zhang et al., ICASSP 2016; arXiv 1510.08983)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asrtool.config import ModelConfig
from asrtool.models.blstm import BlstmLayer
from asrtool.models.caches import Caches
from asrtool.models.dropout import Dropout
from asrtool.models.masks import valid

State = tuple[Tensor, Tensor]  # hidden and cell of an LSTM, (1, N, D/2) each


class LcBlstm(nn.Module):
    """A BLSTM over windows of `chunk` frames and `look_ahead` frames after them, of which only the chunk is kept.

    The forward LSTM carries its state from chunk to chunk; through the look-ahead it runs from there, and that state is
    thrown away. The backward LSTM starts afresh at the end of each window. chunk 3, look_ahead 2:

        frames        0 1 2 3 4 5 6 7 8
        window 0      c c c a a                 c: forward from window to window; kept
        window 1            c c c a a           a: forward from the last c; not kept
        window 2                  c c c         c and a: backward from the right

    All layers work on the same window, so the look-ahead does not grow with their number.
    """

    streams, left = True, math.inf

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.chunk, self.right = config.chunk_size, config.look_ahead
        self.layers = nn.ModuleList(BlstmLayer(config.dim) for _ in range(config.layers))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        size, first = x.shape[1], torch.zeros_like(x_lens)
        x = pad(x, (0, 0, 0, -size % self.chunk + self.right))
        caches = Caches(self._initial_lstm_states(len(x)))
        return self._run(x, first, x_lens, caches)[:, :size]

    def initial_state(self, batch: int) -> list[Tensor]:
        """The frames of the look-ahead; for each layer hidden and cell."""
        ahead = self.layers[0].ahead
        return [ahead.weight_ih_l0.new_zeros(batch, self.right, ahead.input_size), *self._initial_lstm_states(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,), n in whole chunks; returns those `right` earlier."""
        return self._run(caches.extend(x), first - self.right, lens, caches)

    def _initial_lstm_states(self, batch: int) -> list[Tensor]:
        like = self.layers[0].ahead.weight_ih_l0
        return [like.new_zeros(batch, self.layers[0].ahead.hidden_size) for _ in range(2 * len(self.layers))]

    def _run(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, M * chunk + right, D), frames `first` (N,) and on; returns (N, M * chunk, D)."""
        keep = valid(first, x.shape[1], lens)
        x, keep = (t.unfold(1, self.chunk + self.right, self.chunk) for t in (x * keep[:, :, None], keep))
        x = x.transpose(2, 3)  # (N, M, chunk + right, D)
        starts = first[:, None] + self.chunk * torch.arange(x.shape[1], device=x.device)
        for layer in self.layers:
            x = self.dropout(self._layer(layer, x, keep, starts >= 0, caches))
        return x[:, :, : self.chunk].flatten(1, 2)

    def _layer(self, layer: BlstmLayer, x: Tensor, keep: Tensor, begun: Tensor, caches: Caches) -> Tensor:
        """x (N, M, W, D), keep (N, M, W), begun (N, M): the chunk is not before the utterance; returns (N, M, W, D)."""
        ahead, ends = self._chunks(layer.ahead, x[:, :, : self.chunk], begun, caches)
        if self.right:
            tails, _ = layer.ahead(x[:, :, self.chunk :].flatten(0, 1), ends)
            ahead = torch.cat([ahead, tails.unflatten(0, x.shape[:2])], dim=2)
        back = layer.backward_pass(x.flatten(0, 1), keep.flatten(0, 1)).unflatten(0, x.shape[:2])
        return torch.cat([ahead, back], dim=-1)

    @staticmethod
    def _chunks(lstm: nn.LSTM, x: Tensor, begun: Tensor, caches: Caches) -> tuple[Tensor, State]:
        """The chunks one after the other: outputs (N, M, chunk, D/2), and the states at their ends (1, N * M, D/2)."""
        kept = caches.take(), caches.take()
        state = tuple(part[None].to(x.dtype) for part in kept)  # under autocast x is narrower, and torch wants the same
        outputs, ends = [], []
        for chunk, there in zip(x.unbind(1), begun.unbind(1), strict=True):
            y, state = lstm(chunk, state)
            state = tuple(part * there[:, None] for part in state)
            outputs.append(y)
            ends.append(state)
        for part in state:
            caches.put(part[0].to(kept[0].dtype))
        return torch.stack(outputs, 1), tuple(torch.stack(parts, 2).flatten(1, 2) for parts in zip(*ends, strict=True))
