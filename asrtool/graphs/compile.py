"""H, C, L and G composed: L o G determinised and minimised, H on top of it, in the order of Kaldi's mkgraph.sh.

As there, determinisation is in the log semiring, and weights are not pushed in another step. Disambiguation symbols are
removed before the composition with H, not after it: topologies composed with a deterministic graph need no further
determinisation, as in icefall's compile_hlg.py. The epsilons that replace the symbols stay: without them there would be
four times as many arcs. Units in context put C between H and LG: it is deterministic on its units, so CLG is as well,
and is only minimised.
"""

import logging
import resource
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from asrtool.errors import UserError
from asrtool.graphs.check import PROPERTIES, has_property
from asrtool.graphs.context import context_fst
from asrtool.graphs.grammar import grammar_fst
from asrtool.graphs.lexicon_fst import BACKOFF, WordBoundary, lexicon_fst, unit_table, word_table
from asrtool.graphs.topology import DETERMINISTIC_TOPOLOGIES, topology_fst
from asrtool.graphs.word_starts import WordStarts, empty_history, mark_topology, take_marks, with_loop, word_costs
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.lexicon import Lexicon

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; the unit of getrusage's ru_maxrss
# Minimisation rounds weights to multiples of this. Kaldi's 2^-10 saves 0.3 % of the states, but its errors add up.
MINIMISATION_DELTA = 2.0**-16


