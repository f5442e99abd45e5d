"""Graph search: real-time factor at several beams on one core, without the network.

--graph FOLDER --log-probs FOLDER measures a real system: a graph of `asrtool graph`, and log-probs of a model, as
`asrtool tune` stores them in EXP/decode/SET/log_probs. Without them, the graph is a lexicon of random words with equal
costs and no language model, and the log-probs are paths of words in noise. This shows how the search scales, but says
nothing about a trained system; the report calls it "made up".

best path   FasterDecoder, as in `asrtool decode --method graph`. Baseline of all: the same at the first beam.
lattice     LatticeSimpleDecoder and the n best of its lattice.
streaming   chunks of --chunk frames, partial results after each, both decoders.
k2          the best path by asrtool/decoding/k2_search.py if k2 can be imported, --batch utterances at a time; in
            how many utterances its words are those of kaldi-decoder at the same beam, and with real log-probs both
            WERs.
"""

import argparse
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from common import Report, Run, parse, parser

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.k2_search import K2Search, require_k2
from asrtool.errors import UserError
from asrtool.scoring.wer import align_words, count_word_errors
from asrtool.streaming.graph_search import StreamingGraph, StreamingGraphSearch

AIM = 0.05  # real-time factor beyond the network, for a trigram of 64,000 words


def made_up_graph(words: int, units: int, seed: int = 1) -> tuple[SimpleNamespace, list[list[int]]]:
    """A prefix tree of CTC paths over `words` random words of 3 to 9 units, in a loop; and the words' units."""
    import kaldifst

    draw = np.random.default_rng(seed)
    spelled = [draw.integers(1, units, draw.integers(3, 10)).tolist() for _ in range(words)]
    lines, nodes = ["0 0 1 0", "0 0.0"], {(): 0}  # a node n is state 2 n - 1 in its unit, 2 n in the blank behind it
    for number, spelling in enumerate(spelled, 1):
        for size, unit in enumerate(spelling, 1):
            if tuple(spelling[:size]) not in nodes:
                lines += _tree_arcs(nodes, tuple(spelling[:size]), unit + 1)
        node = nodes[tuple(spelling)]
        lines += [f"{state} 0 0 {number} {np.log(words):.3f}" for state in (2 * node - 1, 2 * node)]
    names = ["<eps>", *(f"w{number}" for number in range(1, words + 1))]
    meta = {"topology": "ctc", "outputs": units}
    return SimpleNamespace(fst=kaldifst.compile("\n".join(lines) + "\n"), words=names, meta=meta), spelled


def _tree_arcs(nodes: dict[tuple, int], key: tuple, label: int) -> list[str]:
    """The arcs of a new node: into it from its parent, its loops, and from unit to blank."""
    parent, node = nodes[key[:-1]], nodes.setdefault(key, len(nodes))
    before = [2 * parent] if parent == 0 or key[-2] == key[-1] else [2 * parent - 1, 2 * parent]
    state, blank = 2 * node - 1, 2 * node
    into = [f"{source} {state} {label} 0" for source in before]
    return [*into, f"{state} {state} {label} 0", f"{state} {blank} 1 0", f"{blank} {blank} 1 0"]


def made_up_log_probs(words: list[list[int]], utterances: int, frames: int, units: int) -> list[np.ndarray]:
    """Paths of random words, a unit and two blanks in turn, in noise: (T, V) float32 each."""
    draw, made = np.random.default_rng(2), []
    for _ in range(utterances):
        chosen = (words[number] for number in draw.integers(len(words), size=frames))
        path = list(itertools.islice((unit for word in chosen for one in word for unit in (one, 0, 0)), frames))
        scores = draw.normal(0, 1.5, (frames, units))
        scores[range(frames), path] += 7.0  # the right unit mostly has 0.9 of the probability and more
        made.append(torch.from_numpy(scores).float().log_softmax(-1).numpy())
    return made


def streamed(graph: StreamingGraph, log_probs: list[np.ndarray], chunk: int) -> None:
    """Decodes all utterances, chunk by chunk."""
    for frames in log_probs:
        search = StreamingGraphSearch(graph)
        for first in range(0, len(frames), chunk):
            search.advance(frames[first : first + chunk])
        search.finish()


def searched(search: GraphSearch, log_probs: list[np.ndarray]) -> list[list[str]]:
    """Returns the words of all utterances."""
    return [search.decode(frames).words for frames in log_probs]


def batched(search: GraphSearch, log_probs: list[np.ndarray], size: int) -> list[list[str]]:
    """Returns the words of all utterances, searched `size` at a time."""
    found = []
    for first in range(0, len(log_probs), size):
        rows = [torch.from_numpy(frames) for frames in log_probs[first : first + size]]
        lens = torch.tensor(list(map(len, rows)))
        found += search(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lens)
    return [hypothesis.words for hypothesis in found]


