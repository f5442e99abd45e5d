"""Small decoding graphs, and their best paths by plain enumeration of states and frames."""

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import kaldifst
import numpy as np

from asrtool.decoding.lattice import Lattice
from asrtool.files import file_hash
from asrtool.graphs.folder import save_graph, tokenizer_hash
from asrtool.text.tokenizer import Tokenizer

ARPA = """\\data\\
ngram 1=7
ngram 2=2

\\1-grams:
-2.0\t<unk>
0\t<s>\t-0.1
-0.9\t</s>
-0.5\tone\t-0.2
-0.7\ttwo\t-0.4
-0.8\tthree\t-0.1
-0.9\tfour\t-0.1

\\2-grams:
-0.2\t<s> one
-0.3\tone two

\\end\\
"""  # of the words of tests/tiny.py


def graph(lines: list[str], words: int, outputs: int | None = None, topology: str = "ctc"):
    """A graph as `load_graph` gives it, of OpenFst's text lines; its words are w1, w2 ...

    `outputs`: the model's, as many as there are labels if not given.
    """
    labels = [int(fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
    meta = {"topology": topology, "outputs": outputs or max(labels)}
    fst = kaldifst.compile("\n".join(lines) + "\n")
    return SimpleNamespace(
        fst=fst, words=["<eps>", *(f"w{n}" for n in range(1, words + 1))], meta=meta, lines=lines, folder=None
    )


def word_graph(vocabulary: int, cost: float = 0.1):
    """CTC paths over units 0 .. vocabulary - 1 in which unit n is the word wn; a word n costs n * cost, the end 0.5."""
    lines = [
        f"{last} {unit} {unit + 1} {unit if unit not in (0, last) else 0} {unit * cost if unit != last else 0}"
        for last in range(vocabulary)
        for unit in range(vocabulary)
    ]
    return graph(lines + [f"{last} 0.5" for last in range(vocabulary)], vocabulary - 1)


def random_graph(seed: int, states: int = 6, vocabulary: int = 4, words: int = 3, arcs: int = 16):
    """Random arcs, some of them epsilons (those only go to higher states, so that there are no epsilon cycles)."""
    draw = np.random.default_rng(seed)
    lines = []
    for source, target in [(0, 1), *draw.integers(states, size=(arcs, 2)).tolist()]:
        label = 0 if source < target and draw.random() < 0.3 else draw.integers(1, vocabulary + 1)
        lines.append(f"{source} {target} {label} {draw.integers(words + 1)} {draw.random():.4f}")
    return graph(lines + [f"{state} {draw.random():.4f}" for state in (1, states - 1)], words, vocabulary)


def all_word_sequences(lines: list[str], log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """The cost of the best complete path of each word sequence: every path through the graph, frame by frame."""
    arcs, final = defaultdict(list), {}
    for fields in map(str.split, lines):
        if len(fields) == 2:
            final[int(fields[0])] = float(fields[1])
        else:
            source, target, label, word = map(int, fields[:4])
            arcs[source].append((target, label, word, float(fields[4])))
    reached = _epsilons({(0, ()): 0.0}, arcs)
    for frame in log_probs:
        following = {}
        for (state, words), cost in reached.items():
            for target, label, word, weight in arcs[state]:
                if label:
                    _relax(following, (target, _append(words, word)), cost + weight - frame[label - 1])
        reached = _epsilons(following, arcs)
    found = {}
    for (state, words), cost in reached.items():
        if state in final:
            _relax(found, words, cost + final[state])
    return found


def _epsilons(reached: dict, arcs: dict) -> dict:
    waiting = sorted(reached)
    while waiting:
        state, words = waiting.pop()
        for target, label, word, weight in arcs[state]:
            key, cost = (target, _append(words, word)), reached[state, words] + weight
            if not label and cost < reached.get(key, np.inf):
                reached[key] = cost
                waiting.append(key)
    return reached


def _relax(costs: dict, key: tuple, cost: float) -> None:
    costs[key] = min(cost, costs.get(key, np.inf))


def _append(words: tuple, word: int) -> tuple:
    return (*words, word) if word else words


def random_log_probs(frames: int, vocabulary: int, seed: int) -> np.ndarray:
    """(T, V) float32."""
    return np.log(np.random.default_rng(seed).dirichlet(np.full(vocabulary, 0.5), frames) + 1e-6).astype(np.float32)


def read_lattice(text: str) -> Lattice:
    """The lattice of the lines of `Lattice.to_text`, or of a text archive of Kaldi (without the utterance's id)."""
    arcs, final_costs = [], {}
    for fields in map(str.split, text.splitlines()):
        graph, acoustic = map(float, fields[-1].split(",")[:2]) if "," in fields[-1] else (0.0, 0.0)
        labels = [int(field) for field in fields if "," not in field]
        if len(labels) == 4:
            arcs.append((*labels, graph, acoustic))
        else:
            final_costs[labels[0]] = graph, acoustic
    num_states = 1 + max([*final_costs, *(state for arc in arcs for state in arc[:2])])
    final = np.full((num_states, 2), np.inf)
    for state, costs in final_costs.items():
        final[state] = costs
    return Lattice.from_arcs(arcs, final)


def save_word_graph(
    folder: Path, tokenizer: Tokenizer, lm: Path | None = None, lines: list[str] | None = None, **meta
) -> Path:
    """A graph folder of `lines` (by default of `word_graph`) for a word tokenizer; `lm`: the file it was made with."""
    lines = lines or word_graph(tokenizer.size).lines
    fst, words = kaldifst.compile("\n".join(lines) + "\n"), ["<eps>", *tokenizer.symbols[1:], "#0"]
    hashes = {"tokenizer": tokenizer_hash(tokenizer), "lexicon": None, "lm": lm and file_hash(lm)}
    meta = {"kind": "HLG", "topology": "ctc", "outputs": tokenizer.size, "sizes": {"HLG": {}}, "sha256": hashes} | meta
    save_graph(folder, {meta["kind"]: fst}, words, ["<eps>", *tokenizer.symbols], meta)
    return folder
