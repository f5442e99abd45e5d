"""Random frame graphs."""

import numpy as np

from asrtool.graphs.training_graphs import FrameGraph


def random_graph(draw: np.random.Generator, states: int, arcs: int, units: int) -> FrameGraph:
    """In some states no path starts, in some none ends, and some arcs cannot be taken."""

    def weights(size: int) -> np.ndarray:
        return np.where(draw.random(size) < 0.3, -np.inf, draw.normal(size=size))

    source, target = draw.integers(0, states, (2, arcs))
    return FrameGraph(
        start=weights(states),
        final=weights(states),
        label=draw.integers(0, units, states),
        source=source,
        target=target,
        weight=weights(arcs),
        unit_state=np.arange(states),
    )
