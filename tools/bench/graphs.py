"""Compilation of decoding graphs: words per second, memory and sizes of HLG from a phone lexicon and a 3-gram.

Lexicon and LM are synthetic (--words, --ngrams), or files: --lexicon and --lm. One compilation runs first, alone: it
reports the time of each step and the peak memory of the process. The aims are for 64,000 words, and shown with --lm.

compile     `Compiler.HLG` ("asrtool"): disambiguation symbols are removed before H is composed. Baseline: the order
            of Kaldi's mkgraph.sh: H is composed with the symbols in place, and the result determinised and minimised
            again; the arcs of both results are printed. --alone skips the baseline, for models that take minutes.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import kaldifst
from common import Report, Run, parse, parser

from asrtool.graphs.compile import Compiler, peak_mb
from asrtool.graphs.grammar import arpa_words, grammar_fst
from asrtool.graphs.lexicon_fst import BACKOFF, WordBoundary, lexicon_fst
from asrtool.graphs.topology import TOPOLOGIES, topology_fst
from asrtool.text.lexicon import Lexicon

PHONES = [f"P{number}" for number in range(39)]  # as many as CMUdict has
MINUTES, GIGABYTES = 5, 8  # aims at 64,000 words


def made_up_lexicon(words: int) -> Lexicon:
    """Words of 2 to 10 phones, some with two pronunciations; short ones are homophones and prefixes now and then."""
    draw = random.Random(1)
    ways = [tuple(draw.choices(PHONES, k=draw.randint(2, 10))) for _ in range(words + words // 12)]
    lexicon = {f"W{number}": (way,) for number, way in enumerate(ways[:words])}
    for number, way in enumerate(ways[words:]):
        lexicon[f"W{12 * number}"] += (way,)
    return Lexicon(lexicon)


def made_up_lm(words: list[str], ngrams: int, path: Path) -> Path:
    """A 3-gram model with `ngrams` bigrams and trigrams, frequent words in most of them; its weights mean nothing."""
    draw = random.Random(1)
    weights = [1 / (rank + 3) for rank in range(len(words))]  # Zipf's law
    pairs = sorted(set(zip(*(draw.choices(words, weights, k=ngrams // 2) for _ in range(2)), strict=True)))
    triples = sorted({(*draw.choice(pairs), word) for word in draw.choices(words, weights, k=ngrams // 2)})
    grams = [[("<s>",), ("</s>",), *((word,) for word in words)], pairs, triples]
    rows = ["\\data\\", *(f"ngram {order}={len(found)}" for order, found in enumerate(grams, 1))]
    for order, found in enumerate(grams, 1):
        rows += ["", f"\\{order}-grams:"]
        backoff = "\t-0.5" if order < len(grams) else ""
        rows += [f"{draw.uniform(-4, -1):.4f}\t{' '.join(gram)}{backoff}" for gram in found]
    path.write_text("\n".join([*rows, "", "\\end\\", ""]))
    return path


def kaldi_order(made: Compiler) -> kaldifst.StdVectorFst:
    """HLG of what `made` has, H below the disambiguation symbols."""
    graph = kaldifst.compose(
        lexicon_fst(made.lexicon, made.words, made.units, made.boundary), grammar_fst(made.arpa, made.words)
    )
    kaldifst.determinize_star(graph, use_log=True)
    kaldifst.minimize_encoded(graph)
    kaldifst.arcsort(graph, "ilabel")
    zero, end = made.units.index(BACKOFF), len(made.units)
    topology = topology_fst(made.topology, range(1, zero - 1))
    marks = list(range(zero, end))
    kaldifst.add_self_loops(topology, marks, marks)
    kaldifst.arcsort(topology, "olabel")
    graph = kaldifst.compose(topology, graph)
    kaldifst.determinize_star(graph, use_log=True)
    arcs = [f"0 0 {label * (label < zero)} {label}\n" for label in range(1, end)]
    graph = kaldifst.compose(kaldifst.compile("".join([*arcs, "0\n"])), graph)
    kaldifst.minimize_encoded(graph)
    kaldifst.arcsort(graph, "ilabel")
    return graph


def arcs(fst: kaldifst.StdVectorFst) -> int:
    """How many it has."""
    return sum(map(fst.num_arcs, range(fst.num_states)))


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Lexicon, Path]:
    """Lexicon and LM, of files or made up; of the lexicon the words of the LM alone."""
    if not options.lm:
        lexicon = made_up_lexicon(options.words)
        return lexicon, made_up_lm(list(lexicon.pronunciations), options.ngrams, folder / "lm.arpa")
    from asrtool.text.lexicon import read_lexicon

    known = set(arpa_words(options.lm))
    ways = read_lexicon(options.lexicon).pronunciations
    return Lexicon({word: ways[word] for word in ways if word in known}), Path(options.lm)


def first_time(report: Report, make) -> None:
    """Facts of one compilation, before anything else has taken memory."""
    compiler = make()
    compiler.HLG  # noqa: B018
    for step in compiler.steps:
        told = f"{step['states']:,} states, {step['arcs']:,} arcs, {step['seconds']} s ({step['cpu_seconds']} CPU s)"
        report.fact(f"step {step['step']}", f"{told}, {step['peak_mb']:,} MB")
    minutes = sum(step["seconds"] for step in compiler.steps) / 60
    report.fact("minutes", minutes, f"{sum(step['cpu_seconds'] for step in compiler.steps) / 60:.2f} of CPU time")
    report.fact("GB at the peak", peak_mb() / 1000)
    if report.arguments.lm:
        report.aim("minutes", minutes, MINUTES, at_most=True)
        report.aim("GB at the peak", peak_mb() / 1000, GIGABYTES, at_most=True)


def main() -> None:
    """Compile, alone and in turns with the baseline."""
    command_line = parser(__doc__, repeats=3)
    command_line.add_argument(
        "--words", type=int, default=5000, help="words of the synthetic lexicon [default: %(default)s]"
    )
    command_line.add_argument(
        "--ngrams", type=int, default=100_000, help="number of synthetic bigrams and trigrams [default: %(default)s]"
    )
    command_line.add_argument(
        "--lexicon", help="lexicon file to use instead, with lines WORD PHONE PHONE ...; needs --lm"
    )
    command_line.add_argument("--lm", help="ARPA file to use instead; needs --lexicon")
    command_line.add_argument(
        "--topology", choices=list(TOPOLOGIES), default="ctc", help="topology [default: %(default)s]"
    )
    command_line.add_argument("--alone", action="store_true", help="measure one compilation, without the baseline")
    options = parse(command_line, words=200, ngrams=1000)
    if bool(options.lm) != bool(options.lexicon):
        command_line.error("--lexicon and --lm go together")
    report = Report("graphs", options, "words")
    with tempfile.TemporaryDirectory() as folder:
        lexicon, arpa = prepare(options, Path(folder))
        symbols = ["<blank>", *lexicon.symbols]

        def make() -> Compiler:
            return Compiler(symbols, lexicon, arpa, options.topology, WordBoundary())

        first_time(report, make)
        if not options.alone:
            compare(report, make)
    report.finish()


def compare(report: Report, make) -> None:
    """asrtool and the order of Kaldi in turns."""
    words = len(make().lexicon.pronunciations)
    runs = [Run("asrtool", lambda: make().HLG, words), Run("order of mkgraph.sh", lambda: kaldi_order(make()), words)]
    report.compare(f"compile, {words:,} words", runs)
    report.fact("arcs", arcs(make().HLG), f"in the order of mkgraph.sh {arcs(kaldi_order(make())):,}")


if __name__ == "__main__":
    sys.exit(main())
