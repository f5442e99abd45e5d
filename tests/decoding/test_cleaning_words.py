"""The search that recognises the bad utterances of `asrtool clean` in words."""

from dataclasses import replace

import pytest

from asrtool.decoding.cleaning_words import open_word_search
from asrtool.decoding.graph_search import GraphSearch
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.system_files import SystemFiles
from asrtool.text.tokenizer import SymbolTokenizer
from tests.decoding.graphs import save_word_graph
from tests.tiny import make_experiment


@pytest.fixture(scope="module")
def system(tiny_config, tokenizer_file, tmp_path_factory):
    return open_experiment(make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(), tokenizer_file), device="cpu")


@pytest.fixture(scope="module")
def graph(system, tmp_path_factory):
    return save_word_graph(tmp_path_factory.mktemp("lang") / "graph", system.tokenizer)


def test_the_graph_that_a_system_carries_is_searched_without_lattices(system, graph):
    options = {"graph": {"lattice_beam": 6.0, "nbest": 5, "beam": 12.0}}
    search = open_word_search(replace(system, files=SystemFiles(graph=graph, options=options)), {})
    assert isinstance(search, GraphSearch) and search.graph.folder == graph
    assert (search.options.beam, search.options.lattice_beam, search.options.nbest) == (12, None, 1)


def test_words_are_searched_greedily_without_a_graph_and_phones_not_at_all(system, monkeypatch):
    assert not isinstance(open_word_search(system, {}), GraphSearch)
    monkeypatch.setattr(SymbolTokenizer, "output_type", "phones")
    assert open_word_search(system, {}) is None
    with pytest.raises(UserError, match="--decoding-weights needs --graph"):
        open_word_search(system, {"decoding_weights": "weights.json"})
