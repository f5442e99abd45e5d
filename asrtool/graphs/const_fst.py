"""Writes a checked graph as an OpenFst file of type const, which is read faster and takes less memory than type vector.

    header   magic, "const", "standard", version, flags, properties, start, number of states, number of arcs
    state    weight float32 (infinity: not final), first arc, number of arcs, those without input, those without output
    arc      input label int32, output label int32, weight float32, next state int32

All states come before all arcs, so a reader needs two allocations, where type vector needs one for each state.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.graphs.check import HEADER, FstArcs, LabelCounts, checked_blocks

MAGIC = b"\xd6\xfd\xb2~\x05\0\0\0const\x08\0\0\0standard\x02\0\0\0"  # version 2: not aligned
EXPANDED = 1  # the property of every const FST; OpenFst computes the others that it needs
STATE = np.dtype([("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("no_input", "<u4"), ("no_output", "<u4")])
ARC = np.dtype([("labels", "<i4", 2), ("cost", "<f4"), ("target", "<i4")])
MAX_ARCS = 2**32 - 1  # the number of an arc is a uint32


class WordCost(NamedTuple):
    """A cost in nats that is added to every arc with a word: output labels 1 to `num_words` - 1."""

    cost: float
    num_words: int


def write_const_fst(source: Path, out: Path, labels: LabelCounts, word_cost: WordCost) -> None:
    """Writes the FST file `source` of type vector to `out` as type const, with `word_cost` added.

    Raises BadFst for what asrtool/graphs/check.py refuses; `out` is then incomplete. Raises OSError for a full disk.
    """
    start, num_states, blocks = checked_blocks(source, labels)
    first_arc = 0
    states_at = len(MAGIC) + HEADER.size
    arcs_at = states_at + num_states * STATE.itemsize
    with open(out, "wb") as file:
        for block in blocks:
            states = _states(block.arcs, block.final, block.first_state, first_arc)
            file.seek(states_at + block.first_state * STATE.itemsize)
            file.write(states.tobytes())
            file.seek(arcs_at + first_arc * ARC.itemsize)
            file.write(_arcs(block.arcs, word_cost).tobytes())
            first_arc += len(block.arcs.source)
        file.seek(0)
        file.write(MAGIC + HEADER.pack(0, EXPANDED, start, num_states, first_arc))


def _states(arcs: FstArcs, final: np.ndarray, first_state: int, first_arc: int) -> np.ndarray:
    """Returns the STATE rows of a block of states with final weights (S,); its arcs begin at `first_arc`."""
    states = np.empty(len(final), STATE)
    source = arcs.source - first_state
    counts = np.bincount(source, minlength=len(final))
    if first_arc + len(source) > MAX_ARCS:
        raise OverflowError("the graph has more arcs than an OpenFst file of type const can hold")
    states["final"] = final
    states["first"] = first_arc + np.cumsum(counts) - counts
    states["arcs"] = counts
    states["no_input"] = np.bincount(source[arcs.labels[:, 0] == 0], minlength=len(final))
    states["no_output"] = np.bincount(source[arcs.labels[:, 1] == 0], minlength=len(final))
    return states


def _arcs(arcs: FstArcs, word_cost: WordCost) -> np.ndarray:
    """Returns the ARC rows of a block, in which arcs with words cost more."""
    rows = np.empty(len(arcs.source), ARC)
    words = arcs.labels[:, 1]
    has_word = (words > 0) & (words < word_cost.num_words)
    rows["labels"] = arcs.labels
    rows["cost"] = arcs.cost + np.float32(word_cost.cost) * has_word.astype(np.float32)
    rows["target"] = arcs.target
    return rows
