"""The state of a stream within one step."""

from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor


class Caches:
    """The tensors of a stream's state, which the layers take and replace in their order during one step.

    `new` is the state after the step, in the same order.
    """

    def __init__(self, state: Iterable[Tensor]):
        self._remaining = iter(state)
        self._shared: dict[Hashable, Tensor] = {}
        self.new: list[Tensor] = []

    def extend(self, x: Tensor, axis: int = 1) -> Tensor:
        """The cached frames followed by `x`, in its dtype. The last frames are cached, as many as before."""
        past = next(self._remaining)
        size = past.shape[axis]
        x = torch.cat([past.to(x.dtype), x], axis)
        self.new.append(x.narrow(axis, x.shape[axis] - size, size).to(past.dtype))
        return x

    def delay(self, x: Tensor, axis: int = 1) -> Tensor:
        """As many frames as `x` has, taken as many frames earlier as the cache holds."""
        return self.extend(x, axis).narrow(axis, 0, x.shape[axis])

    def compute_once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """A tensor that the layers of a step share, such as a mask, computed by the first layer that asks for `key`.

        For short chunks, launching operations dominates the cost of a step.
        """
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def take(self) -> Tensor:
        """The next tensor of the state, which its layer replaces by `put`."""
        return next(self._remaining)

    def put(self, value: Tensor) -> None:
        """The new value of a tensor that was taken."""
        self.new.append(value)
