"""The states of many streams in one tensor each, updated in place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asrtool.models.acoustic import AcousticModel
from asrtool.models.caches import Caches


class StreamStates:
    """The states of `capacity` streams of a model, a row for each; `step` advances the streams of any rows.

    It returns the log-probs of `AcousticModel.step`. That function returns new states, so that a batch would gather the
    rows of its streams, move all cached frames, and scatter the result. Here a cache of encoder frames, (N, size, D) in
    `AcousticModel.initial_state`, is (capacity, size + slack, D) and a ring: frame i of a stream has index
    i mod (size + slack), and a step of n <= slack frames writes n frames of each stream.
    """

    def __init__(self, model: AcousticModel, capacity: int, max_frames: int):
        """`max_frames`: feature frames of a step, whole chunks; longer steps are split."""
        self.model = model
        self.max_frames = max_frames
        self._slack = max_frames // model.subsampling.factor
        self._fresh = self._with_slack(model.initial_state(1))
        self._state = [tensor.repeat(capacity, *[1] * (tensor.ndim - 1)) for tensor in self._fresh]

    @property
    def capacity(self) -> int:
        """The number of rows."""
        return len(self._state[0])

    def grow(self, capacity: int) -> None:
        """Adds fresh rows, up to `capacity`; the others stay as they are."""
        added = capacity - self.capacity
        pairs = zip(self._state, self._fresh, strict=True)
        self._state = [torch.cat([old, fresh.expand(added, *fresh.shape[1:])]) for old, fresh in pairs]

    def reset(self, rows: Tensor) -> None:
        """Puts the state before the first step into these rows (N,) int64."""
        for tensor, fresh in zip(self._state, self._fresh, strict=True):
            tensor.index_copy_(0, rows, fresh.expand(len(rows), *fresh.shape[1:]))

    def step(self, x: Tensor, x_lens: Tensor, rows: Tensor) -> Tensor:
        """x and x_lens as in `AcousticModel.step`, for the streams of `rows` (N,) int64, all different.

        Returns the log-probs (N, n / factor, V). Without gradient only. After a step that fails, of at most
        `max_frames`, the streams are as before, and it may be repeated.
        """
        pieces = x.split(self.max_frames, 1)
        starts = range(0, x.shape[1], self.max_frames)
        outputs = [
            self._step(piece, (x_lens - start).clamp(0, piece.shape[1]), rows)
            for piece, start in zip(pieces, starts, strict=True)
        ]
        return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]

    def _step(self, x: Tensor, x_lens: Tensor, rows: Tensor) -> Tensor:
        first, lens, *layer_state = self._state
        old_first = first.index_select(0, rows)
        encoder_frames = (old_first + self.model.lead_padding) // self.model.subsampling.factor
        caches = RowCaches(layer_state, rows, encoder_frames, self._slack)
        log_probs, new_first, new_lens = self.model.advance(x, x_lens, old_first, lens.index_select(0, rows), caches)
        caches.write()
        first.index_copy_(0, rows, new_first)
        lens.index_copy_(0, rows, new_lens)
        return log_probs

    def _with_slack(self, state: list[Tensor]) -> list[Tensor]:
        """A state whose caches of encoder frames have room for the frames of a step."""
        num_front = 2 + len(self.model.subsampling.initial_state(1))
        return [
            torch.nn.functional.pad(tensor, (0, 0, 0, self._slack)) if i >= num_front and tensor.ndim == 3 else tensor
            for i, tensor in enumerate(state)
        ]


class RowCaches(Caches):
    """`Caches` that read rows of a `StreamStates`.

    Frames are written into rings at once: a step's frames replace none that the step, or its repetition, reads. All
    else is written by `write`.
    """

    def __init__(self, state: Sequence[Tensor], rows: Tensor, first: Tensor, slack: int):
        """`rows` (N,) of the state; `first` (N,): encoder frames in the earlier steps of each stream."""
        super().__init__(state)
        self._rows = rows
        self._first = first
        self._slack = slack
        self._values: list[Tensor] = []  # of the tensors in `new`

    def extend(self, x: Tensor, axis: int = 1) -> Tensor:
        """The cached frames followed by `x`, in its dtype. Only encoder frames have axis 1."""
        if axis == 1:
            return self._extend_ring(next(self._remaining), x)
        past = self.take()
        size = past.shape[axis]
        x = torch.cat([past.to(x.dtype), x], axis)
        self.put(x.narrow(axis, x.shape[axis] - size, size).to(past.dtype))
        return x

    def take(self) -> Tensor:
        """The rows of the next tensor of the state, which their layer replaces by `put`."""
        tensor = next(self._remaining)
        self.new.append(tensor)
        return tensor.index_select(0, self._rows)

    def put(self, value: Tensor) -> None:
        """The new value of the first tensor that was taken and has none yet."""
        self._values.append(value)

    def write(self) -> None:
        """Writes the values that were put into the rows."""
        for tensor, value in zip(self.new, self._values, strict=True):
            tensor.index_copy_(0, self._rows, value)

    def _extend_ring(self, ring: Tensor, x: Tensor) -> Tensor:
        """ring (capacity, size + slack, D), x (N, n, D); returns (N, size + n, D)."""
        length, dim = ring.shape[1:]
        count = length - self._slack + x.shape[1]  # size + n
        indices = self.compute_once((length, count), lambda: self._frame_indices(length, count))  # (N, size + n)
        frames = ring.view(-1, dim)  # (capacity * length, D)
        frames.index_copy_(0, indices[:, -x.shape[1] :].flatten(), x.reshape(-1, dim).to(ring.dtype))
        return frames.index_select(0, indices.flatten()).view(len(x), count, dim).to(x.dtype)

    def _frame_indices(self, length: int, count: int) -> Tensor:
        """Indices (N, count), in (capacity * length, D), of the cached frames and of a step's frames after them."""
        index = torch.arange(count, device=self._rows.device)
        return self._rows[:, None] * length + (self._first[:, None] + index) % length
