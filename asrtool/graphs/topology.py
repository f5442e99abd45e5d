"""H, the topology: a transducer from the outputs of the acoustic model, one for each frame, to units.

Input label o + 1 is output o of the model, output label u + 1 is unit u; 0 is epsilon. No arc has epsilon as its input
label, so a path has one arc for each frame. All weights are 0: all costs come from the acoustic model.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

BLANK_LABEL = 1
EPSILON_LABEL = 0
Arc = tuple[int, int, int, int]  # source state, target state, input label, output label


def ctc_arcs(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of the CTC topology (Graves et al. 2006): frames collapse to units, equal units need a blank between them.

    State 0 is the start and any blank, state u is unit u; all are final. It is deterministic, and has V^2 arcs for V
    units: for several thousand units, `modified_ctc_arcs` is much smaller.
    """
    units = list(units)
    yield 0, 0, BLANK_LABEL, EPSILON_LABEL
    for unit in units:
        yield 0, unit, unit + 1, unit + 1
        yield unit, unit, unit + 1, EPSILON_LABEL
        yield unit, 0, BLANK_LABEL, EPSILON_LABEL
        yield from ((unit, other, other + 1, other + 1) for other in units if other != unit)


def modified_ctc_arcs(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of k2's `ctc_topo(modified=True)`: as CTC, but equal units may follow each other without a blank.

    A run of n frames of a unit stands for 1 to n of the unit. 4 V arcs; not deterministic. Only state 0 is final: the
    last frame of a run leads there.
    """
    yield 0, 0, BLANK_LABEL, EPSILON_LABEL
    for unit in units:
        yield 0, 0, unit + 1, unit + 1
        yield 0, unit, unit + 1, unit + 1
        yield unit, unit, unit + 1, EPSILON_LABEL
        yield unit, 0, unit + 1, EPSILON_LABEL


def hmm_arcs(units: Iterable[int]) -> Iterator[Arc]:
    """Arcs of a 2-state HMM for each unit, as in the chain models of Povey et al. (2016), section 2.4.

    Unit u is one frame of output 2 u, its first frame, and then any number of frames of output 2 u + 1. So equal units
    need nothing between them, and there is no blank: silence is a unit of the lexicon. The model has two outputs for
    every unit of the tokenizer, also for unit 0, the blank, so that output // 2 is the unit; no path takes outputs 0
    and 1. Transitions have cost 0: in LF-MMI they cancel. State 0 is the start, and state
    u stands for unit u as the last one; all are final. Deterministic, V^2 arcs.
    """
    units = list(units)
    yield from ((0, unit, 2 * unit + 1, unit + 1) for unit in units)
    for unit in units:
        yield unit, unit, 2 * unit + 2, EPSILON_LABEL
        yield from ((unit, other, 2 * other + 1, other + 1) for other in units)


TOPOLOGIES: dict[str, Callable[[Iterable[int]], Iterator[Arc]]] = {
    "ctc": ctc_arcs,
    "modified": modified_ctc_arcs,
    "hmm": hmm_arcs,
}
DEFAULT_TOPOLOGY = "ctc"
DETERMINISTIC_TOPOLOGIES = ("ctc", "hmm")


def topology_fst(name: str, units: Iterable[int]) -> "StdVectorFst":
    """The topology `name` over `units` (numbers from 1), sorted by output label, ready for composition."""
    import kaldifst

    units = sorted(units)
    arcs = "".join(f"{source} {target} {label} {output}\n" for source, target, label, output in TOPOLOGIES[name](units))
    finals = [0, *units] if name in DETERMINISTIC_TOPOLOGIES else [0]
    fst = kaldifst.compile(arcs + "".join(f"{state}\n" for state in finals))
    kaldifst.arcsort(fst, "olabel")
    return fst
