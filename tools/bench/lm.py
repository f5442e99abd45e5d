"""N-gram language models: training, reading and scoring, time and memory.

train       From a text file to an ARPA file, modified Kneser-Ney, in this process. Baselines: "kaldingram", when it is
            installed, which is plain Python with one discount per order and no interpolation, so less work; and
            "dictionaries", the textbook algorithm: the same smoothing on dictionaries of tuples.
read        The model from its file, compiled or ARPA, measured in words of its training text per second. Baseline:
            "ARPA".
score       Log-probs of every word of the text: all at once ("asrtool"), word by word as in a search
            ("asrtool, steps"). Baseline: "dictionaries", a dictionary of tuples that backs off. The exit status is 1
            if the log-probs of both differ.
memory      Peak MB that each implementation of training adds, in a fresh process.

The text is synthetic: words have a Zipf distribution, and each word has few likely successors.
"""

import argparse
import contextlib
import io
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from common import Report, Run, parse, parser

from asrtool.lm.arpa import read_arpa, write_arpa
from asrtool.lm.corpus import build_corpus, limit_vocabulary, read_word_sequences
from asrtool.lm.ngram import BOS, EOS
from asrtool.lm.ngram_files import read_ngrams, write_ngrams
from asrtool.lm.ngram_training import train_ngrams

WORDS_A_SENTENCE = 18  # mean of read books
CLOSE = 1e-3  # natural log; a word in a file has seven digits, and a step of back-off adds a few


def make_text(path: Path, count: int, vocabulary: int) -> Path:
    """`count` sentences. Half of the words depend on the word before: it allows 20 of Zipf's."""
    draw = np.random.default_rng(1)
    ends = draw.random(count * WORDS_A_SENTENCE) < 1 / WORDS_A_SENTENCE
    free = draw.zipf(1.2, len(ends)) % vocabulary
    choice, likes = draw.random(len(ends)) < 0.5, draw.integers(20, size=len(ends))
    lines, word = [[]], 0
    for place, end in enumerate(ends.tolist()):
        word = (word * 31 + int(likes[place]) ** 2) % vocabulary if choice[place] else int(free[place])
        lines[-1].append(f"w{word}")
        if end:
            lines.append([])
    path.write_text("".join(" ".join(line) + "\n" for line in lines if line))
    return path


def by_asrtool(text: Path, order: int, out: Path) -> None:
    """As `asrtool lm train TEXT OUT`, without its lines of progress."""
    with contextlib.redirect_stderr(io.StringIO()):
        write_arpa(train_ngrams(limit_vocabulary(build_corpus(read_word_sequences([text]))), order), out)


def by_kaldingram(text: Path, order: int, out: Path) -> None:
    """As `kaldingram train`."""
    from kaldingram.train import main

    with contextlib.redirect_stderr(io.StringIO()):
        main(["--ngram-order", str(order), "--text", str(text), "--lm", str(out)])


def by_dictionaries(text: Path, order: int, out: Path) -> None:
    """Chen and Goodman's modified Kneser-Ney as published, on tuples of words."""
    raw, before, words = Counter(), defaultdict(set), {"<unk>", BOS, EOS}
    for line in text.read_text().splitlines():
        line = [BOS, *line.split(), EOS]
        words.update(line)
        for end in range(1, len(line) + 1):
            for n in range(1, min(order, end) + 1):
                gram = tuple(line[end - n : end])
                raw[gram] += 1
                if end > n:
                    before[gram].add(line[end - n - 1])
    counts = {gram: raw[gram] if len(gram) == order or gram[0] == BOS else len(before[gram]) for gram in raw}
    counts |= {(BOS,): 0, ("<unk>",): 0}
    probs, gammas = {(): 1 / (len(words) - 1)}, {}
    for n in range(1, order + 1):
        _smooth([gram for gram in counts if len(gram) == n], counts, probs, gammas)
    _write(probs, gammas, order, out)


def _smooth(grams: list, counts: dict, probs: dict, gammas: dict) -> None:
    times = Counter(counts[gram] for gram in grams)
    discounts = [0, 0.5, 1.0, 1.5]  # of lmplz where the counts of counts have gaps
    if times[1] and times[2] and times[3]:
        y = times[1] / (times[1] + 2 * times[2])
        discounts = [0] + [j - (j + 1) * y * times[j + 1] / times[j] for j in (1, 2, 3)]
    totals, spent = Counter(), Counter()
    for gram in grams:
        totals[gram[:-1]] += counts[gram]
        spent[gram[:-1]] += discounts[min(counts[gram], 3)]
    for history, total in totals.items():
        gammas[history] = spent[history] / total
    for gram in grams:
        kept = counts[gram] - discounts[min(counts[gram], 3)]
        probs[gram] = kept / totals[gram[:-1]] + gammas[gram[:-1]] * probs[gram[1:]]


def _write(probs: dict, gammas: dict, order: int, out: Path) -> None:
    probs[BOS,] = 1e-99
    orders = [[gram for gram in probs if len(gram) == n] for n in range(1, order + 1)]
    with open(out, "w") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(grams)}\n" for n, grams in enumerate(orders, 1)))
        for n, grams in enumerate(orders, 1):
            file.write(f"\n\\{n}-grams:\n")
            for gram in grams:
                backoff = f"\t{math.log10(gammas[gram]):.7g}" if gram in gammas else ""
                file.write(f"{math.log10(probs[gram]):.7g}\t{' '.join(gram)}{backoff}\n")
        file.write("\n\\end\\\n")


