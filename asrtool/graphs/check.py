"""Checks OpenFst files before the library reads them, since it trusts every number in them.

An arc with an input label that the model has no output for makes the decoder read outside of a frame's scores, a wrong
count in the header allocates all memory, and a cycle of arcs with input epsilons is followed for ever. Accepted are
files as `asrtool graph` writes them, of type vector with arcs of type standard:

    header   magic, "vector", "standard", version, flags, properties, start, number of states, number of arcs (unused)
    state    weight float32 (infinity: not final), number of arcs int64, then its arcs
    arc      input label int32, output label int32, weight float32, next state int32
"""

import contextlib
import mmap
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

MAGIC = b"\xd6\xfd\xb2~\x06\0\0\0vector\x08\0\0\0standard\x02\0\0\0"  # version 2 of the format, the only one since 2006
HEADER = struct.Struct("<iQqqq")  # flags, properties, start, states, arcs
COUNT = struct.Struct("<q")
STATE_BYTES = 12  # without arcs
ARC_BYTES = 16
BLOCK_STATES = 1 << 18  # states whose arcs are checked together: some 10 MB of a typical graph
MAX_COST = 1e6  # of an arc; a log10 of -99 is 228 nats, and float32 holds the sum of an hour of such arcs
ALL_PROPERTIES = 0xFFFFFFFF0007  # that a file may claim: expanded, mutable, error, and those that OpenFst tests
EXPANDED_MUTABLE = 3  # properties of every vector FST
PROPERTIES = {  # bits of OpenFst's fst/properties.h
    "deterministic": 0x40000,  # no state has two arcs with the same input label
    "input_epsilon_free": 0x2000000,
    "input_sorted": 0x10000000,
    "connected": 0x50000000000,  # every state is on a path from the start to an end
}


class BadFst(ValueError):
    """A problem of an FST file, as the end of a sentence that begins with the file's name."""


class LabelCounts(NamedTuple):
    """The numbers of input and output labels that an FST may have, epsilon included."""

    inputs: int
    outputs: int


class FstArcs(NamedTuple):
    """The A arcs of a block of states."""

    source: np.ndarray  # (A,) int64
    labels: np.ndarray  # (A, 2) int32, input and output
    cost: np.ndarray  # (A,) float32
    target: np.ndarray  # (A,) int32


def read_fst(path: Path, labels: LabelCounts) -> "StdVectorFst":
    """Reads and checks the FST in `path`. Raises BadFst.

    The properties that the file claims (sorted, acyclic ...) are discarded: OpenFst computes those that it needs.
    """
    import kaldifst

    check_fst(path, labels)
    fst = kaldifst.StdVectorFst.read(str(path))
    if fst is None:
        raise BadFst("cannot be read by OpenFst")
    fst.set_properties(EXPANDED_MUTABLE, ALL_PROPERTIES)
    return fst


def has_property(fst: "StdVectorFst", name: str) -> bool:
    """Whether `fst` has the property `name` of PROPERTIES, which OpenFst computes when it does not know it."""
    return fst.properties(PROPERTIES[name], True) == PROPERTIES[name]


def check_fst(path: Path, labels: LabelCounts) -> None:
    """Raises BadFst unless the file is complete, its labels and next states exist, and every cycle takes a frame.

    A graph of 5 million states and 15 million arcs takes about four seconds.
    """
    *_, blocks = checked_blocks(path, labels)
    for _ in blocks:
        pass


class StateBlock(NamedTuple):
    """Some states in a row: the first one, their final weights (S,) float32, and their arcs."""

    first_state: int
    final: np.ndarray
    arcs: FstArcs


def checked_blocks(path: Path, labels: LabelCounts) -> tuple[int, int, Iterator[StateBlock]]:
    """Returns the start state, the number of states, and an iterator over all states, BLOCK_STATES at a time.

    Raises BadFst as `check_fst`; cycles are found at the end of the iterator.
    """
    if not path.stat().st_size:
        raise BadFst("is empty")
    with _mapped(path) as content:
        start, num_states = _check_header(content)
    return start, num_states, _checked_blocks(path, labels)


def _checked_blocks(path: Path, labels: LabelCounts) -> Iterator[StateBlock]:
    with _mapped(path) as content:
        _, num_states = _check_header(content)
        offsets = _state_offsets(content, num_states)
        epsilon_arcs = []
        for block in _read_blocks(content, offsets):
            epsilon_arcs.append(_check_arcs(block.arcs, labels, num_states))
            yield block
    _check_epsilon_cycles(np.concatenate(epsilon_arcs), num_states)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def iter_arcs(path: Path) -> Iterator[FstArcs]:
    """Yields all arcs of an FST file, BLOCK_STATES states at a time; labels and states are not checked."""
    with _mapped(path) as content:
        _, num_states = _check_header(content)
        yield from (block.arcs for block in _read_blocks(content, _state_offsets(content, num_states)))


def _check_header(content: mmap.mmap) -> tuple[int, int]:
    """Returns the start state and the number of states."""
    if content[: len(MAGIC)] != MAGIC or len(content) < len(MAGIC) + HEADER.size:
        raise BadFst("is not an OpenFst file of type vector with arcs of type standard")
    flags, _, start, states, _ = HEADER.unpack_from(content, len(MAGIC))
    if flags:
        raise BadFst("has symbol tables inside, or is aligned; `asrtool graph` writes neither")
    if not 0 < states <= (len(content) - len(MAGIC) - HEADER.size) // STATE_BYTES:
        raise BadFst(f"has {states} states by its header, which do not fit its {len(content):,} bytes")
    if not 0 <= start < states:
        raise BadFst(f"starts in state {start}, and has states 0 to {states - 1}")
    return start, states