class Compiler:
    """The graphs of each kind of `asrtool.graphs.KINDS`, compiled when first used: `compiler.HLG`, `compiler.G` ...

    `words` and `units` are symbols by label; label 0 is epsilon, so a unit has the label unit + 1, and the last labels
    are disambiguation symbols. `phones` are the symbols of the lexicon, by the input labels of L and LG: the phones if
    units are phones in context, otherwise `units`. `steps` has the size of each step's result, its time, and the peak
    memory up to then; `sizes` has the size and the properties of each graph. Raises UserError for an LM or lexicon that
    leaves no sentence to recognise.
    """

    def __init__(
        self,
        symbols: list[str],
        lexicon: Lexicon,
        arpa: str | Path | None,
        topology: str,
        boundary: WordBoundary,
        context: ContextTokenizer | None = None,
    ):
        """`symbols` are the tokenizer's; `context` is this tokenizer, if its units are phones in context.

        `arpa` is the n-gram model of G; the kinds without a G do not need it.
        """
        self.lexicon = lexicon
        self.arpa = arpa
        self.topology = topology
        self.boundary = boundary
        self.words = word_table(lexicon)
        self.context = context
        self.units = unit_table(symbols, lexicon, boundary)
        self.phones = self.units
        if context:
            self.phones = unit_table(context.without_context.symbols, lexicon, boundary)
        self.steps: list[dict] = []
        self.sizes: dict[str, dict] = {}
        self.word_starts: dict[str, WordStarts] = {}  # of HL and HLG; none for units in context

    @cached_property
    def H(self) -> "StdVectorFst":
        """The topology over the units that the lexicon uses."""
        unit_numbers = self._used_phones
        if self.context:
            phone_of = self.context.phone_of
            unit_numbers = [unit for unit, phone in enumerate(phone_of) if phone in unit_numbers]
        fst = self._step("H", topology_fst, self.topology, unit_numbers)
        _require("H", fst, "input_epsilon_free")
        if self.topology in DETERMINISTIC_TOPOLOGIES:
            _require("H", fst, "deterministic")
        return self._finish("H", fst)

    @cached_property
    def C(self) -> "StdVectorFst":
        """The context of the units, from units in context to phones, with disambiguation symbols."""
        assert self.context is not None
        first_mark = self.phones.index(BACKOFF)
        marks = [(self.units.index(mark), label) for label, mark in enumerate(self.phones) if label >= first_mark]
        fst = self._step("C", context_fst, self.context, self._used_phones, marks)
        _require("C", fst, "deterministic", "input_epsilon_free")
        return fst

    @cached_property
    def L(self) -> "StdVectorFst":
        """The lexicon, not determinised: a word is on the first arc of its pronunciation."""
        return self._finish(
            "L", self._remove_disambiguation("L", self._disambiguated_lexicon, self.phones, backoff=False)
        )

    @cached_property
    def G(self) -> "StdVectorFst":
        """The n-gram model."""
        return self._finish("G", self._step("G", grammar_fst, self.arpa, self.words))

    @cached_property
    def LG(self) -> "StdVectorFst":
        """The lexicon composed with the n-gram model, determinised and minimised."""
        return self._finish("LG", self._remove_disambiguation("LG", self._disambiguated_lg, self.phones, backoff=True))

    @cached_property
    def HL(self) -> "StdVectorFst":
        """H composed with L, determinised and minimised: any words of the lexicon in any order, all with cost 0."""
        fst = self._disambiguated_lexicon.copy()
        self._determinise_and_minimise("L", fst)
        if self.context:
            fst = self._compose_context("CL", fst)
        fst = self._remove_disambiguation("determinised L", fst, self.units, backoff=False, marks=True)
        return self._compose_topology("HL", fst)

    @cached_property
    def HLG(self) -> "StdVectorFst":
        """H composed with LG, or with C and LG: the graph that decoders search with a language model."""
        fst = self._disambiguated_lg
        name = "LG"
        if self.context:
            name = "CLG"
            fst = self._compose_context(name, fst)
        fst = self._remove_disambiguation(name, fst, self.units, backoff=True, marks=True)
        rarest_cost, final_cost = word_costs(self.G, self._empty_history)
        return self._compose_topology("HLG", fst, rarest_cost, final_cost)

    @cached_property
    def _disambiguated_lexicon(self) -> "StdVectorFst":
        """The lexicon with its disambiguation symbols, and loops of #0 for the back-off arcs of G."""
        return self._step("L", lexicon_fst, self.lexicon, self.words, self.phones, self.boundary)

    @cached_property
    def _disambiguated_lg(self) -> "StdVectorFst":
        """LG with its disambiguation symbols, determinised and minimised."""
        import kaldifst

        grammar = with_loop(self.G, self._empty_history, len(self.words))
        fst = self._step("L o G", kaldifst.compose, self._disambiguated_lexicon, grammar)
        self._determinise_and_minimise("LG", fst)
        return fst

    @cached_property
    def _empty_history(self) -> int:
        """The state of G after the empty history."""
        return empty_history(self.G, len(self.words) - 1)

    @cached_property
    def _used_phones(self) -> list[int]:
        """The numbers of the units, or of the phones of units in context, that the lexicon uses."""
        used = {*self.lexicon.symbols, self.boundary.separator, self.boundary.silence}
        return [label - 1 for label, symbol in enumerate(self.phones) if symbol in used]

    def _compose_context(self, name: str, fst: "StdVectorFst") -> "StdVectorFst":
        """Returns C composed with `fst`, which is deterministic on its phones, minimised."""
        import kaldifst

        kaldifst.arcsort(fst, "ilabel")
        composed = self._step(name, kaldifst.compose, self.C, fst)
        self._step(f"{name} minimised", _in_place, kaldifst.minimize_encoded, composed, delta=MINIMISATION_DELTA)
        _require(name, composed, "deterministic", "input_epsilon_free")
        return composed

    def _determinise_and_minimise(self, name: str, fst: "StdVectorFst") -> None:
        """Changes `fst`, which has disambiguation symbols, in place."""
        import kaldifst

        self._step(f"{name} determinised", _in_place, kaldifst.determinize_star, fst, use_log=True)
        self._step(f"{name} minimised", _in_place, kaldifst.minimize_encoded, fst, delta=MINIMISATION_DELTA)
        _require(name, fst, "deterministic", "input_epsilon_free")

    def _remove_disambiguation(
        self, name: str, fst: "StdVectorFst", units: list[str], backoff: bool, marks: bool = False
    ) -> "StdVectorFst":
        """Returns `fst` with epsilons instead of the disambiguation symbols on its input side; `units` by input label.

        `backoff`: #0 becomes epsilon as well, as on the back-off arcs of G. Otherwise its arcs are removed: in L they
        are loops, and with epsilon they would be loops that read nothing. `marks`: the marks of word starts stay.
        """
        import kaldifst

        backoff_label = units.index(BACKOFF)
        first_removed = backoff_label if backoff else backoff_label + 1
        lines = [f"0 0 {label} {label}\n" for label in range(1, backoff_label)]  # units stay
        lines += [f"0 0 0 {label}\n" for label in range(first_removed, len(units))]
        if marks:
            lines.append(f"0 0 {len(units)} {len(units)}\n")
        to_epsilon = kaldifst.compile("".join([*lines, "0\n"]))
        return self._step(f"{name} without disambiguation symbols", kaldifst.compose, to_epsilon, fst)

    def _compose_topology(
        self, name: str, fst: "StdVectorFst", rarest_cost: float = 0.0, final_cost: float = 0.0
    ) -> "StdVectorFst":
        """Returns H composed with `fst`, whose input labels are units; sets its `word_starts`, with these costs."""
        import kaldifst

        kaldifst.arcsort(fst, "ilabel")
        topology = mark_topology(self.H, len(self.units))
        kaldifst.arcsort(topology, "olabel")
        composed = self._step(name, kaldifst.compose, topology, fst)
        starts = take_marks(composed)
        if starts:
            self.word_starts[name] = WordStarts(starts, rarest_cost, final_cost)
        return self._finish(name, composed)

    def _finish(self, name: str, fst: "StdVectorFst") -> "StdVectorFst":
        """Sorts `fst` by input label, checks it and records its size and properties, so that it can be stored."""
        import kaldifst

        if not fst.num_states:
            raise UserError(f"{name} has no path: no sentence of the LM has a pronunciation; compare LM and lexicon")
        kaldifst.arcsort(fst, "ilabel")
        _require(name, fst, "input_sorted", "connected")
        self.sizes[name] = {**_size(fst), **{key: has_property(fst, key) for key in PROPERTIES}}
        return fst

    def _step(self, name: str, operation: Callable[..., "StdVectorFst"], *arguments, **options) -> "StdVectorFst":
        """Returns the graph `operation(*arguments, **options)`; logs its size and time, and adds them to `steps`."""
        logger.info(f"{name} ...")
        start = time.perf_counter()
        start_cpu = _cpu_seconds()
        fst = operation(*arguments, **options)
        row = {
            **_size(fst),
            "seconds": round(time.perf_counter() - start, 2),
            "cpu_seconds": round(_cpu_seconds() - start_cpu, 2),
            "peak_mb": peak_mb(),
        }
        self.steps.append({"step": name, **row})
        logger.info("{}: {states:,} states, {arcs:,} arcs, {seconds} s, peak memory {peak_mb:,} MB".format(name, **row))
        return fst