def compare_engines(report: Report, beam: float, ours: list, theirs: list, refs: list[str]) -> None:
    """How far two searches agree; `ours` and `theirs` are words of utterances, by kaldi-decoder and by k2."""
    same = sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours)
    report.fact(f"same best path by k2, beam {beam:g}", same, f"share of {len(ours)} utterances")
    report.aim(f"same best path by k2, beam {beam:g}", same, 0.99)
    for name, found in (("kaldi-decoder", ours), ("k2", theirs)) if refs else ():
        counts = [count_word_errors(align_words(ref, " ".join(words))) for ref, words in zip(refs, found, strict=True)]
        wer = 100 * sum(count.errors for count in counts) / max(1, sum(count.length for count in counts))
        report.fact(f"WER of {name}, beam {beam:g}, percent", round(wer, 3))


def load(arguments: argparse.Namespace):
    """The graph and the log-probs that were asked for, and their references; none where they are made up."""
    if bool(arguments.graph) != bool(arguments.log_probs):
        sys.exit("graph_decoding: --graph and --log-probs go together: made-up ones fit no real ones")
    if not arguments.graph:
        graph, words = made_up_graph(arguments.words, arguments.units)
        return graph, made_up_log_probs(words, arguments.utterances, arguments.frames, arguments.units), []
    from asrtool.decoding.log_probs import read_log_probs
    from asrtool.graphs.folder import load_graph

    stored = list(itertools.islice(read_log_probs(arguments.log_probs), arguments.utterances))
    log_probs = [one.log_probs.astype(np.float32) for one in stored]
    return load_graph(arguments.graph), log_probs, [one.ref for one in stored]


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3, limit=120)
    command_line.add_argument("--graph", type=Path, help="folder of `asrtool graph`")
    command_line.add_argument("--log-probs", type=Path, help="folder of stored log-probs, EXP/decode/SET/log_probs")
    command_line.add_argument("--beams", type=float, nargs="+", default=[8.0, 12.0, 16.0])
    command_line.add_argument(
        "--max-active",
        type=int,
        default=GraphOptions().max_active,
        help="largest number of active states [default: %(default)s]",
    )
    command_line.add_argument(
        "--frame-seconds", type=float, default=0.04, help="seconds of an output frame [default: %(default)s]"
    )
    command_line.add_argument("--chunk", type=int, default=8, help="frames of a chunk [default: %(default)s]")
    command_line.add_argument(
        "--batch", type=int, default=20, help="utterances that k2 searches at a time [default: %(default)s]"
    )
    command_line.add_argument("--utterances", type=int, default=10, help="utterances, at most [default: %(default)s]")
    command_line.add_argument(
        "--words", type=int, default=20000, help="words of the random lexicon [default: %(default)s]"
    )
    command_line.add_argument(
        "--units", type=int, default=40, help="units of the random lexicon, including the blank [default: %(default)s]"
    )
    command_line.add_argument(
        "--frames", type=int, default=250, help="frames of a random utterance [default: %(default)s]"
    )
    return command_line


def main() -> int:
    """Measure and report."""
    arguments = parse(options(), words=50, units=8, utterances=2, frames=30, beams=[8.0])
    torch.set_num_threads(1)
    graph, log_probs, refs = load(arguments)
    seconds = sum(map(len, log_probs)) * arguments.frame_seconds
    report = Report("graph_decoding", arguments, "audio s", extra=["RTF"])
    report.fact("graph and log-probs", "real" if refs else "made up")
    report.fact("states of the graph", graph.fst.num_states)
    rate = lambda rate: {"RTF": 1 / rate}  # noqa: E731
    first = GraphSearch(graph, GraphOptions(beam=arguments.beams[0], max_active=arguments.max_active))
    try:
        require_k2()
    except UserError as error:
        arguments.batch = 0
        report.fact("k2", f"not measured: {error}")
    for beam in arguments.beams:
        plain = GraphOptions(beam=beam, max_active=arguments.max_active)
        search, stream = GraphSearch(graph, plain), StreamingGraph(graph, plain)
        lattices = GraphSearch(graph, GraphOptions(beam=beam, lattice_beam=min(8.0, beam), nbest=10))
        runs = [
            Run("best path", lambda search=search: searched(search, log_probs), seconds),
            Run("lattice, 10 best", lambda search=lattices: searched(search, log_probs), seconds),
            Run("streaming", lambda graph=stream: streamed(graph, log_probs, arguments.chunk), seconds),
            Run(f"best path, beam {arguments.beams[0]:g}", lambda: searched(first, log_probs), seconds),
        ]
        if arguments.batch:
            batches = K2Search(graph, plain)
            runs.insert(1, Run("k2", lambda search=batches: batched(search, log_probs, arguments.batch), seconds))
            compare_engines(report, beam, searched(search, log_probs), runs[1].call(), refs)
        report.compare(f"beam {beam:g}", runs, rate, beam=beam)
        report.aim(f"RTF of the best path, beam {beam:g}", report.rate(f"beam {beam:g}", "RTF"), AIM, at_most=True)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
