"""Large graphs as they are searched, kept in the user's cache: checked, with the insertion penalty, as type const.

Checking a graph of 16 million arcs and adding a cost to its words takes several seconds, which only its first opening
needs. A file of the cache is named for everything that it was made from, and for its own content:

    graph-KEY-CONTENT.fst    KEY: from the sha256 of the graph's file, its numbers of labels, and the cost of a word
                             CONTENT: from the sha256 of this file

A graph folder or a pack cannot bring such a file, since it is looked up in the user's cache only; and a file of the
cache is used only if its content has the sha256 in its name, and the graph's own file the one in graph.json.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from asrtool.errors import UserError
from asrtool.files import atomic_path, file_hash
from asrtool.graphs.check import BadFst
from asrtool.graphs.const_fst import WordCost, write_const_fst
from asrtool.graphs.folder import DecodingGraph, damaged_graph
from asrtool.user_cache import user_cache

if TYPE_CHECKING:
    from kaldifst import StdConstFst

logger = logging.getLogger(__name__)

FORMAT = 1  # of the files in the cache: a change of what is checked or written needs another number
MIN_CACHED_BYTES = 20_000_000  # smaller graphs are checked in less than half a second
MAX_CACHED_GRAPHS = 4  # the least recently used one is removed; a graph of 64,000 words takes 350 MB
HASH_DIGITS = 32  # of a sha256 in a name: 128 bits, far beyond accidental collisions


def cached_fst(graph: DecodingGraph, word_cost: float) -> "StdConstFst | None":
    """Returns a large graph with `word_cost` (nats) added to every word, from the cache, or made and put there.

    Returns None for small graphs, graphs with words that were added in memory, and where a cache is missing or cannot
    be written. Raises UserError for a damaged graph.
    """
    import kaldifst

    cache = user_cache()
    if cache is None or not isinstance(graph, DecodingGraph) or graph.changed_fst is not None:
        return None
    kind = graph.meta["kind"]
    source = graph.folder / f"{kind}.fst"
    if not source.is_file() or source.stat().st_size < MIN_CACHED_BYTES:
        return None
    graph.require_intact(kind)
    key = _key(graph, word_cost)
    try:
        path = _find(cache, key) or _create(cache, graph, source, key, word_cost)
        os.utime(path)  # now the most recently used one
    except (OSError, UserError) as problem:
        logger.info(f"{source} is checked at each opening, since {cache} cannot be used ({problem})")
        return None
    except BadFst as error:
        raise damaged_graph(source, error) from error
    return kaldifst.StdConstFst.read(str(path))


def _key(graph: DecodingGraph, word_cost: float) -> str:
    kind = graph.meta["kind"]
    labels = graph.label_counts(kind)
    content = [FORMAT, graph.meta["sizes"][kind]["sha256"], *labels, word_cost, len(graph.words)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:HASH_DIGITS]


def _find(cache: Path, key: str) -> Path | None:
    """Returns the file of the cache for a key; files whose content is not what their name says are removed."""
    for path in cache.glob(f"graph-{key}-*.fst"):
        if path.stem.rpartition("-")[2] == file_hash(path)[:HASH_DIGITS]:
            return path
        path.unlink()
    return None


def _create(folder: Path, graph: DecodingGraph, source: Path, key: str, word_cost: float) -> Path:
    logger.info(f"{source} is checked and prepared; the next opening finds it in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    labels = graph.label_counts(graph.meta["kind"])
    with atomic_path(folder / f"graph-{key}.fst") as temporary:
        write_const_fst(source, temporary, labels, WordCost(word_cost, len(graph.words)))
        content = file_hash(temporary)[:HASH_DIGITS]
    path = (folder / f"graph-{key}.fst").replace(folder / f"graph-{key}-{content}.fst")
    _remove_oldest(path)
    return path


def _remove_oldest(new: Path) -> None:
    """Removes the least recently used graphs, but not `new`, until MAX_CACHED_GRAPHS are left."""
    others = [path for path in new.parent.glob("graph-*.fst") if path != new]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[MAX_CACHED_GRAPHS - 1 :]:
        path.unlink(missing_ok=True)
