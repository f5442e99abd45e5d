"""What an existing graph was built from, so that another one can be built like it: `asrtool graph --from`."""

from dataclasses import dataclass
from pathlib import Path

from asrtool.errors import UserError
from asrtool.graphs.folder import COMMAND, KALDI_TOPOLOGY, LEXICON, LM, DecodingGraph, load_graph
from asrtool.pack_manifest import TOKENIZER, is_pack, open_pack, pack_files


@dataclass(frozen=True)
class GraphSources:
    """The arguments of `build_graph` that gave a graph; None where the folder does not have the file."""

    tokenizer: Path | None
    lexicon: Path | None
    lm: Path | None
    kinds: tuple[str, ...]
    topology: str
    silence: str
    silence_probability: float | None


def graph_sources(folder: Path) -> GraphSources:
    """Returns the sources of the graph in `folder`, a pack or a folder of `asrtool graph`.

    A pack has the tokenizer, and the n-gram model if it was packed with it; a graph has an n-gram model if words were
    added to it. Raises UserError for a pack without a graph, and for the graph of a Kaldi system.
    """
    if not is_pack(folder):
        return _sources(load_graph(folder), None, None)
    files = pack_files(folder, open_pack(folder))
    if files.graph is None:
        raise UserError(f"{folder} is a pack without a graph; give the options of `{COMMAND}` instead of --from")
    return _sources(load_graph(files.graph), folder / TOKENIZER, files.verified("graph_lm"))


def _sources(graph: DecodingGraph, tokenizer: Path | None, lm: Path | None) -> GraphSources:
    if graph.meta["topology"] == KALDI_TOPOLOGY:
        problem = f"{graph.folder} is the graph of a Kaldi system, which has no lexicon and no language model"
        raise UserError(f"{problem}; change it in Kaldi, and give --kaldi-graph instead of --from")
    silence = graph.meta.get("silence")
    return GraphSources(
        tokenizer=tokenizer,
        lexicon=_existing(graph.folder / LEXICON),
        lm=_existing(graph.folder / LM) or lm,
        kinds=(graph.meta["kind"],),
        topology=graph.meta["topology"],
        silence=silence["unit"] if silence else "",
        silence_probability=silence["probability"] if silence else None,
    )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
