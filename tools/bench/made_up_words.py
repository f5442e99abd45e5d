"""A graph of random words, and log-probs of sentences of them in noise, for benchmarks without a trained system."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asrtool.graphs.build import build_graph
from asrtool.text.tokenizer import BLANK_SYMBOL, SPACE, SymbolTokenizer, Tokenizer, save_tokenizer

FRAME_SECONDS = 0.04
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COMMON, RARE, NEW = 100, 60, 10  # words of the language model, and words that it lacks
RARE_LOG10 = -6.0  # of a rare word's probability
SENTENCES, WORDS = 30, 8  # sentences, and words of each
PEAK = 3.0  # of the spoken unit above noise of standard deviation 1.5: some words are not recognised


class MadeUpWords(NamedTuple):
    """A tokenizer, the folder of a graph, its ARPA file, and utterances: transcript and log-probs (T, V)."""

    tokenizer: Tokenizer
    graph: Path
    lm: Path
    utterances: list[tuple[str, torch.Tensor]]


def write(folder: Path, seed: int = 1) -> MadeUpWords:
    """Writes tokenizer, language model and graph into `folder`. A fifth of the words in utterances are rare or new."""
    draw = np.random.default_rng(seed)
    words = _random_words(draw, COMMON + RARE + NEW)
    common, rare, new = words[:COMMON], words[COMMON:-NEW], words[-NEW:]
    tokenizer = SymbolTokenizer("char", [BLANK_SYMBOL, *LETTERS, SPACE])
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    _write_unigrams(folder / "lm.arpa", common, rare)
    build_graph(folder / "graph", folder / "tokenizer.json", lm=folder / "lm.arpa")
    spoken = [*rare[: RARE // 2], *new]  # the other rare words are distractors
    utterances = []
    for _ in range(SENTENCES):
        chosen = [str(draw.choice(spoken if draw.random() < 0.2 else common)) for _ in range(WORDS)]
        utterances.append((" ".join(chosen), _log_probs(draw, tokenizer, " ".join(chosen))))
    return MadeUpWords(tokenizer, folder / "graph", folder / "lm.arpa", utterances)


def _random_words(draw: np.random.Generator, count: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(draw.choice(list(LETTERS), draw.integers(4, 8)))] = None
    return list(words)


def _write_unigrams(path: Path, common: list[str], rare: list[str]) -> None:
    frequent = np.log10((1 - len(rare) * 10**RARE_LOG10) / (len(common) + 1))  # </s> is one of them
    lines = [f"{frequent:.5f} {word}" for word in ("</s>", *common)]
    lines += ["-99 <s>", "-99 <unk>", *(f"{RARE_LOG10} {word}" for word in rare)]
    path.write_text("\n".join([f"\\data\\\nngram 1={len(lines)}\n\n\\1-grams:", *lines, "\n\\end\\\n"]))


def _log_probs(draw: np.random.Generator, tokenizer: Tokenizer, text: str) -> torch.Tensor:
    """Returns log-probs (T, V) of the units of `text`, each with a blank after it, in noise."""
    path = [label for unit in tokenizer.encode(text) for label in (unit, 0)]
    scores = draw.normal(0, 1.5, (len(path), tokenizer.size))
    scores[np.arange(len(path)), path] += PEAK
    return torch.from_numpy(scores).float().log_softmax(-1)
