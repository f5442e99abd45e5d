"""H, L and G composed: L o G determinised and minimised, H on top of it, in the order of Kaldi's mkgraph.sh.

As there, determinisation is in the log semiring and no weights are pushed otherwise. Disambiguation symbols are removed
before H comes, not after: CTC topologies composed with a deterministic graph need no other determinisation, as in
icefall's compile_hlg.py. The epsilons that they leave stay: to remove them multiplies the arcs by four.
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
from asrtool.graphs.grammar import grammar_fst
from asrtool.graphs.lexicon_fst import BACKOFF, Between, lexicon_fst, unit_table, word_table
from asrtool.graphs.topology import DETERMINISTIC, topology_fst
from asrtool.text.lexicon import Lexicon

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

KILOBYTE = 1 if sys.platform == "darwin" else 1024  # the unit of getrusage's ru_maxrss in bytes
QUANTUM = 2.0**-16  # to which minimisation rounds weights; Kaldi's 2^-10 saves 0.3 % of the states, and sums of it show
PROPERTIES = {  # bits of OpenFst's fst/properties.h
    "deterministic": 0x40000,  # no state has two arcs with the same input label
    "input_epsilon_free": 0x2000000,
    "input_sorted": 0x10000000,
    "connected": 0x50000000000,  # every state is on a path from the start to an end
}


class Compiler:
    """The graphs of KINDS, each made when first asked for: `compiler.HLG`, `compiler.G` ...

    `symbols` are the tokenizer's. `steps` tells what each step made, how long it took and the peak memory till then;
    `sizes` the same of the graphs alone. Raises UserError for an LM or lexicon that leaves no sentence to recognise.
    """

    def __init__(self, symbols: list[str], lexicon: Lexicon, arpa: Path | None, topology: str, between: Between):
        self.lexicon, self.arpa, self.topology, self.between = lexicon, arpa, topology, between
        self.words = word_table(lexicon)
        self.units = unit_table(symbols, lexicon, between)
        self.steps: list[dict] = []
        self.sizes: dict[str, dict] = {}

    @cached_property
    def H(self) -> "StdVectorFst":
        """The topology over the units that the lexicon uses."""
        used = {*self.lexicon.symbols, self.between.separator, self.between.silence}
        units = [label - 1 for label, symbol in enumerate(self.units) if symbol in used]
        fst = self._step("H", topology_fst, self.topology, units)
        _require("H", fst, "input_epsilon_free", *(["deterministic"] if self.topology in DETERMINISTIC else []))
        return self._keep("H", fst)

    @cached_property
    def L(self) -> "StdVectorFst":
        """The lexicon, not determinised: a word is on the first arc of its pronunciation."""
        return self._keep("L", self._unmarked("L", self._marked_lexicon, backoff=False))

    @cached_property
    def G(self) -> "StdVectorFst":
        """The n-gram model."""
        return self._keep("G", self._step("G", grammar_fst, self.arpa, self.words))

    @cached_property
    def LG(self) -> "StdVectorFst":
        """Lexicon and n-gram model."""
        import kaldifst

        fst = self._step("L o G", kaldifst.compose, self._marked_lexicon, self.G)
        return self._keep("LG", self._unmarked("LG", self._minimal("LG", fst), backoff=True))

    @cached_property
    def HL(self) -> "StdVectorFst":
        """Any words of the lexicon in any order, all at no cost."""
        tree = self._minimal("L", self._marked_lexicon.copy())
        return self._on_top("HL", self._unmarked("L", tree, backoff=False))

    @cached_property
    def HLG(self) -> "StdVectorFst":
        """What decoders search."""
        return self._on_top("HLG", self.LG)

    @cached_property
    def _marked_lexicon(self) -> "StdVectorFst":
        return self._step("L", lexicon_fst, self.lexicon, self.words, self.units, self.between)

    def _minimal(self, name: str, fst: "StdVectorFst") -> "StdVectorFst":
        """`fst`, with disambiguation symbols, determinised and minimised in place."""
        import kaldifst

        self._step(f"{name} determinised", _in_place, kaldifst.determinize_star, fst, use_log=True)
        self._step(f"{name} minimised", _in_place, kaldifst.minimize_encoded, fst, delta=QUANTUM)
        _require(name, fst, "deterministic", "input_epsilon_free")
        return fst

    def _unmarked(self, name: str, fst: "StdVectorFst", backoff: bool) -> "StdVectorFst":
        """`fst` with epsilons for disambiguation symbols; without `backoff`, arcs of #0 go: they would be loops."""
        import kaldifst

        zero = self.units.index(BACKOFF)
        lines = [f"0 0 {label} {label}\n" for label in range(1, zero)]
        lines += [f"0 0 0 {label}\n" for label in range(zero + (not backoff), len(self.units))]
        return self._step(f"{name} without symbols", kaldifst.compose, kaldifst.compile("".join([*lines, "0\n"])), fst)

    def _on_top(self, name: str, fst: "StdVectorFst") -> "StdVectorFst":
        """H composed with `fst`, whose input are units."""
        import kaldifst

        kaldifst.arcsort(fst, "ilabel")
        topology = self.H.copy()
        kaldifst.arcsort(topology, "olabel")
        return self._keep(name, self._step(name, kaldifst.compose, topology, fst))

    def _keep(self, name: str, fst: "StdVectorFst") -> "StdVectorFst":
        """`fst` sorted by input label, its promises checked and its size noted: fit to be stored."""
        import kaldifst

        if not fst.num_states:
            raise UserError(f"{name} has no path: no sentence of the LM can be spelled; compare LM and lexicon")
        kaldifst.arcsort(fst, "ilabel")
        _require(name, fst, "input_sorted", "connected")
        self.sizes[name] = {**_size(fst), **{key: has(fst, key) for key in PROPERTIES}}
        return fst

    def _step(self, name: str, make: Callable[..., "StdVectorFst"], *arguments, **options) -> "StdVectorFst":
        """What `make` makes, with a line before and one after it; the second is kept in `steps`."""
        logger.info(f"{name} ...")
        start, cpu = time.perf_counter(), _cpu_seconds()
        fst = make(*arguments, **options)
        seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}
        row = {**_size(fst), **{key: round(value, 2) for key, value in seconds.items()}, "peak_mb": peak_mb()}
        self.steps.append({"step": name, **row})
        logger.info("{}: {states:,} states, {arcs:,} arcs, {seconds} s, peak memory {peak_mb:,} MB".format(name, **row))
        return fst


def has(fst: "StdVectorFst", name: str) -> bool:
    """Whether `fst` has the property `name` of PROPERTIES; OpenFst looks when it does not know."""
    return fst.properties(PROPERTIES[name], True) == PROPERTIES[name]


def _require(name: str, fst: "StdVectorFst", *properties: str) -> None:
    missing = [key for key in properties if not has(fst, key)]
    if missing:
        raise RuntimeError(f"{name} ought to be {' and '.join(missing).replace('_', ' ')}, and is not")


def _in_place(operation: Callable, fst: "StdVectorFst", **options) -> "StdVectorFst":
    operation(fst, **options)
    return fst


def _size(fst: "StdVectorFst") -> dict[str, int]:
    return {"states": fst.num_states, "arcs": sum(map(fst.num_arcs, range(fst.num_states)))}


def peak_mb() -> int:
    """The most memory that this process, or kaldilm's, has had so far, in MB."""
    return round(max(used.ru_maxrss for used in _usage()) * KILOBYTE / 1e6)


def _cpu_seconds() -> float:
    return sum(used.ru_utime + used.ru_stime for used in _usage())


def _usage() -> list[resource.struct_rusage]:
    """Of this process, and of those that it started and that have ended: kaldilm's."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
