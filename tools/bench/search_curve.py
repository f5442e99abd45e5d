"""Graph search of a trained system: word error rate and real-time factor at several beams and limits of active states.

    python3 tools/bench/search_curve.py exp/mine data/dev.jsonl.gz --graph data/lang/graph \
        --decoding-weights exp/mine/decode/dev/decoding_weights.json --beams 8 10 12 14 16 --max-active 7000 1000

The model computes the log-probs once in each of --precisions. They are then searched with each combination of a beam, a
limit of active states and a blank threshold, in one thread. A row has the word error rate, the real-time factor of
model and search in CPU time of this process (nearly independent of the load by other processes), the time of the search
compared with the most expensive one of the run, and the number of utterances whose words differ from that search's.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import environment, write_json

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.log_probs import UtteranceLogProbs
from asrtool.decoding.search_setup import open_graph_search
from asrtool.experiment import Experiment, open_experiment
from asrtool.scoring.wer import align_words, count_word_errors

COLUMNS = "{:>9} {:>7} {:>10} {:>7} {:>8} {:>7} {:>10} {:>11} {:>9} {:>8}"


@dataclass
class LogProbs:
    """The log-probs (T, V) float32 of the utterances of a set in one precision, and what they cost."""

    precision: str
    utterances: list[UtteranceLogProbs]
    audio_seconds: float
    model_rtf: float


def compute_log_probs(experiment: Experiment, cuts: Path, batch_seconds: float, limit: int | None) -> LogProbs:
    """Returns the log-probs of the first `limit` utterances."""
    utterances: list[UtteranceLogProbs] = []
    audio_seconds = model_seconds = 0.0
    for batch in experiment.batches(OrderedSampler(cuts, batch_seconds), workers=0):
        start = time.process_time()
        log_probs, lens = experiment.log_probs(batch)
        model_seconds += time.process_time() - start
        audio_seconds += batch.seconds
        rows = zip(batch.ids, batch.texts, log_probs.float().numpy(), lens.tolist(), strict=True)
        utterances += [UtteranceLogProbs(name, text, row[:length]) for name, text, row, length in rows]
        if limit and len(utterances) >= limit:
            break
    model_rtf = model_seconds / audio_seconds
    if limit:
        utterances = utterances[:limit]
        audio_seconds = sum(len(one.log_probs) for one in utterances) * experiment.frame_seconds
    return LogProbs(experiment.computed_precision, utterances, audio_seconds, model_rtf)


def measure(search: GraphSearch, log_probs: LogProbs) -> tuple[dict, list[str]]:
    """Returns the figures of a search, and its words of each utterance."""
    errors = words = 0
    seconds = 0.0
    texts = []
    for utterance in log_probs.utterances:
        start = time.process_time()
        hypothesis = search.decode(utterance.log_probs)
        seconds += time.process_time() - start
        texts.append(" ".join(hypothesis.words or []))
        counts = count_word_errors(align_words(utterance.ref, texts[-1]))
        errors += counts.errors
        words += counts.length
    figures = {
        "precision": log_probs.precision,
        "beam": search.options.beam,
        "max_active": search.options.max_active,
        "wer": 100 * errors / max(1, words),
        "errors": errors,
        "words": words,
        "model_rtf": log_probs.model_rtf,
        "search_rtf": seconds / log_probs.audio_seconds,
    }
    return figures, texts


def rows(
    searches: list[GraphSearch], all_log_probs: list[LogProbs], num_turns: int
) -> Iterator[tuple[dict, list[str]]]:
    """Yields the figures of each search in each precision; the time of a search is its shortest of `num_turns`."""
    for log_probs, search in itertools.product(all_log_probs, searches):
        turns = [measure(search, log_probs) for _ in range(num_turns)]
        yield min(turns, key=lambda turn: turn[0]["search_rtf"])


def compare(results: list[tuple[dict, list[str]]]) -> list[dict]:
    """Adds to each row what it is compared with: the most expensive search of all."""
    baseline, baseline_texts = max(results, key=lambda result: result[0]["search_rtf"])
    for row, texts in results:
        row["time"] = row["search_rtf"] / baseline["search_rtf"]
        row["other_words"] = sum(one != other for one, other in zip(texts, baseline_texts, strict=True))
    return [row for row, _ in results]


def print_table(table: list[dict]) -> None:
    """Prints the rows."""
    head = ["precision", "beam", "max active", "WER %", "errors", "words", "model RTF", "search RTF", "time", "differ"]
    print(COLUMNS.format(*head))
    for row in table:
        numbers = [f"{row['model_rtf']:.4f}", f"{row['search_rtf']:.4f}", f"{row['time']:.3f}", row["other_words"]]
        first = [row["precision"], f"{row['beam']:g}", row["max_active"], f"{row['wer']:.2f}"]
        print(COLUMNS.format(*first, row["errors"], row["words"], *numbers))


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("exp", type=Path, help="experiment folder or pack")
    command_line.add_argument("cuts", type=Path, help="manifest with transcripts")
    command_line.add_argument("--graph", type=Path, required=True, help="folder of `asrtool graph`")
    command_line.add_argument("--decoding-weights", type=Path, help="file of `asrtool tune`")
    command_line.add_argument("--priors", type=Path, help="counts of the units")
    command_line.add_argument("--rescore", type=Path, help="n-gram model for lattice rescoring, with --graph-lm")
    command_line.add_argument("--graph-lm", type=Path, help="n-gram model that the graph was built from")
    command_line.add_argument("--lattice-beam", type=float, help="build lattices [default: 8 with --rescore]")
    command_line.add_argument("--beams", type=float, nargs="+", default=[8.0, 10.0, 12.0, 14.0, 16.0])
    command_line.add_argument("--max-active", type=int, nargs="+", default=[7000], help="limits of active states")
    command_line.add_argument("--precisions", nargs="+", default=["auto"], choices=["fp32", "bf16", "auto"])
    command_line.add_argument("--batch-seconds", type=float, default=200.0, help="audio in a batch of the model")
    command_line.add_argument("--utterances", type=int, help="number of utterances [default: all]")
    command_line.add_argument("--turns", type=int, default=1, help="repetitions of each search; the shortest counts")
    command_line.add_argument("--json", metavar="FILE", help="file for the figures")
    return command_line


def open_searches(arguments: argparse.Namespace, experiment: Experiment) -> list[GraphSearch]:
    """Returns a search for each combination of a beam and a limit; all read one graph."""
    names = ("graph", "decoding_weights", "priors", "rescore", "graph_lm", "lattice_beam")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    first, _ = open_graph_search(experiment.tokenizer, given)
    pairs = itertools.product(arguments.beams, arguments.max_active)
    return [first.with_options(replace(first.options, beam=beam, max_active=limit)) for beam, limit in pairs]


def main() -> int:
    """Measures and reports."""
    arguments = options().parse_args()
    torch.set_num_threads(1)
    facts = environment()
    print(f"search_curve: {facts['device']}, {facts['cores']} cores, load {facts['load']}, {facts['time']}")
    searches: list[GraphSearch] = []
    all_log_probs = []
    for precision in arguments.precisions:
        experiment = open_experiment(arguments.exp, device="cpu", precision=precision)
        searches = searches or open_searches(arguments, experiment)
        all_log_probs.append(
            compute_log_probs(experiment, arguments.cuts, arguments.batch_seconds, arguments.utterances)
        )
    table = compare(list(rows(searches, all_log_probs, arguments.turns)))
    print(f"{len(all_log_probs[0].utterances)} utterances, {all_log_probs[0].audio_seconds:.0f} s of audio")
    print_table(table)
    if arguments.json:
        sizes = {name: str(value) for name, value in vars(arguments).items()}
        write_json({"benchmark": "search_curve", **facts, "sizes": sizes, "rows": table}, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
