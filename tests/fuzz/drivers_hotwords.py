"""Drivers of hotwords and of words that a graph gets: their files, and graphs that say where words begin."""

from pathlib import Path

import torch

from asrtool.decoding.search_setup import open_search
from asrtool.graphs.added_words import read_added_words
from asrtool.graphs.build import build_graph
from asrtool.text.tokenizer import load_tokenizer
from tests.decoding.graphs import random_log_probs
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.material import WORDS
from tests.graphs.paths import Bigram

FRAMES = 12
NAMES = list(WORDS)
LM = Bigram({word: -0.7 for word in NAMES} | {"</s>": -0.6}, {"<s>": -0.1}, {("<s>", NAMES[0]): -0.3})


def _hotword_seeds(folder: Path) -> list[Path]:
    build_graph(folder / "graph", material.tokenizer(), lm=LM.write(folder / "lm.arpa"))
    hotwords = folder / "graph" / "hotwords.txt"
    hotwords.write_text(f"# names\n{NAMES[0]}\t2.5\n{NAMES[1]} {NAMES[2]}\n", encoding="utf-8")
    return [hotwords, *(folder / "graph" / name for name in ("graph.json", "lexicon.txt"))]


def _search(path: Path) -> None:
    tokenizer = load_tokenizer(material.tokenizer())
    options = {"hotwords": path.parent / "hotwords.txt"}
    log_probs = torch.from_numpy(random_log_probs(FRAMES, tokenizer.size, 1))[None]
    for method, more in (("prefix", {}), ("graph", {"graph": path.parent})):
        open_search(method, tokenizer, options | more).search(log_probs, torch.tensor([FRAMES]))


def _added_word_seeds(folder: Path) -> list[Path]:
    path = folder / "words.txt"
    path.write_text("# new\nABBA\nDA like=DAB d a\nDA d a a\nAD probability=1e-4 a d\n", encoding="utf-8")
    return [path]


def _read_added_words(path: Path) -> None:
    for word in read_added_words(path, ["a", "b", "d"]):
        if word.word.split() != [word.word] or not all(all(one) for one in word.pronunciations):
            raise Wrong(f"{word} is not a word with units")


DRIVERS = [
    Driver("hotwords", _hotword_seeds, _search),
    Driver("added-words", _added_word_seeds, _read_added_words),
]
