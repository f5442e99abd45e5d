"""From the options of `asrtool stream` to a streaming search."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hotword_fusion import HotwordFusion
from asrtool.decoding.hotword_graph import add_hotwords
from asrtool.decoding.hotwords import Hotword, read_hotwords, require_writable
from asrtool.decoding.options import DEFAULT_PREFIX_BEAM, Options
from asrtool.decoding.search_setup import open_fusion, open_graph, require_prefixes, require_readable_units
from asrtool.errors import UserError
from asrtool.graphs.folder import KALDI_TOPOLOGY, DecodingGraph
from asrtool.streaming.ctc_search import StreamingGreedy, StreamingPrefix, WordAssembler
from asrtool.streaming.graph_search import StreamingGraph, StreamingGraphSearch
from asrtool.streaming.partial_hypothesis import StreamingSearch
from asrtool.text.outputs import hmm_outputs
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

MAX_STREAM_HOTWORDS = 200  # phrases of one stream
MAX_STREAM_HOTWORD_LETTERS = 10_000  # of all of them together
# The largest graph that hotwords are added to for one stream: the graph is copied for each list, and the phrases are
# added in about 0.1 s. A larger one stops the other streams of its search process for seconds, and takes gigabytes.
MAX_HOTWORD_GRAPH_STATES = 200_000


def _no_hotwords(_: Sequence[str]) -> "StreamingSetup":
    raise UserError("a stream has hotwords with the methods prefix and graph; this system is opened with greedy")


class StreamingSetup(NamedTuple):
    """A function that creates the search of an utterance, the settings that determine its results, and its graph.

    with_hotwords: returns the setup with the lines of a list of hotwords for one stream, which are added to those of
    the options. It takes a while; keep the result. Raises UserError for hotwords that do not fit. takes_hotwords:
    whether there are any that fit.
    """

    new_search: Callable[[], StreamingSearch]
    settings: dict
    graph: DecodingGraph | None = None
    with_hotwords: Callable[[Sequence[str]], "StreamingSetup"] = _no_hotwords
    takes_hotwords: bool = False


def open_streaming_search(method: str, tokenizer: Tokenizer, options: Options, topology: str = "ctc") -> StreamingSetup:
    """Returns the streaming search "greedy", "prefix" or "graph" with its options. Call `check_options` first.

    `topology` is the model's (`objective.topology`).
    """
    require_readable_units(method, tokenizer)
    if method == "graph":
        return _open_graph_search(tokenizer, options, topology)
    assembler = WordAssembler(tokenizer)
    silences = _unit_numbers([tokenizer.separator] if tokenizer.separator else [], tokenizer)
    if method == "prefix":
        require_prefixes(topology)
        return _open_prefix_search(tokenizer, options, assembler, silences)
    outputs = _outputs_of(silences, topology)
    return StreamingSetup(lambda: StreamingGreedy(assembler, outputs, topology), {})


def _open_prefix_search(
    tokenizer: Tokenizer, options: Options, assembler: WordAssembler, silences: list[int]
) -> StreamingSetup:
    beam = int(options.get("beam", DEFAULT_PREFIX_BEAM))
    fusion, settings = open_fusion(tokenizer, options)

    def setup(fusion: Fusion | None) -> StreamingSetup:
        return StreamingSetup(lambda: StreamingPrefix(assembler, beam, fusion, silences), {"beam": beam} | settings)

    def with_hotwords(lines: Sequence[str]) -> StreamingSetup:
        if tokenizer.output_type != "words":
            raise UserError("hotwords need words, and the model's units are phones; use the method graph")
        hotwords = _read_stream_hotwords(lines)
        require_writable(hotwords, tokenizer)
        return setup(HotwordFusion(hotwords, tokenizer, fusion))

    return setup(fusion)._replace(with_hotwords=with_hotwords, takes_hotwords=tokenizer.output_type == "words")


def _open_graph_search(tokenizer: Tokenizer, options: Options, topology: str) -> StreamingSetup:
    opened = open_graph(tokenizer, options, topology)
    if opened.graph.meta["topology"] == KALDI_TOPOLOGY:
        problem = f"{opened.graph.folder} is the graph of a Kaldi system, in which it is not known what is silence"
        hint = "endpoints come by rules without trailing silence alone, such as length=20"
        logger.warning(f"{problem}: {hint}")
    silences = _silence_outputs(opened.graph, tokenizer)
    settings = asdict(opened.options) | opened.settings

    def setup(one: DecodingGraph) -> StreamingSetup:
        graph = StreamingGraph(one, opened.options)
        return StreamingSetup(lambda: StreamingGraphSearch(graph, opened.priors, silences), settings, one)

    def with_hotwords(lines: Sequence[str]) -> StreamingSetup:
        num_states = opened.graph.fst.num_states
        if num_states > MAX_HOTWORD_GRAPH_STATES:
            limit = f"the graph has {num_states:,} states, and hotwords of one stream need at most"
            hint = "give hotwords for all streams when the system is opened, or use the method prefix"
            raise UserError(f"{limit} {MAX_HOTWORD_GRAPH_STATES:,}; {hint}")
        hotwords = _read_stream_hotwords(lines)
        copy = replace(opened.graph, changed_fst=opened.graph.fst.copy())
        return setup(add_hotwords(copy, tokenizer, hotwords))

    is_small = opened.graph.fst.num_states <= MAX_HOTWORD_GRAPH_STATES
    return setup(opened.graph)._replace(with_hotwords=with_hotwords, takes_hotwords=is_small)


def _read_stream_hotwords(lines: Sequence[str]) -> list[Hotword]:
    """Returns the hotwords of one stream. Raises UserError for lines that are wrong, too many or too long."""
    if len(lines) > MAX_STREAM_HOTWORDS or sum(map(len, lines)) > MAX_STREAM_HOTWORD_LETTERS:
        most = f"{MAX_STREAM_HOTWORDS} phrases of {MAX_STREAM_HOTWORD_LETTERS:,} letters together"
        raise UserError(f"{len(lines)} hotwords for a stream; give at most {most}")
    return read_hotwords(lines)


def _silence_outputs(graph: DecodingGraph, tokenizer: Tokenizer) -> list[int]:
    """Returns the model's outputs that stand for silence in the graph. In the HMM topology a unit has two outputs."""
    silence = graph.meta.get("silence")
    units = _unit_numbers([silence["unit"]] if silence else [], tokenizer)
    return _outputs_of(units, graph.meta["topology"])


def _outputs_of(units: list[int], topology: str) -> list[int]:
    return [output for unit in units for output in hmm_outputs(unit)] if topology == "hmm" else units


def _unit_numbers(symbols: list[str], tokenizer: Tokenizer) -> list[int]:
    return [number for number, symbol in enumerate(tokenizer.symbols) if symbol in symbols]
