"""Hotwords: how many of the rare words of a set are recognised, with which false alarms, with and without hotwords.

The hotwords are the words of the transcripts that the language model finds rare (its unigram is below --rare), whether
they are recognised or not, and as many distractors: words that are as rare, and do not occur in the set. Words that the
graph lacks are counted for themselves. The baseline is the search without hotwords, in the same run.

    python3 tools/bench/hotwords.py exp/mine data/dev.jsonl.gz data/test.jsonl.gz --graph data/lang/graph \\
        --lm data/lang/3gram.arpa.gz --weight 3 --weight 5 --weight 7
    python3 tools/bench/hotwords.py exp/mine data/dev.jsonl.gz --method prefix --lm data/lang/3gram.arpa.gz

With --write-new FILE the words that the graph lacks are written to a file for `asrtool graph --add-words`; --with-words
names the graph that was built with them, which is searched without hotwords.

recall          occurrences of hotwords in the transcripts that are recognised (in the alignment of the WER)
false alarms    hotwords or distractors in the results that the transcript does not have there
rest            word error rate over the words of the transcripts that are not hotwords, insertions included
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.hotwords import DEFAULT_WEIGHT
from asrtool.decoding.search_setup import SearchSetup, open_search
from asrtool.experiment import Experiment, open_experiment
from asrtool.graphs.folder import load_graph
from asrtool.readers import read_lines
from asrtool.scoring.wer import GAP, align_words

BATCH_SECONDS = 60.0


class Utterance(NamedTuple):
    """A transcript and log-probs (T, V)."""

    ref: str
    log_probs: torch.Tensor


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

    known: list[int]  # recognised, spoken
    new: list[int]
    false_alarms: int
    errors: int
    length: int
    rest_errors: int
    rest_length: int
    seconds: float


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


def read_utterances(experiment: Experiment, manifests: list[Path], limit: int) -> list[Utterance]:
    """Returns at most `limit` utterances of each manifest with their log-probs, evenly spaced."""
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


def choose_words(utterances: list[Utterance], unigrams: dict[str, float], known: set[str], rare: float) -> Words:
    """Returns the hotwords for the transcripts; `known` are the words of the graph, `rare` is a log10."""
    spoken = {word for utterance in utterances for word in utterance.ref.split()}
    is_rare = {word for word, value in unigrams.items() if value < rare and word in known and word.isalpha()}
    targets = spoken & is_rare
    new = {word for word in spoken - known if word.isalpha()}
    others = sorted(is_rare - spoken)
    count = min(len(others), len(targets) + len(new))
    return Words(frozenset(targets), frozenset(new), frozenset(random.Random(1).sample(others, count)))


def measure(setup: SearchSetup, experiment: Experiment, utterances: list[Utterance], words: Words) -> Figures:
    """Recognises all utterances, and counts."""
    known, new, false_alarms = [0, 0], [0, 0], 0
    errors = length = rest_errors = rest_length = 0
    hotwords = {*words.all}
    begin = time.perf_counter()
    for utterance in utterances:
        log_probs = utterance.log_probs[None]
        (hypothesis,) = setup.search(log_probs, torch.tensor([log_probs.size(1)]))
        text = (
            experiment.tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)
        )
        for ref, hyp in align_words(utterance.ref, text):
            is_error = ref != hyp
            errors += is_error
            length += ref != GAP
            false_alarms += is_error and hyp in hotwords
            for group, counts in ((words.known, known), (words.new, new)):
                if ref in group:
                    counts[0] += not is_error
                    counts[1] += 1
            if ref not in words.known | words.new:
                rest_errors += is_error
                rest_length += ref != GAP
    seconds = time.perf_counter() - begin
    return Figures(known, new, false_alarms, errors, length, rest_errors, rest_length, seconds)


def row(name: str, figures: Figures, opening: float) -> str:
    """Returns a row of the table."""
    recalls = [
        f"{100 * found / max(1, count):5.1f} % ({found}/{count})" for found, count in (figures.known, figures.new)
    ]
    wer = 100 * figures.errors / max(1, figures.length)
    rest = 100 * figures.rest_errors / max(1, figures.rest_length)
    cells = [name, *recalls, str(figures.false_alarms), f"{wer:.2f}", f"{rest:.2f}", f"{figures.seconds:.0f}"]
    return "| " + " | ".join([*cells, f"{opening:.1f}"]) + " |"


def parse_arguments() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="experiment or pack")
    parser.add_argument("cuts", type=Path, nargs="+", help="manifests")
    parser.add_argument("--method", choices=["graph", "prefix"], default="graph", help="search method")
    parser.add_argument("--graph", type=Path, help="graph of --method graph")
    parser.add_argument("--with-words", type=Path, help="graph with added words, which is searched without hotwords")
    parser.add_argument("--lm", type=Path, required=True, help="ARPA file whose unigrams say which words are rare")
    parser.add_argument("--rare", type=float, default=-5.0, help="log10 of the probability below which a word is rare")
    parser.add_argument("--weight", type=float, action="append", help=f"weight of hotwords, default {DEFAULT_WEIGHT}")
    parser.add_argument("--acoustic-scale", type=float, default=1.0, help="acoustic scale of graph search")
    parser.add_argument("--beam", type=float, help="beam of the search")
    parser.add_argument("--limit", type=int, default=0, help="largest number of utterances of each manifest; 0: all")
    parser.add_argument("--write-new", type=Path, help="file for the words that the graph lacks; nothing is measured")
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    options = parse_arguments()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    experiment = open_experiment(options.exp, device="cpu")
    unigrams = read_unigrams(options.lm)
    known = set(load_graph(options.graph).words) if options.graph else set(unigrams)
    utterances = read_utterances(experiment, options.cuts, options.limit)
    words = choose_words(utterances, unigrams, known, options.rare)
    if options.write_new:
        options.write_new.write_text("".join(f"{word}\n" for word in sorted(words.new)), encoding="utf-8")
        return
    frames = sum(len(utterance.log_probs) for utterance in utterances)
    hours = frames * experiment.frame_seconds / 3600
    print(f"{len(utterances)} utterances, {hours:.2f} h; {len(words.known)} rare words that are known, ", end="")
    print(f"{len(words.new)} new ones, {len(words.distractors)} distractors; one thread")
    print("| search | recall, known | recall, new | false alarms | WER | WER, rest | search s | opening s |")
    print("|---|---|---|---|---|---|---|---|")
    given = {"graph": options.graph, "acoustic_scale": options.acoustic_scale} if options.method == "graph" else {}
    given |= {"beam": options.beam} if options.beam else {}
    runs = [("no hotwords", {})]
    runs += [("graph with added words", {"graph": options.with_words})] if options.with_words else []
    for weight in options.weight or [DEFAULT_WEIGHT]:
        runs.append((f"hotwords, weight {weight:g}", {"hotwords": [f"{word}\t{weight}" for word in words.all]}))
    for name, more in runs:
        begin = time.perf_counter()
        setup = open_search(options.method, experiment.tokenizer, given | more)
        opening = time.perf_counter() - begin
        print(row(name, measure(setup, experiment, utterances, words), opening), flush=True)


if __name__ == "__main__":
    main()