def _require(name: str, fst: "StdVectorFst", *properties: str) -> None:
    """Raises RuntimeError unless `fst` has all of `properties`, which are keys of check.PROPERTIES."""
    missing = [key for key in properties if not has_property(fst, key)]
    if missing:
        raise RuntimeError(f"{name} is not {' and '.join(missing).replace('_', ' ')}")


def _in_place(operation: Callable, fst: "StdVectorFst", **options) -> "StdVectorFst":
    """Returns `fst` after an operation that changes it and returns nothing."""
    operation(fst, **options)
    return fst


def _size(fst: "StdVectorFst") -> dict[str, int]:
    return {"states": fst.num_states, "arcs": sum(map(fst.num_arcs, range(fst.num_states)))}


def peak_mb() -> int:
    """Returns the peak memory so far of this process or of kaldilm's, whichever is more, in MB."""
    return round(max(usage.ru_maxrss for usage in _usages()) * RSS_UNIT / 1e6)


def _cpu_seconds() -> float:
    """Returns the CPU time so far of this process and of kaldilm's, in seconds."""
    return sum(usage.ru_utime + usage.ru_stime for usage in _usages())


def _usages() -> list[resource.struct_rusage]:
    """Returns the resource usage of this process, and of its child processes that have ended: kaldilm runs in one."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
