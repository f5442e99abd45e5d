"""Latency-controlled BLSTM (Zhang et al., ICASSP 2016; arXiv 1510.08983)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asrtool.config import ModelConfig
from asrtool.models.blstm import BlstmLayer
from asrtool.models.caches import Caches
from asrtool.models.dropout import Dropout
from asrtool.models.interface import Encoder
from asrtool.models.masks import valid_frames, windows

State = tuple[Tensor, Tensor]  # hidden and cell state of an LSTM, (1, N, D/2) each


class LcBlstm(Encoder):
    """A BLSTM over windows of `chunk` frames and `look_ahead` frames after them; only the chunk's output is kept.

    The forward LSTM carries its state from chunk to chunk; it runs on through the look-ahead, and the state after that
    is discarded. The backward LSTM starts from zeros at the end of each window. chunk 3, look_ahead 2:

        frames        0 1 2 3 4 5 6 7 8
        window 0      c c c a a                 c: chunk, whose output is kept; the forward LSTM goes from c to c
        window 1            c c c a a           a: look-ahead; the forward LSTM goes on from the last c of its window
        window 2                  c c c         the backward LSTM goes from the last frame of a window to its first

    All layers work on the same window, so the look-ahead does not grow with their number. In the shapes below, M is the
    number of chunks and W = chunk + look_ahead.
    """

    right: int
    layers: Sequence[BlstmLayer]

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.chunk_size is not None and config.look_ahead is not None  # the configuration requires both
        self.chunk = config.chunk_size
        self.left = math.inf
        self.right = config.look_ahead
        self.can_stream = True
        layers = [BlstmLayer(config.dim) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # torch has no type for its elements
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        size = x.shape[1]
        x = pad(x, (0, 0, 0, -size % self.chunk + self.right))  # (N, M * chunk + look_ahead, D)
        caches = Caches(self._initial_lstm_states(len(x)))
        return self._run(x, torch.zeros_like(x_lens), x_lens, caches)[:, :size]

    def initial_state(self, batch: int) -> list[Tensor]:
        """Zeros for the frames of the look-ahead, and for each layer's hidden and cell state of the forward LSTM."""
        dim = self.layers[0].ahead.input_size
        look_ahead = next(self.parameters()).new_zeros(batch, self.right, dim)
        return [look_ahead, *self._initial_lstm_states(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, n, D), n in whole chunks, begins at frame `first` (N,) of its utterance; returns (N, n, D).

        The output begins `right` frames earlier than x, and at the start of a chunk (`AcousticModel.lead_padding`).
        """
        return self._run(caches.extend(x), first - self.right, lens, caches)

    def _initial_lstm_states(self, batch: int) -> list[Tensor]:
        weight = next(self.parameters())
        hidden_size = self.layers[0].ahead.hidden_size
        return [weight.new_zeros(batch, hidden_size) for _ in range(2 * len(self.layers))]

    def _run(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, M * chunk + look_ahead, D) begins at frame `first` (N,), a chunk's; returns (N, M * chunk, D)."""
        mask = valid_frames(first, x.shape[1], lens)  # (N, M * chunk + look_ahead)
        x = x * mask[:, :, None]
        x = windows(x, self.chunk, self.right)  # (N, M, W, D)
        mask = windows(mask[:, :, None], self.chunk, self.right)[..., 0]  # (N, M, W)
        chunk_starts = first[:, None] + self.chunk * torch.arange(x.shape[1], device=x.device)  # (N, M)
        for layer in self.layers:
            x = self.dropout(self._layer(layer, x, mask, chunk_starts >= 0, caches))
        return x[:, :, : self.chunk].flatten(1, 2)  # (N, M * chunk, D)

    def _layer(self, layer: BlstmLayer, x: Tensor, padding_mask: Tensor, has_begun: Tensor, caches: Caches) -> Tensor:
        """x (N, M, W, D), padding_mask (N, M, W); returns (N, M, W, D).

        has_begun (N, M) is False for chunks before the utterance, with which a stream begins: the state stays zero.
        """
        ahead, ends = self._forward_chunks(layer.ahead, x[:, :, : self.chunk], has_begun, caches)
        if self.right:
            tails, _ = layer.ahead(x[:, :, self.chunk :].flatten(0, 1), ends)  # (N * M, look_ahead, D/2)
            ahead = torch.cat([ahead, tails.unflatten(0, x.shape[:2])], dim=2)  # (N, M, W, D/2)
        back = layer.backward_pass(x.flatten(0, 1), padding_mask.flatten(0, 1))  # (N * M, W, D/2)
        return torch.cat([ahead, back.unflatten(0, x.shape[:2])], dim=-1)  # (N, M, W, D)

    @staticmethod
    def _forward_chunks(lstm: nn.LSTM, x: Tensor, has_begun: Tensor, caches: Caches) -> tuple[Tensor, State]:
        """The chunks one after the other: outputs (N, M, chunk, D/2), and the states at their ends, (1, N * M, D/2)."""
        cached_hidden = caches.take()  # (N, D/2)
        cached_cell = caches.take()
        dtype = cached_hidden.dtype
        hidden = cached_hidden[None].to(x.dtype)  # under autocast x is narrower, and torch wants the same dtype
        cell = cached_cell[None].to(x.dtype)
        outputs = []
        hiddens = []
        cells = []
        for chunk, begun in zip(x.unbind(1), has_begun.unbind(1), strict=True):
            y, (hidden, cell) = lstm(chunk, (hidden, cell))
            hidden = hidden * begun[:, None]
            cell = cell * begun[:, None]
            outputs.append(y)
            hiddens.append(hidden)
            cells.append(cell)
        caches.put(hidden[0].to(dtype))
        caches.put(cell[0].to(dtype))
        ends = (torch.stack(hiddens, 2).flatten(1, 2), torch.stack(cells, 2).flatten(1, 2))  # (1, N, M, D/2) flattened
        return torch.stack(outputs, 1), ends
