"""From the options of `asrtool stream` to a streaming search."""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from asrtool.decoding.options import DEFAULT_PREFIX_BEAM, Options
from asrtool.decoding.search_setup import open_fusion, open_graph
from asrtool.graphs.folder import DecodingGraph
from asrtool.streaming.ctc_search import StreamingGreedy, StreamingPrefix, WordAssembler
from asrtool.streaming.graph_search import StreamingGraph, StreamingGraphSearch
from asrtool.streaming.partial_hypothesis import StreamingSearch
from asrtool.text.tokenizer import Tokenizer


class StreamingSetup(NamedTuple):
    """A function that creates the search of an utterance, the settings that determine its results, and its graph."""

    new_search: Callable[[], StreamingSearch]
    settings: dict
    graph: DecodingGraph | None = None


def open_streaming_search(method: str, tokenizer: Tokenizer, options: Options) -> StreamingSetup:
    """Returns the streaming search "greedy", "prefix" or "graph" with its options. Call `check_options` first."""
    if method == "graph":
        return _open_graph_search(tokenizer, options)
    assembler = WordAssembler(tokenizer)
    silences = _unit_numbers([tokenizer.separator] if tokenizer.separator else [], tokenizer)
    if method == "prefix":
        beam = int(options.get("beam", DEFAULT_PREFIX_BEAM))
        fusion, settings = open_fusion(tokenizer, options)
        return StreamingSetup(lambda: StreamingPrefix(assembler, beam, fusion, silences), {"beam": beam} | settings)
    return StreamingSetup(lambda: StreamingGreedy(assembler, silences), {})


def _open_graph_search(tokenizer: Tokenizer, options: Options) -> StreamingSetup:
    setup = open_graph(tokenizer, options)
    graph = StreamingGraph(setup.graph, setup.options)
    silences = _silence_outputs(setup.graph, tokenizer)
    settings = asdict(setup.options) | setup.settings
    return StreamingSetup(lambda: StreamingGraphSearch(graph, setup.priors, silences), settings, setup.graph)


def _silence_outputs(graph: DecodingGraph, tokenizer: Tokenizer) -> list[int]:
    """Returns the model's outputs that stand for silence in the graph. In the HMM topology a unit has two outputs."""
    silence = graph.meta.get("silence")
    units = _unit_numbers([silence["unit"]] if silence else [], tokenizer)
    if graph.meta["topology"] == "hmm":
        return [output for unit in units for output in (2 * unit, 2 * unit + 1)]
    return units


def _unit_numbers(symbols: list[str], tokenizer: Tokenizer) -> list[int]:
    return [number for number, symbol in enumerate(tokenizer.symbols) if symbol in symbols]
