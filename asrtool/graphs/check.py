"""OpenFst files are checked here before the library reads them, since it trusts every number in them.

An arc with an input label that the model has no output for makes the decoder read outside of a frame's scores, a wrong
count in the header reserves all memory, and a cycle of arcs without an input label is followed for ever. Files are
those that `asrtool graph` writes, of type vector with arcs of type standard:

    header   magic, "vector", "standard", version, flags, properties, start, number of states, number of arcs (unused)
    state    weight float32 (infinity: not final), number of arcs int64, then its arcs
    arc      input label int32, output label int32, weight float32, next state int32
"""

import mmap
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

KIND = b"\xd6\xfd\xb2~\x06\0\0\0vector\x08\0\0\0standard\x02\0\0\0"  # version 2 of the format, the only one since 2006
HEADER = struct.Struct("<iQqqq")  # flags, properties, start, states, arcs
COUNT = struct.Struct("<q")
STATE_BYTES, ARC_BYTES = 12, 16
STATES_AT_ONCE = 1 << 18  # states whose arcs are looked at together: some 10 MB of a usual graph
MOST_COST = 1e6  # of an arc; log10 of -99 is 228 nats, and float32 holds the sum of an hour of such arcs
KNOWN = 0xFFFFFFFF0007  # the properties that a file may claim: expanded, mutable, error, and those of OpenFst's tests
EXPANDED_MUTABLE = 3  # what is true of every vector FST


class BadFst(ValueError):
    """What is wrong with an FST file, as the end of a sentence that begins with its name."""


class Labels(NamedTuple):
    """How many input and output labels an FST may have, epsilon included."""

    inputs: int
    outputs: int


class Arcs(NamedTuple):
    """Arcs of some states in a row: `states` (A,) their states, `labels` (A, 2) int32, `costs` (A,), `targets` (A,)."""

    states: np.ndarray
    labels: np.ndarray
    costs: np.ndarray
    targets: np.ndarray


def read_fst(path: Path, labels: Labels) -> "StdVectorFst":
    """The FST in `path`, checked. Raises BadFst.

    Its claims about itself (sorted, without cycles ...) are forgotten: OpenFst finds out when it needs to know.
    """
    import kaldifst

    check_fst(path, labels)
    fst = kaldifst.StdVectorFst.read(str(path))
    if fst is None:
        raise BadFst("cannot be read by OpenFst")
    fst.set_properties(EXPANDED_MUTABLE, KNOWN)
    return fst


def check_fst(path: Path, labels: Labels) -> None:
    """Raise BadFst unless the file is whole, its labels and next states exist, and every cycle reads a frame.

    A graph of 5 million states and 15 million arcs takes about four seconds.
    """
    if not path.stat().st_size:
        raise BadFst("is empty")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        states = _check_header(content)
        begins = _walk(content, states)
        silent = [_check_arcs(arcs, labels, states) for arcs in _arcs(content, begins)]
    _check_cycles(np.concatenate(silent), states)


def _check_header(content: mmap.mmap) -> int:
    """The number of states."""
    if content[: len(KIND)] != KIND or len(content) < len(KIND) + HEADER.size:
        raise BadFst("is not an OpenFst file of type vector with arcs of type standard")
    flags, _, start, states, _ = HEADER.unpack_from(content, len(KIND))
    if flags:
        raise BadFst("has symbol tables inside, or is aligned; `asrtool graph` writes neither")
    if not 0 < states <= (len(content) - len(KIND) - HEADER.size) // STATE_BYTES:
        raise BadFst(f"has {states} states by its header, which do not fit its {len(content):,} bytes")
    if not 0 <= start < states:
        raise BadFst(f"starts in state {start}, and has states 0 to {states - 1}")
    return states


def _walk(content: mmap.mmap, states: int) -> np.ndarray:
    """Where each state begins, and the last one ends, (S + 1,) in bytes."""
    begins, size = array("q"), len(content)
    at = len(KIND) + HEADER.size
    for state in range(states):
        begins.append(at)
        if at + STATE_BYTES > size:
            raise BadFst(f"is cut short: it ends before state {state} of {states}")
        (count,) = COUNT.unpack_from(content, at + 4)
        at += STATE_BYTES + ARC_BYTES * count
        if count < 0 or at > size:
            raise BadFst(f"is cut short or damaged: {count} arcs of state {state} do not fit its {size:,} bytes")
    if at != size:
        raise BadFst(f"has {size - at:,} bytes more than its {states} states")
    begins.append(at)
    return np.frombuffer(begins, np.int64)


def _arcs(content: mmap.mmap, begins: np.ndarray) -> Iterator[Arcs]:
    """All arcs, STATES_AT_ONCE states at a time. Raises BadFst for the weight of a final state."""
    for first in range(0, len(begins) - 1, STATES_AT_ONCE):
        here = begins[first : first + STATES_AT_ONCE + 1]
        words = np.frombuffer(content[here[0] : here[-1]], "<i4")
        heads = (here[:-1] - here[0]) // 4
        _check_final(words[heads].view("<f4"), first)
        is_arc = np.ones(len(words), bool)
        is_arc[heads[:, None] + np.arange(STATE_BYTES // 4)] = False
        table = words[is_arc].reshape(-1, ARC_BYTES // 4)
        states = np.repeat(np.arange(first, first + len(heads)), (np.diff(here) - STATE_BYTES) // ARC_BYTES)
        yield Arcs(states, table[:, :2], table[:, 2].copy().view("<f4"), table[:, 3])


def _check_final(weights: np.ndarray, first: int) -> None:
    bad = ~((np.abs(weights) <= MOST_COST) | (weights == np.inf))
    if bad.any():
        state = bad.argmax()
        raise BadFst(f"has a final weight of {weights[state]} in state {first + state}")


def _check_arcs(arcs: Arcs, labels: Labels, states: int) -> np.ndarray:
    """Raise BadFst for the first arc that is wrong; returns from where to where arcs without input label go, (E, 2)."""
    for side, name in enumerate(("input", "output")):
        wrong = (arcs.labels[:, side] < 0) | (arcs.labels[:, side] >= labels[side])
        _refuse(wrong, arcs, arcs.labels[:, side], f"{name} label", f"there are 0 to {labels[side] - 1}")
    _refuse((arcs.targets < 0) | (arcs.targets >= states), arcs, arcs.targets, "next state", f"there are {states}")
    _refuse(~((np.abs(arcs.costs) <= MOST_COST) | (arcs.costs == np.inf)), arcs, arcs.costs, "weight", "no usable cost")
    silent = arcs.labels[:, 0] == 0
    return np.stack([arcs.states[silent], arcs.targets[silent]], axis=1)


def _refuse(wrong: np.ndarray, arcs: Arcs, values: np.ndarray, what: str, valid: str) -> None:
    if wrong.any():
        arc = wrong.argmax()
        raise BadFst(f"has an arc of state {arcs.states[arc]} with {what} {values[arc]} ({valid})")


def _check_cycles(silent: np.ndarray, states: int) -> None:
    """Raise BadFst for a cycle of `silent` arcs, (E, 2): it takes no frame, so decoders would not come out of it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, target = silent.T
    graph = coo_array((np.ones(len(source), np.int8), (source, target)), (states, states)).tocsr()
    count, component = connected_components(graph, directed=True, connection="strong")
    cyclic = np.bincount(component)[component] > 1 if count < states else np.zeros(states, bool)
    cyclic[source[source == target]] = True
    if cyclic.any():
        raise BadFst(f"has a cycle of arcs without input labels through state {cyclic.argmax()}")
