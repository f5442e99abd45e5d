"""The context of units in graphs: C for decoding, and training graphs of phones that become graphs of units in context.

Both have one path for each path of phones. A phone's unit is known when its arc is taken: the phone before it is in the
state, and the phone after it was foretold by the arc before, which leads to a state for the set of following phones
that give the same unit. So C needs no symbol for the end of an utterance, and is deterministic on its units.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asrtool.graphs.training_graphs import UnitArc, UnitGraph, numerator_graph
from asrtool.text.context_units import BOUNDARY, ContextTokenizer
from asrtool.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from kaldifst import StdVectorFst


class ContextState(NamedTuple):
    """A state between two phones."""

    state: int  # of the graph of phones; 0 in C
    left: int  # class of the phone before (`ContextTokenizer.left_class`)
    following: frozenset[int] | None  # phones that may follow, or BOUNDARY where the path may end; None: any


def transcript_graph(tokenizer: Tokenizer, text: str, silence: bool = False) -> UnitGraph:
    """Returns the numerator graph of a transcript: all pronunciations of its words, as units of any tokenizer.

    With `silence`, the tokenizer's unit of silence may be between words and at both ends, if it has one. Raises
    KeyError for words without units, as `Tokenizer.encode`.
    """
    return add_context(phone_graph(tokenizer, text, silence), tokenizer)


def phone_graph(tokenizer: Tokenizer, text: str, silence: bool = False) -> UnitGraph:
    """As `transcript_graph`, but of phones if units are phones in context."""
    plain = tokenizer.without_context
    return numerator_graph(plain.pronunciation_units(text), plain.silence if silence else None)


def add_context(graph: UnitGraph, tokenizer: Tokenizer) -> UnitGraph:
    """Returns a graph of phones as a graph of the units in context, or as it is if units have no context.

    Each path keeps its weight. A state has the same `word` as the state of `graph` that it comes from.
    """
    if not isinstance(tokenizer, ContextTokenizer):
        return graph
    leaving: dict[int, list[UnitArc]] = {}
    for arc in graph.arcs:
        leaving.setdefault(arc.source, []).append(arc)
    start = ContextState(0, tokenizer.left_class[BOUNDARY], None)
    number = {start: 0}
    arcs = []
    queue = [start]
    while queue:
        source = queue.pop()
        for phone_arc in leaving.get(source.state, ()):
            if source.following is not None and phone_arc.unit not in source.following:
                continue
            after = {following.unit for following in leaving.get(phone_arc.target, ())}
            after |= {BOUNDARY} if phone_arc.target in graph.final else set()
            for unit, target in _units(tokenizer, source, phone_arc.unit, phone_arc.target, after):
                if target not in number:
                    number[target] = len(number)
                    queue.append(target)
                arcs.append(UnitArc(number[source], unit, number[target], phone_arc.log_weight))
    final = {index: graph.final[state.state] for state, index in number.items() if _may_end(state, graph.final)}
    word = {index: graph.word[state.state] for state, index in number.items() if state.state in graph.word}
    return UnitGraph(arcs, final, word)


def _units(
    tokenizer: ContextTokenizer, source: ContextState, phone: int, target: int, after: Iterable[int]
) -> Iterator[tuple[int, ContextState]]:
    """Yields each unit that `phone` may have after `source`, and the state that it leads to, in the order of the units.

    `target` is the state of the graph of phones after `phone`, and `after` has the phones that may follow there.
    """
    following: dict[int, set[int]] = {}  # unit -> the phones that give it
    for right in after:
        following.setdefault(tokenizer.unit(source.left, phone, right), set()).add(right)
    for unit, phones in sorted(following.items()):
        yield unit, ContextState(target, tokenizer.left_class[phone], frozenset(phones))


def _may_end(state: ContextState, final: Iterable[int]) -> bool:
    return state.state in final and (state.following is None or BOUNDARY in state.following)


def context_fst(tokenizer: ContextTokenizer, phones: Iterable[int], marks: Sequence[tuple[int, int]]) -> "StdVectorFst":
    """Returns C, a transducer from units to the phones (numbers from 1) of an utterance, all with cost 0.

    Input label u + 1 is unit u, output label p + 1 is phone p. Each of `marks` is the input and output label of a
    disambiguation symbol, which may stand anywhere and is not a context. C is sorted by output label.
    """
    import kaldifst

    phones = sorted(phones)
    after = [BOUNDARY, *phones]
    start = ContextState(0, tokenizer.left_class[BOUNDARY], None)
    number = {start: 0}
    lines = []
    queue = [start]
    while queue:
        source = queue.pop()
        index = number[source]
        lines += [f"{index} {index} {unit_label} {phone_label}\n" for unit_label, phone_label in marks]
        for phone in phones if source.following is None else sorted(source.following - {BOUNDARY}):
            for unit, target in _units(tokenizer, source, phone, 0, after):
                if target not in number:
                    number[target] = len(number)
                    queue.append(target)
                lines.append(f"{index} {number[target]} {unit + 1} {phone + 1}\n")
        if _may_end(source, (0,)):
            lines.append(f"{index}\n")
    fst = kaldifst.compile("".join(lines))
    kaldifst.arcsort(fst, "olabel")
    return fst
