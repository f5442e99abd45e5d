"""Decoding a manifest with an experiment: hypotheses as JSONL, and the time it took.

Partial results are stored on the way (asrtool/decoding/partial_results.py): an interrupted run resumes, and ranks share
the batches.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from asrtool.data.batch import Batch, SkippedCut
from asrtool.data.sampling import CutBatch, OrderedSampler
from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.partial_results import DecodedBatches, DecodingTimes, PartialResults
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.decoding.result_folder import result_lock, write_result
from asrtool.distributed import this_rank
from asrtool.errors import UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.readers import read_json
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FILE_SECONDS = 30.0  # of decoding go into a file of partial results, and are lost with a process; writing takes ms
MAX_LISTED = 10  # utterances named in a log line; hyps.jsonl marks all
LATTICES = "lat.gz"  # a text archive of Kaldi: `lattice-copy "ark:gunzip -c lat.gz |" ark:lat.ark`


def ctc_search(method: str, beam: int = 8) -> Search:
    """Returns the search "greedy" or "prefix", with one hypothesis for each utterance."""
    if method == "greedy":
        return ctc_greedy
    return lambda log_probs, lens: [nbest[0] for nbest in ctc_prefix_beam(log_probs, lens, beam)]


def decode(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    name: str,
    method: str = "greedy",
    beam: int = 8,
    batch_seconds: float = 200.0,
    workers: int = 1,
    search: Search | None = None,
    settings: dict | None = None,
    options: dict | None = None,
) -> dict | None:
    """Decodes every cut of the manifest `cuts` into `out`/hyps.jsonl; writes and returns the facts (`decode.json`).

    The real-time factor counts everything from audio to words: features, model and search. An interrupted run resumes.
    `search` is used instead of `ctc_search(method, beam)`, and `settings` is everything that determines its results.
    `options` are what the user chose (asrtool/decoding/result_folder.py). Scores of earlier hypotheses are deleted.
    Raises UserError while another process decodes into `out`.

    Under torchrun the ranks share the batches; all but the first return None when they have finished. The real-time
    factor is the time of the slowest rank over all audio. A result of the same run is then not computed again: a rank
    that is restarted may find that the first one has all it needs, and has finished.
    """
    ranks = this_rank()
    facts = {"set": name, "method": method, "beam": beam if method == "prefix" else None} | (settings or {})
    facts |= {"checkpoint": experiment.checkpoint.name, "cuts": str(cuts), "batch_seconds": batch_seconds}
    facts |= {"ranks": ranks.world_size} | (experiment.adapted.facts() if experiment.adapted else {})
    facts |= {"run": run_hash(experiment, cuts, facts)}
    facts |= {"rtf_before": experiment.adapted.rtf} if experiment.adapted else {}
    facts |= {"options": options or {}}
    with result_lock(out, "asrtool decode") if ranks.is_first else nullcontext():
        return _decode_and_join(experiment, cuts, out, facts, search or ctc_search(method, beam), workers)


def _decode_and_join(
    experiment: Experiment, cuts: Path, out: Path, facts: dict, search: Search, workers: int
) -> dict | None:
    ranks = this_rank()
    partial_results = PartialResults(out, facts["run"], ranks)
    # Asked first, since the first rank writes decode.json and then deletes the partial results.
    is_finished = partial_results.is_finished(ranks.rank)
    result = _existing_facts(out, facts["run"]) if ranks.world_size > 1 else None
    if not (is_finished or result):
        separate_speakers = experiment.adapted is not None
        batches = OrderedSampler(cuts, facts["batch_seconds"], ranks=ranks, separate_speakers=separate_speakers)
        empty = Hypothesis([], [], 0.0, [] if facts["method"] == "graph" else None)
        _decode_own_batches(experiment, batches, search, workers, partial_results, facts["set"], empty)
    if not ranks.is_first:
        return None
    if result:
        logger.info(f"{out} has this result already; delete it to decode again")
    else:
        partial_results.wait()
        result = _join(partial_results, out, facts, experiment.device)
    partial_results.remove()
    return result


def _existing_facts(out: Path, run: str) -> dict | None:
    """Returns the facts of a result of the same run, if there is one; a damaged one is decoded again."""
    if (out / "hyps.jsonl").is_file():
        with suppress(UserError):
            facts = read_json(out / "decode.json", "facts", "decode again")
            return facts if isinstance(facts, dict) and facts.get("run") == run else None
    return None


def _decode_own_batches(
    experiment: Experiment,
    cut_batches: Iterable[CutBatch],
    search: Search,
    workers: int,
    partial_results: PartialResults,
    name: str,
    empty: Hypothesis,
) -> None:
    """Decodes the remaining batches of this rank; `empty` is the hypothesis of cuts without a frame."""
    done = partial_results.resume()
    num_done = sum(decoded.batches for decoded in done)
    if num_done:
        folder = partial_results.folder
        logger.info(f"decoding {name}: resuming behind {num_done} batches of an interrupted run, in {folder}")
    batches = experiment.batches(itertools.islice(cut_batches, num_done, None), workers)
    if partial_results.ranks.is_first:
        batches = progress(batches, f"decoding {name}", units="batches")
    number = len(done)
    for decoded in _decode_batches(experiment, batches, search, empty):
        partial_results.write(number, decoded)
        number += 1
    partial_results.finish(number)


def _decode_batches(
    experiment: Experiment, batches: Iterable[Batch], search: Search, empty: Hypothesis
) -> Iterator[DecodedBatches]:
    """Yields the decoded batches of every FILE_SECONDS; the last ones may be fewer, or none."""
    decoded = DecodedBatches()
    begin = time.monotonic()
    for batch in batches:
        if batch.ids:
            _decode_batch(experiment, batch, search, decoded)
        decoded.rows += [_skipped_row(experiment.tokenizer, cut, empty) for cut in batch.skipped]
        decoded.batches += 1
        decoded.times.total = time.monotonic() - begin
        if decoded.times.total >= FILE_SECONDS:
            yield decoded
            begin += decoded.times.total
            decoded = DecodedBatches()
    yield decoded


def _decode_batch(experiment: Experiment, batch: Batch, search: Search, decoded: DecodedBatches) -> None:
    """Adds the rows and lattices of a batch, and the time it took."""
    begin = time.monotonic()
    log_probs, lens = experiment.log_probs(batch)
    lens = lens.cpu()  # waits for the device
    middle = time.monotonic()
    hypotheses = search(log_probs, lens)
    decoded.times.model += middle - begin
    decoded.times.search += time.monotonic() - middle
    decoded.times.audio += batch.seconds
    utterances = zip(batch.ids, batch.texts, batch.speakers, hypotheses, strict=True)
    for name, ref, speaker, hypothesis in utterances:
        row = hypothesis_row(experiment.tokenizer, name, ref, hypothesis, experiment.frame_seconds, speaker)
        decoded.rows.append(row)
        if hypothesis.lattice:
            decoded.lattices.append(f"{name}\n{hypothesis.lattice}\n")


def _join(partial_results: PartialResults, out: Path, facts: dict, device: torch.device) -> dict:
    """Writes the result from the partial results of all ranks; returns its facts."""
    ranks = [partial_results.read_rank(rank) for rank in range(partial_results.ranks.world_size)]
    rows = [row for rank in ranks for decoded in rank for row in decoded.rows]
    rows.sort(key=lambda row: row["id"])
    times = [DecodingTimes.sum(decoded.times for decoded in rank) for rank in ranks]
    slowest = max(times, key=lambda rank_times: rank_times.total)
    partial = _count_marked(rows, "partial", "utterances end within the graph, with partial results")
    skipped = _count_marked(rows, "skipped", "cuts are too short, with empty hypotheses")
    facts = facts | {"utterances": len(rows), "partial": partial, "skipped": skipped}
    facts |= slowest.facts(sum(rank_times.audio for rank_times in times), device) | provenance()
    facts["rtf"] = round(facts["rtf"] + facts.get("rtf_before", 0.0), 5)
    partial_results.join_lattices(out / LATTICES)
    write_result(out, rows, "decode.json", facts)
    return facts


def _count_marked(rows: list[dict], mark: str, description: str) -> int:
    """Returns the number of rows with this mark, and logs their ids."""
    marked = [row["id"] for row in rows if row.get(mark)]
    if marked:
        listed = ", ".join(marked[:MAX_LISTED]) + (" ..." if len(marked) > MAX_LISTED else "")
        logger.info(f"{len(marked)} of {len(rows)} {description}: {listed}")
    return len(marked)


def _skipped_row(tokenizer: Tokenizer, cut: SkippedCut, empty: Hypothesis) -> dict:
    return hypothesis_row(tokenizer, cut.id, cut.text, empty, 0.0, cut.speaker) | {"skipped": cut.reason}


def hypothesis_row(
    tokenizer: Tokenizer, name: str, ref: str, hypothesis: Hypothesis, frame_seconds: float, speaker: str | None
) -> dict:
    """Returns a row of hyps.jsonl; `units` and `words` are lists of [symbol, seconds from the start of the cut].

    `speaker` is there where the manifest names one, `partial` where no path reached the end of the graph, `nbest` where
    there are further hypotheses, `skipped` where the cut has not even one frame. Where the units are phones and no
    graph makes words of them, `ref` is in phones as well, and `token_type` is "phones".
    """
    symbols = [tokenizer.symbols[unit] for unit in hypothesis.tokens]
    row: dict = {"id": name}
    if speaker:
        row["speaker"] = speaker
    row["ref"] = tokenizer.reference(ref) if hypothesis.words is None else ref
    row["hyp"] = _text(tokenizer, hypothesis)
    row["score"] = round(hypothesis.score, 4)
    row["units"] = _with_times(symbols, hypothesis.frames, frame_seconds)
    if hypothesis.words is not None:
        row["words"] = _with_times(hypothesis.words, hypothesis.word_frames, frame_seconds)
    elif tokenizer.output_type != "words":
        row["token_type"] = tokenizer.output_type
    if hypothesis.others:
        nbest = (hypothesis, *hypothesis.others)
        row["nbest"] = [{"hyp": _text(tokenizer, one), "score": round(one.score, 4)} for one in nbest]
    if not hypothesis.complete:
        row["partial"] = True
    return row


def _text(tokenizer: Tokenizer, hypothesis: Hypothesis) -> str:
    return tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)


def _with_times(symbols: list[str], frames: list[int], frame_seconds: float) -> list[list]:
    return [[symbol, round(frame * frame_seconds, 3)] for symbol, frame in zip(symbols, frames, strict=True)]
