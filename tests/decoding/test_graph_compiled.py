"""Search in graphs as `asrtool graph` compiles them: scores of acoustic and language model, and rescoring."""

import itertools

import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.lattice_rescoring import rescore_lattice
from asrtool.graphs.build import build_graph
from asrtool.graphs.folder import load_graph
from asrtool.lm.ngram_files import load_lm
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.decoding.graphs import random_log_probs

WORDS = ["x", "y", "z"]
ARPA = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
0\t<s>\t-0.5
-0.9\t</s>
-0.5\tx\t-0.4
-0.7\ty\t-0.6
-0.8\tz\t-0.5

\\2-grams:
-0.2\t<s> x
-0.3\tx y
-0.4\ty y
-0.1\tz </s>

\\end\\
"""  # each bigram is likelier than backing off, so that the graph's best path is the ARPA's


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A graph of ARPA, that model, and another one."""
    folder = tmp_path_factory.mktemp("graph")
    save_tokenizer(train_tokenizer("word", WORDS), folder / "tokenizer.json")
    (folder / "old.arpa").write_text(ARPA, encoding="utf-8")
    (folder / "new.arpa").write_text(ARPA.replace("-0.3\tx y", "-1.9\tx y").replace("-0.8\tz", "-0.1\tz"), "utf-8")
    build_graph(folder / "graph", folder / "tokenizer.json", lm=folder / "old.arpa")
    graph = load_graph(folder / "graph", load_tokenizer(folder / "tokenizer.json"))
    return graph, load_lm(folder / "old.arpa"), load_lm(folder / "new.arpa")


def best_scores(log_probs: np.ndarray, lm) -> dict[str, float]:
    """Of each word sequence the best CTC path's log-probability and the model's, by enumeration."""
    found: dict[str, float] = {}
    for path in itertools.product(range(4), repeat=len(log_probs)):
        text = " ".join(WORDS[unit - 1] for unit, _ in itertools.groupby(path) if unit)
        score = sum(log_probs[frame, unit] for frame, unit in enumerate(path))
        found[text] = max(score, found.get(text, -np.inf))
    return {text: score + sentence(lm, text.split()) for text, score in found.items()}


def sentence(lm, words: list[str]) -> float:
    total, state = 0.0, lm.start
    for word in [*words, "</s>"]:
        score, state = lm.score(state, word)
        total += score
    return total


@pytest.mark.parametrize("model", ["its own", "another"])
@pytest.mark.parametrize("seed", range(4))
def test_all_words_have_the_scores_of_both_models(made, seed, model):
    graph, old, new = made
    lm, change = (
        (old, None) if model == "its own" else (new, lambda found: rescore_lattice(found, graph.words, old, new))
    )
    log_probs = random_log_probs(5, 4, seed)
    search = GraphSearch(graph, GraphOptions(beam=1e4, lattice_beam=1e4, nbest=100_000), rescore=change)
    best = search.decode(log_probs)
    found = {" ".join(one.words): one.score for one in (best, *best.others)}
    expected = best_scores(log_probs, lm)
    assert {text: score for text, score in expected.items() if text} == pytest.approx(
        {text: score for text, score in found.items() if text}, abs=1e-3
    )
    assert best.complete and best.score == max(found.values())
