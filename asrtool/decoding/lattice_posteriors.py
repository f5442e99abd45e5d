"""Posteriors of words in a lattice, by forward-backward over its paths (Wessel et al. 2001, section III)."""

import math
from collections import defaultdict
from collections.abc import Sequence

from asrtool.decoding.lattice import Lattice
from asrtool.decoding.log_sums import NEG_INF, log_add


def arc_posteriors(lattice: Lattice, scale: float = 1.0) -> list[float]:
    """Returns for each arc the share of the paths through it, (A,), where a path weighs exp(-scale * its cost)."""
    arcs = list(zip(lattice.source.tolist(), lattice.target.tolist(), (scale * lattice.costs).tolist(), strict=True))
    forward = [NEG_INF] * lattice.num_states
    forward[0] = 0.0
    for source, target, cost in arcs:
        forward[target] = log_add(forward[target], forward[source] - cost)
    backward = (-scale * lattice.final.sum(axis=1)).tolist()
    for source, target, cost in reversed(arcs):
        backward[source] = log_add(backward[source], backward[target] - cost)
    total = backward[0]
    if total == NEG_INF:
        return [0.0] * len(arcs)
    return [math.exp(min(0.0, forward[source] - cost + backward[target] - total)) for source, target, cost in arcs]


def word_posteriors(
    lattice: Lattice, labels: Sequence[int], word_frames: Sequence[int], scale: float = 1.0
) -> list[float]:
    """Returns the posterior of each word of a hypothesis: how likely the lattice has the word at this place.

    `labels` are output labels, `word_frames` the frames in which they are emitted, as of `path_words`. Arcs of the same
    word at about the same time count together, as time-overlapping words do in confusion networks (Mangu et al. 2000):
    those whose frame is nearer to the word's frame than to its neighbours' frames. A path that has the word twice there
    counts twice; the sum is at most 1.
    """
    frames_to = lattice.frames_to_states()
    arcs_of_word: dict[int, list[tuple[int, float]]] = defaultdict(list)  # (frame, posterior)
    wanted = set(labels)
    posteriors = arc_posteriors(lattice, scale)
    for source, label, posterior in zip(lattice.source.tolist(), lattice.outputs.tolist(), posteriors, strict=True):
        if label in wanted:
            arcs_of_word[label].append((frames_to[source], posterior))
    bounds = [-math.inf, *((a + b) / 2 for a, b in zip(word_frames, word_frames[1:], strict=False)), math.inf]
    return [
        min(1.0, sum(posterior for frame, posterior in arcs_of_word[label] if first <= frame <= last))
        for label, first, last in zip(labels, bounds, bounds[1:], strict=False)
    ]
