"""What is recognised in the bad utterances of `asrtool clean`, in words, compared with their transcripts.

Scores are computed in units, which takes no language model and no graph. For whoever reads the list, words are clearer:
the bad utterances alone are recognised once more, in the decoding graph where there is one. Systems whose units are
words or parts of them need none.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

from asrtool.data.batch import Batch
from asrtool.data.sampling import CutBatch, OrderedSampler
from asrtool.decoding.cleaning import Verdict
from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.options import LATTICE_REQUESTS, Options
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.system_options import search_options
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.progress import progress
from asrtool.scoring.wer import Alignment, align_words
from asrtool.text.tokenizer import Tokenizer


def open_word_search(experiment: Experiment, options: Options) -> Search | None:
    """Returns the search in the graph of the options, or of the system; None for a phone system without a graph.

    Without a graph, a system whose units are words or their parts is searched greedily. Lattices are left out, and so
    is rescoring, which needs them: they take long for audio that the graph was not built for. Raises UserError for
    files that do not fit, and for options of a graph where there is none.
    """
    topology = experiment.config.objective.topology
    if "graph" in options or experiment.files.graph:
        chosen = search_options(experiment, "graph", {**options, "no_rescore": True})
        best_path = {name: value for name, value in chosen.items() if name not in LATTICE_REQUESTS}
        return open_search("graph", experiment.tokenizer, best_path, topology=topology).search
    if options:
        raise UserError("--decoding-weights needs --graph, or a pack with a graph")
    if experiment.tokenizer.output_type == "words":
        return open_search("greedy", experiment.tokenizer, {}, topology=topology).search
    return None


def compare_words(
    experiment: Experiment, cuts: Path, bad: Sequence[Verdict], search: Search, batch_seconds: float, workers: int
) -> list[Verdict]:
    """Returns the verdicts with `word_pairs`: each transcript aligned with the words that `search` recognises."""
    ids = {verdict.score.id for verdict in bad}
    batches = experiment.batches(_batches_with(OrderedSampler(cuts, batch_seconds), ids), workers)
    pairs: dict[str, Alignment] = {}
    for batch in progress(batches, "recognising the bad utterances", units="batches"):
        pairs |= _recognise(experiment, batch, search)
    return [replace(verdict, word_pairs=pairs.get(verdict.score.id)) for verdict in bad]


def _batches_with(batches: Iterable[CutBatch], ids: Set[str]) -> Iterator[CutBatch]:
    for batch in batches:
        entries = [entry for entry in batch.entries if entry.id in ids]
        if entries:
            yield replace(batch, entries=entries)


def _recognise(experiment: Experiment, batch: Batch, search: Search) -> dict[str, Alignment]:
    if not batch.ids:
        return {}
    log_probs, lens = experiment.log_probs(batch)
    hypotheses = search(log_probs, lens.cpu())
    return {
        name: align_words(text, _words(hypothesis, experiment.tokenizer))
        for name, text, hypothesis in zip(batch.ids, batch.texts, hypotheses, strict=True)
    }


def _words(hypothesis: Hypothesis, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)
