"""H: from what the acoustic model puts out, frame by frame, to units.

Input label o + 1 is output o of the model, output label u + 1 is unit u; 0 is epsilon. No arc has an epsilon on its
input side, so a path has one arc a frame. All weights are 0: the acoustic model gives every cost.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

BLANK_LABEL = 1
EPSILON = 0
Arc = tuple[int, int, int, int]  # from state, to state, input label, output label


def ctc(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of the CTC topology (Graves et al. 2006): frames collapse to units, equal units need a blank between them.

    State 0 is the start and any blank, state u is unit u; all are final. With V units it is deterministic and has V^2
    arcs: for several thousand units, `modified_ctc` is the thrifty choice.
    """
    units = list(units)
    yield 0, 0, BLANK_LABEL, EPSILON
    for unit in units:
        yield 0, unit, unit + 1, unit + 1
        yield unit, unit, unit + 1, EPSILON
        yield unit, 0, BLANK_LABEL, EPSILON
        yield from ((unit, other, other + 1, other + 1) for other in units if other != unit)


def modified_ctc(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of k2's `ctc_topo(modified=True)`: as CTC, but equal units may follow each other without a blank.

    A run of n frames of a unit stands for 1 to n of it. 4 V arcs; not deterministic. State 0 is final: the last frame
    of a run leads there.
    """
    yield 0, 0, BLANK_LABEL, EPSILON
    for unit in units:
        yield 0, 0, unit + 1, unit + 1
        yield 0, unit, unit + 1, unit + 1
        yield unit, unit, unit + 1, EPSILON
        yield unit, 0, unit + 1, EPSILON


def hmm(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of a 2-state HMM for each unit, as the chain models of Povey et al. (2016), section 2.4, have it.

    Unit u is one frame of output 2 u, its beginning, and then any number of frames of output 2 u + 1; it lasts one
    frame at least. So equal units need nothing between them, and there is no blank: silence is a unit of the lexicon.
    The model has two outputs for every unit of the tokenizer, those of unit 0, the blank, included, so that output
    // 2 is the unit; no path takes outputs 0 and 1. Transitions cost nothing: in LF-MMI those of numerator and
    denominator cancel. State 0 is the start, state u the last unit; all are final. Deterministic, V^2 arcs.
    """
    units = list(units)
    yield from ((0, unit, 2 * unit + 1, unit + 1) for unit in units)
    for unit in units:
        yield unit, unit, 2 * unit + 2, EPSILON
        yield from ((unit, other, 2 * other + 1, other + 1) for other in units)


TOPOLOGIES: dict[str, Callable[[Iterable[int]], Iterator[Arc]]] = {"ctc": ctc, "modified": modified_ctc, "hmm": hmm}
DETERMINISTIC = ("ctc", "hmm")


def topology_fst(name: str, units: Iterable[int]) -> "StdVectorFst":
    """The topology `name` over `units` (numbers from 1), ready to be composed with what has units as input."""
    import kaldifst

    units = sorted(units)
    arcs = "".join(f"{source} {target} {label} {output}\n" for source, target, label, output in TOPOLOGIES[name](units))
    finals = [0, *units] if name in DETERMINISTIC else [0]
    fst = kaldifst.compile(arcs + "".join(f"{state}\n" for state in finals))
    kaldifst.arcsort(fst, "olabel")
    return fst


def num_outputs(name: str, size: int) -> int:
    """How many outputs the model has for a tokenizer of `size` units, blank included."""
    return 2 * size if name == "hmm" else size