def _state_offsets(content: mmap.mmap, states: int) -> np.ndarray:
    """Where each state begins, and the last one ends, (S + 1,) in bytes."""
    size, begin = len(content), len(MAGIC) + HEADER.size
    end = begin + (size - begin) // 4 * 4
    # nothing is raised inside: a traceback would hold the views, and with them the file
    with memoryview(content) as whole, whole[begin:end] as body, body.cast("I") as numbers:
        positions = _state_positions(numbers, states)
        problem = _damaged_state(numbers, positions[:-1], size)
    if problem:
        raise BadFst(problem)
    if len(positions) <= states or begin + 4 * positions[-1] > size:
        raise BadFst(f"is cut short: it ends before state {len(positions) - 1} of {states}")
    offsets = begin + 4 * positions
    if offsets[-1] != size:
        raise BadFst(f"has {size - offsets[-1]:,} bytes more than its {states} states")
    return offsets


def _state_positions(numbers: memoryview, states: int) -> np.ndarray:
    """Where each state begins, and the last one ends, in uint32 numbers; fewer if the file ends before, (S + 1,).

    Of the number of arcs only the lower half is read, which `_damaged_state` compares.
    """
    positions = array("q")
    position = 0
    with contextlib.suppress(IndexError):
        for _ in range(states):
            positions.append(position)
            position += STATE_BYTES // 4 + ARC_BYTES // 4 * numbers[position + 1]
        positions.append(position)
    return np.frombuffer(positions, np.int64)


def _damaged_state(numbers: memoryview, positions: np.ndarray, size: int) -> str:
    """Returns a problem if the arcs of a state do not fit the file; states begin at `positions` (S,)."""
    values = np.frombuffer(numbers, np.uint32)
    positions = positions[positions + 2 < len(values)]
    low, high = values[positions + 1].astype(np.int64), values[positions + 2]
    wrong = (high > 0) | (positions + STATE_BYTES // 4 + ARC_BYTES // 4 * low > len(values))
    if not wrong.any():
        return ""
    state = wrong.argmax()
    (count,) = COUNT.unpack(values[positions[state] + 1 : positions[state] + 3].tobytes())
    return f"is cut short or damaged: {count} arcs of state {state} do not fit its {size:,} bytes"


def _read_blocks(content: mmap.mmap, offsets: np.ndarray) -> Iterator[StateBlock]:
    """All states, BLOCK_STATES states at a time. Raises BadFst for the weight of a final state."""
    for first in range(0, len(offsets) - 1, BLOCK_STATES):
        block = offsets[first : first + BLOCK_STATES + 1]
        words = np.frombuffer(content[block[0] : block[-1]], "<i4")
        heads = (block[:-1] - block[0]) // 4  # index in `words` of each state
        final = words[heads].view("<f4")
        _check_final_weights(final, first)
        is_arc = np.ones(len(words), bool)
        is_arc[heads[:, None] + np.arange(STATE_BYTES // 4)] = False
        table = words[is_arc].reshape(-1, ARC_BYTES // 4)  # (A, 4)
        num_arcs = (np.diff(block) - STATE_BYTES) // ARC_BYTES  # of each state
        arcs = FstArcs(
            source=np.repeat(np.arange(first, first + len(heads)), num_arcs),
            labels=table[:, :2],
            cost=table[:, 2].copy().view("<f4"),
            target=table[:, 3],
        )
        yield StateBlock(first, final, arcs)


def _check_final_weights(weights: np.ndarray, first: int) -> None:
    bad = ~((np.abs(weights) <= MAX_COST) | (weights == np.inf))
    if bad.any():
        state = bad.argmax()
        raise BadFst(f"has a final weight of {weights[state]} in state {first + state}")


def _check_arcs(arcs: FstArcs, labels: LabelCounts, states: int) -> np.ndarray:
    """Raises BadFst for the first wrong arc; returns source and target of each arc with an input epsilon, (E, 2)."""
    for side, name in enumerate(("input", "output")):
        wrong = (arcs.labels[:, side] < 0) | (arcs.labels[:, side] >= labels[side])
        _refuse(wrong, arcs, arcs.labels[:, side], f"{name} label", f"there are 0 to {labels[side] - 1}")
    wrong = (arcs.target < 0) | (arcs.target >= states)
    _refuse(wrong, arcs, arcs.target, "next state", f"there are {states}")
    wrong = ~((np.abs(arcs.cost) <= MAX_COST) | (arcs.cost == np.inf))
    _refuse(wrong, arcs, arcs.cost, "weight", "not a usable cost")
    is_epsilon = arcs.labels[:, 0] == 0
    return np.stack([arcs.source[is_epsilon], arcs.target[is_epsilon]], axis=1)


def _refuse(wrong: np.ndarray, arcs: FstArcs, values: np.ndarray, what: str, valid: str) -> None:
    if wrong.any():
        arc = wrong.argmax()
        raise BadFst(f"has an arc of state {arcs.source[arc]} with {what} {values[arc]} ({valid})")


def _check_epsilon_cycles(epsilon_arcs: np.ndarray, states: int) -> None:
    """Raises BadFst for a cycle of `epsilon_arcs`, (E, 2): it takes no frame, so decoders would never leave it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, target = epsilon_arcs.T
    graph = coo_array((np.ones(len(source), np.int8), (source, target)), (states, states)).tocsr()
    count, component = connected_components(graph, directed=True, connection="strong")
    cyclic = np.bincount(component)[component] > 1 if count < states else np.zeros(states, bool)
    cyclic[source[source == target]] = True
    if cyclic.any():
        raise BadFst(f"has a cycle of arcs without input labels through state {cyclic.argmax()}")
