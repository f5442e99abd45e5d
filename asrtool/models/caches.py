"""What a stream remembers from one step to the next."""

from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor


class Caches:
    """The tensors of a state, handed to the layers in their order and collected again in the same order."""

    def __init__(self, state: Iterable[Tensor]):
        self._old = iter(state)
        self.new: list[Tensor] = []
        self._shared: dict[Hashable, Tensor] = {}

    def extend(self, x: Tensor, axis: int = 1) -> Tensor:
        """The frames kept so far, then those of `x`, in its type; of their end, as many are kept as before."""
        past = next(self._old)
        x = torch.cat([past.to(x.dtype), x], axis)
        self.new.append(x.narrow(axis, x.shape[axis] - past.shape[axis], past.shape[axis]).to(past.dtype))
        return x

    def delay(self, x: Tensor, axis: int = 1) -> Tensor:
        """The frames that came as many frames earlier as are kept."""
        return self.extend(x, axis).narrow(axis, 0, x.shape[axis])

    def shared(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What the layers of a step have in common, made once. A step of few frames costs what its operations cost."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def take(self) -> Tensor:
        """The next tensor, which its layer replaces with `put`."""
        return next(self._old)

    def put(self, value: Tensor) -> None:
        """The new value of what was taken."""
        self.new.append(value)