def read_dictionary(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """{n-gram: natural logs of its probability and back-off weight} of an ARPA file."""
    rows = (line.split("\t") for line in path.read_text().splitlines() if "\t" in line)
    return {tuple(row[1].split()): tuple(math.log(10) * float(x) for x in (row[0], *row[2:], 0)[:2]) for row in rows}


def score_by_dictionary(model: dict, lines: list[list[str]], order: int) -> float:
    """Returns the log-prob of a text."""
    total = 0.0
    for line in lines:
        line = [BOS, *line, EOS]
        for end in range(1, len(line)):
            history = tuple(line[max(0, end - order + 1) : end])
            while (*history, line[end]) not in model:
                total += model.get(history, (0, 0))[1]
                history = history[1:]
            total += model[*history, line[end]][0]
    return total


def score_by_steps(model, lines: list[list[str]]) -> float:
    """Returns the log-prob of a text, computed word by word."""
    total = 0.0
    for line in lines:
        state = model.start
        for word in (*line, EOS):
            logprob, state = model.score(state, word)
            total += logprob
    return total


def compare_training(report: Report, text: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Measures time and memory of each way to train the same model, and checks that two of them agree."""
    ways = {"asrtool": by_asrtool, "dictionaries": by_dictionaries}
    if find_spec("kaldingram"):
        ways = {"asrtool": by_asrtool, "kaldingram": by_kaldingram, "dictionaries": by_dictionaries}
    words = len(text.read_text().split())
    for order in arguments.orders:
        runs = [
            Run(name, lambda way=way, name=name, order=order: way(text, order, folder / f"{name}{order}.arpa"), words)
            for name, way in ways.items()
        ]
        report.compare(f"train, order {order}", runs, order=order)
        for name, way in ways.items():
            report.fact(f"MB, order {order}, {name}", _memory(way, text, order, folder / "memory.arpa"))


def _memory(way: Callable, *arguments) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_grown, way, *arguments).result()


def _grown(way: Callable, *arguments) -> float:
    before = _peak()
    way(*arguments)
    return _peak() - before


def _peak() -> float:
    """Returns the peak memory of this process in MB (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def compare_reading(report: Report, text: Path, folder: Path, order: int) -> None:
    """The model of `order` that asrtool has written, from each form of file."""
    words = len(text.read_text().split())
    arpa, compiled = folder / f"asrtool{order}.arpa", folder / f"asrtool{order}.npz"
    write_ngrams(read_arpa(arpa), compiled)
    runs = [
        Run("compiled", lambda: read_ngrams(compiled), words),
        Run("ARPA", lambda: read_arpa(arpa), words),
    ]
    report.compare(f"read, order {order}", runs, order=order)
    for path in (arpa, compiled):
        report.fact(f"MB, order {order}, {path.suffix}", path.stat().st_size / 1e6)


def compare_scoring(report: Report, text: Path, folder: Path, order: int) -> None:
    """The text under the model of `order`, of which asrtool and the dictionaries have written a file each."""
    lines = [line.split() for line in text.read_text().splitlines()]
    model, dictionary = (
        read_arpa(folder / f"asrtool{order}.arpa"),
        read_dictionary(folder / f"dictionaries{order}.arpa"),
    )
    tokens = np.array([number for line in lines for number in model.word_ids([BOS, *line, EOS])])
    words = len(tokens) - len(lines)
    runs = [
        Run("asrtool", lambda: model.token_logprobs(tokens), words),
        Run("asrtool, steps", lambda: score_by_steps(model, lines), words),
        Run("dictionaries", lambda: score_by_dictionary(dictionary, lines, order), words),
    ]
    report.compare(f"score, order {order}", runs, order=order)
    found = [float(model.token_logprobs(tokens).sum()), score_by_steps(model, lines)]
    expected = score_by_dictionary(dictionary, lines, order)
    report.fact(f"same log-probs, order {order}", max(abs(one - expected) / words for one in found) < CLOSE)


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3)
    command_line.add_argument("--orders", type=int, nargs="+", default=[3, 4], help="orders of the models")
    command_line.add_argument("--text", type=Path, help="text to use instead, one sentence per line")
    command_line.add_argument(
        "--sentences", type=int, default=10_000, help="sentences of the synthetic text [default: %(default)s]"
    )
    command_line.add_argument(
        "--vocabulary", type=int, default=20_000, help="vocabulary size of the synthetic text [default: %(default)s]"
    )
    return command_line


def main() -> int:
    """Measures and reports; exit status 1 if two implementations disagree."""
    arguments = parse(options(), orders=[3], sentences=200, vocabulary=100)
    torch.set_num_threads(1)
    report = Report("lm", arguments, "words")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = arguments.text or make_text(folder / "text.txt", arguments.sentences, arguments.vocabulary)
        compare_training(report, text, folder, arguments)
        for order in arguments.orders:
            compare_reading(report, text, folder, order)
            compare_scoring(report, text, folder, order)
    report.finish()
    return 0 if all(value for name, value in report.values["facts"].items() if name.startswith("same")) else 1


if __name__ == "__main__":
    sys.exit(main())
