"""Hotwords: how many of the rare words of a set are recognised, with which false alarms, with and without hotwords.

    python3 tools/bench/hotwords.py exp/mine data/dev.jsonl.gz data/test.jsonl.gz --graph data/lang/graph \\
        --lm data/lang/3gram.arpa.gz --weight 3 --weight 5 --weight 7
    python3 tools/bench/hotwords.py exp/mine data/dev.jsonl.gz --graph data/lang/graph --lm data/lang/3gram.arpa.gz \\
        --rescore data/lang/4gram.npz --lattice-beam 6
    python3 tools/bench/hotwords.py exp/mine data/dev.jsonl.gz --method prefix --lm data/lang/3gram.arpa.gz

The hotwords are the words of the transcripts that the language model finds rare (its unigram is below --rare), whether
they are recognised or not, and as many distractors: words that are as rare, and do not occur in the set. Words that the
graph lacks are counted for themselves. The baseline is the search without hotwords, in the same run.

With --write-new FILE the words that the graph lacks are written to a file for `asrtool graph --add-words`; --with-words
names a graph that was built with them, which is searched without hotwords. Without an experiment, a small graph of
random words is built, and the log-probs are paths of words in noise, which says nothing about a trained system.

recall          occurrences of hotwords in the transcripts that are recognised (in the alignment of the WER)
false alarms    hotwords or distractors in the results that the transcript does not have there
rest            word error rate over the words of the transcripts that are not hotwords, insertions included
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import made_up_words
import torch
from common import Report, Run, parse, parser

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.hotwords import DEFAULT_WEIGHT
from asrtool.decoding.search_setup import SearchSetup, open_search
from asrtool.decoding.system_options import search_options
from asrtool.experiment import Experiment, open_experiment
from asrtool.graphs.folder import load_graph
from asrtool.readers import read_lines
from asrtool.scoring.wer import GAP, align_words
from asrtool.text.tokenizer import Tokenizer

BATCH_SECONDS = 60.0
SEARCH_OPTIONS = ("graph", "beam", "acoustic_scale", "decoding_weights", "rescore", "graph_lm", "lattice_beam")


class Utterance(NamedTuple):
    """A transcript and log-probs (T, V)."""

    ref: str
    log_probs: torch.Tensor


class System(NamedTuple):
    """What is searched: utterances, and the options of the search."""

    tokenizer: Tokenizer
    utterances: list[Utterance]
    options: dict
    seconds: float  # of audio


class Words(NamedTuple):
    """Rare words of the transcripts that are known and new, and distractors."""

    known: frozenset[str]
    new: frozenset[str]
    distractors: frozenset[str]

    @property
    def all(self) -> list[str]:
        """All hotwords."""
        return sorted(self.known | self.new | self.distractors)


class Figures(NamedTuple):
    """Counts over a set."""

    known_recognised: int
    known_spoken: int
    new_recognised: int
    new_spoken: int
    false_alarms: int
    errors: int
    length: int
    rest_errors: int
    rest_length: int

    def row(self, name: str) -> str:
        """Returns a row of the table."""
        known = f"{_percent(self.known_recognised, self.known_spoken):.1f} % ({self.known_recognised})"
        new = f"{_percent(self.new_recognised, self.new_spoken):.1f} % ({self.new_recognised})"
        wer = _percent(self.errors, self.length)
        rest = _percent(self.rest_errors, self.rest_length)
        return f"| {name} | {known} | {new} | {self.false_alarms} | {wer:.2f} | {rest:.2f} |"


class Search:
    """A search with its hotwords; keeps the texts of the last call."""

    def __init__(self, system: System, options: dict):
        begin = time.perf_counter()
        self.system = system
        method = "graph" if "graph" in options else "prefix"
        self.setup: SearchSetup = open_search(method, system.tokenizer, options)
        self.opening = time.perf_counter() - begin
        self.texts: list[str] = []

    def __call__(self) -> None:
        """Recognises all utterances."""
        self.texts = [self._text(utterance.log_probs) for utterance in self.system.utterances]

    def _text(self, log_probs: torch.Tensor) -> str:
        (hypothesis,) = self.setup.search(log_probs[None], torch.tensor([len(log_probs)]))
        if hypothesis.words is None:
            return self.system.tokenizer.decode(hypothesis.tokens)
        return " ".join(hypothesis.words)


def _percent(count: int, total: int) -> float:
    return 100 * count / max(1, total)


def read_unigrams(arpa: Path) -> dict[str, float]:
    """Returns log10 of the probability of each word."""
    unigrams = {}
    is_unigram = False
    for line in map(str.strip, read_lines(arpa, "language model")):
        if line.startswith("\\"):
            if is_unigram:
                break
            is_unigram = line == "\\1-grams:"
        elif is_unigram and line:
            value, word, *_ = line.split()
            unigrams[word] = float(value)
    return unigrams


def read_utterances(experiment: Experiment, manifests: Sequence[Path], limit: int = 0) -> list[Utterance]:
    """Returns at most `limit` utterances of each manifest (0: all) with their log-probs, evenly spaced."""
    chosen = []
    for manifest in manifests:
        utterances = list(_utterances(experiment, manifest))
        step = max(1, len(utterances) // limit) if limit else 1
        chosen += utterances[::step][: limit or None]
    return chosen


def _utterances(experiment: Experiment, manifest: Path) -> Iterator[Utterance]:
    for batch in experiment.batches(OrderedSampler(manifest, BATCH_SECONDS), workers=0):
        log_probs, lens = experiment.log_probs(batch)
        rows = zip(batch.texts, log_probs.cpu(), lens.tolist(), strict=True)
        yield from (Utterance(text, row[:length]) for text, row, length in rows)


def choose_words(utterances: Sequence[Utterance], unigrams: dict[str, float], known: set[str], rare: float) -> Words:
    """Returns the hotwords for the transcripts; `known` are the words of the graph, `rare` is a log10."""
    spoken = {word for utterance in utterances for word in utterance.ref.split()}
    is_rare = {word for word, value in unigrams.items() if value < rare and word in known and word.isalpha()}
    targets = spoken & is_rare
    new = {word for word in spoken - known if word.isalpha()}
    others = sorted(is_rare - spoken)
    count = min(len(others), len(targets) + len(new))
    return Words(frozenset(targets), frozenset(new), frozenset(random.Random(1).sample(others, count)))


def count(texts: Sequence[str], utterances: Sequence[Utterance], words: Words) -> Figures:
    """Compares what was recognised with the transcripts."""
    hotwords = {*words.all}
    pairs = [
        pair
        for text, utterance in zip(texts, utterances, strict=True)
        for pair in align_words(utterance.ref, text)  # (word of the transcript, word of the text)
    ]
    known = [ref == hyp for ref, hyp in pairs if ref in words.known]
    new = [ref == hyp for ref, hyp in pairs if ref in words.new]
    rest = [(ref, hyp) for ref, hyp in pairs if ref not in words.known | words.new]
    return Figures(
        known_recognised=sum(known),
        known_spoken=len(known),
        new_recognised=sum(new),
        new_spoken=len(new),
        false_alarms=sum(ref != hyp and hyp in hotwords for ref, hyp in pairs),
        errors=sum(ref != hyp for ref, hyp in pairs),
        length=sum(ref != GAP for ref, _ in pairs),
        rest_errors=sum(ref != hyp for ref, hyp in rest),
        rest_length=sum(ref != GAP for ref, _ in rest),
    )


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=1, limit=1800.0)
    command_line.add_argument("exp", type=Path, nargs="?", help="experiment or pack")
    command_line.add_argument("cuts", type=Path, nargs="*", help="manifests")
    command_line.add_argument("--method", choices=["graph", "prefix"], default="graph", help="search method")
    command_line.add_argument("--graph", type=Path, help="graph of --method graph")
    command_line.add_argument("--with-words", type=Path, help="graph with added words, searched without hotwords")
    command_line.add_argument("--lm", type=Path, help="ARPA file whose unigrams say which words are rare")
    command_line.add_argument("--rare", type=float, default=-5.0, help="log10 of the probability of rare words")
    command_line.add_argument("--weight", type=float, action="append", help=f"weight, default {DEFAULT_WEIGHT}")
    command_line.add_argument("--beam", type=float, help="beam of the search")
    command_line.add_argument("--lattice-beam", type=float, help="lattice beam of graph search")
    command_line.add_argument("--acoustic-scale", type=float, help="acoustic scale of graph search")
    command_line.add_argument("--decoding-weights", type=Path, help="decoding weights of `asrtool tune`")
    command_line.add_argument("--rescore", type=Path, help="language model to rescore the lattices of --graph by --lm")
    command_line.add_argument("--utterances", type=int, default=0, help="utterances of each manifest; 0: all")
    command_line.add_argument("--write-new", type=Path, help="file for the words that the graph lacks; ends then")
    return command_line


def open_system(arguments: argparse.Namespace) -> System:
    """Returns the system of the command line."""
    experiment = open_experiment(arguments.exp, device="cpu")
    given = {name: value for name, value in vars(arguments).items() if name in SEARCH_OPTIONS and value is not None}
    given |= {"graph_lm": arguments.lm} if arguments.rescore else {}
    options = dict(search_options(experiment, arguments.method, given))
    utterances = read_utterances(experiment, arguments.cuts, arguments.utterances)
    frames = sum(len(utterance.log_probs) for utterance in utterances)
    return System(experiment.tokenizer, utterances, options, frames * experiment.frame_seconds)


def made_up_system(arguments: argparse.Namespace, folder: Path) -> System:
    """Returns a system of random words; sets --lm."""
    made_up = made_up_words.write(folder)
    arguments.lm = made_up.lm
    utterances = [Utterance(text, log_probs) for text, log_probs in made_up.utterances]
    frames = sum(len(utterance.log_probs) for utterance in utterances)
    return System(made_up.tokenizer, utterances, {"graph": made_up.graph}, frames * made_up_words.FRAME_SECONDS)


def compare(report: Report, system: System, words: Words, arguments: argparse.Namespace) -> None:
    """Searches with each weight and without hotwords, and prints the table."""
    searches = {}
    for weight in arguments.weight or [DEFAULT_WEIGHT]:
        hotwords = [f"{word}\t{weight}" for word in words.all]
        searches[f"weight {weight:g}"] = Search(system, system.options | {"hotwords": hotwords})
    if arguments.with_words:
        searches["graph with added words"] = Search(system, system.options | {"graph": arguments.with_words})
    searches["no hotwords"] = Search(system, system.options)
    runs = [Run(name, search, system.seconds) for name, search in searches.items()]
    case = f"{len(system.utterances)} utterances, {len(words.all)} hotwords"
    report.compare(case, runs, lambda rate: {"RTF": 1 / rate})
    print("\n| search | recall, known | recall, new | false alarms | WER | rest |", file=report.out)
    print("| --- | --- | --- | --- | --- | --- |", file=report.out)
    for name, search in reversed(searches.items()):
        figures = count(search.texts, system.utterances, words)
        report.values["facts"][name] = figures._asdict() | {"opening_seconds": search.opening}
        print(figures.row(name), file=report.out)


def main() -> int:
    """Measures and reports."""
    arguments = parse(make_parser())
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if arguments.exp and not (arguments.cuts and arguments.lm):
        print("hotwords.py: error: an experiment needs manifests and --lm", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        system = open_system(arguments) if arguments.exp else made_up_system(arguments, Path(folder))
        unigrams = read_unigrams(arguments.lm)
        known = set(load_graph(system.options["graph"]).words) if "graph" in system.options else set(unigrams)
        words = choose_words(system.utterances, unigrams, known, arguments.rare)
        if arguments.write_new:
            arguments.write_new.write_text("".join(f"{word}\n" for word in sorted(words.new)), encoding="utf-8")
            return 0
        report = Report("hotwords", arguments, "audio s", extra=["RTF"])
        report.fact("hours", system.seconds / 3600)
        for name in words._fields:
            report.fact(f"words, {name}", len(getattr(words, name)))
        compare(report, system, words, arguments)
        report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
