"""Decoding a manifest with an experiment: hypotheses as JSONL, and the time it took.

Rows are stored on the way, in files of `PartialResults`: an interrupted run resumes, and ranks share the batches. A new
search is a function as `hypothesis.Search`, which `search_setup.open_search` opens for its method.
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
from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.partial_results import DecodedBatches, DecodingTimes, PartialResults
from asrtool.decoding.result_folder import result_lock, write_result
from asrtool.distributed import this_rank
from asrtool.errors import UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.readers import read_json
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# Decoding time after which a file of partial results is written: at most this much is lost when a process is killed.
# Writing a file takes milliseconds.
FILE_SECONDS = 30.0
MAX_LISTED = 10  # utterances named in a log line; hyps.jsonl marks all
WORD_METHODS = {"graph"}  # methods whose hypotheses have words; those of the others have tokens only
LATTICES = "lat.gz"  # a text archive of Kaldi: `lattice-copy "ark:gunzip -c lat.gz |" ark:lat.ark`


def decode(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    set_name: str,
    method: str,
    search: Search,
    settings: dict,
    options: dict | None = None,
    batch_seconds: float = 200.0,
    workers: int = 1,
) -> dict | None:
    """Decodes every cut of the manifest `cuts` into `out`/hyps.jsonl; writes and returns the facts (decode.json).

    The facts say what was decoded, how, and how long it took. `search` and its `settings`, which are everything that
    determines its results, come from `search_setup.open_search` for `method`. `options` are the user's (see
    asrtool/decoding/result_folder.py). An interrupted run resumes. Scores of earlier hypotheses are deleted. The
    real-time factor counts everything from audio to words: features, model and search. Raises UserError while another
    process decodes into `out`.

    Under torchrun the ranks share the batches; all but the first return None when they have finished. The real-time
    factor is the time of the slowest rank over all audio. Only then does a finished result of the same run count: a
    rank that is restarted after the first one has joined all results has nothing left to do.
    """
    ranks = this_rank()
    facts = {"set": set_name, "method": method, "beam": None} | settings
    facts |= {"checkpoint": experiment.checkpoint.name, "cuts": str(cuts), "batch_seconds": batch_seconds}
    facts |= {"ranks": ranks.world_size} | (experiment.adapted.facts() if experiment.adapted else {})
    facts |= {"run": run_hash(experiment, cuts, facts)}
    facts |= {"rtf_before": experiment.adapted.rtf} if experiment.adapted else {}
    facts |= {"options": options or {}}
    with result_lock(out, "asrtool decode") if ranks.is_first else nullcontext():
        return _decode_and_join(experiment, cuts, out, facts, search, workers)


def _decode_and_join(
    experiment: Experiment, cuts: Path, out: Path, facts: dict, search: Search, workers: int
) -> dict | None:
    """Decodes this rank's batches; the first rank joins the results of all ranks, and returns the facts."""
    ranks = this_rank()
    partial_results = PartialResults(out, facts["run"], ranks)
    # Asked first, since the first rank writes decode.json and then deletes the partial results.
    is_finished = partial_results.is_finished(ranks.rank)
    result = _existing_facts(out, facts["run"]) if ranks.world_size > 1 else None
    if not (is_finished or result):
        separate_speakers = experiment.adapted is not None
        batches = OrderedSampler(cuts, facts["batch_seconds"], ranks=ranks, separate_speakers=separate_speakers)
        empty = Hypothesis([], [], 0.0, [] if facts["method"] in WORD_METHODS else None)
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
    set_name: str,
    empty: Hypothesis,
) -> None:
    """Decodes the remaining batches of this rank; `empty` is the hypothesis of cuts without a frame."""
    done = partial_results.resume()
    num_done = sum(decoded.batches for decoded in done)
    if num_done:
        folder = partial_results.folder
        logger.info(f"decoding {set_name}: resuming after {num_done} batches of an interrupted run, in {folder}")
    batches = experiment.batches(itertools.islice(cut_batches, num_done, None), workers)
    if partial_results.ranks.is_first:
        batches = progress(batches, f"decoding {set_name}", units="batches")
    number = len(done)
    for decoded in _decode_batches(experiment, batches, search, empty):
        partial_results.write(number, decoded)
        number += 1
    partial_results.finish(number)


def _decode_batches(
    experiment: Experiment, batches: Iterable[Batch], search: Search, empty: Hypothesis
) -> Iterator[DecodedBatches]:
    """Yields what was decoded in each FILE_SECONDS: what one file of partial results holds. The last may be empty."""
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
    for utterance, ref, speaker, hypothesis in utterances:
        row = hypothesis_row(experiment.tokenizer, utterance, ref, hypothesis, experiment.frame_seconds, speaker)
        decoded.rows.append(row)
        if hypothesis.lattice:
            decoded.lattices.append(f"{utterance}\n{hypothesis.lattice}\n")


def _join(partial_results: PartialResults, out: Path, facts: dict, device: torch.device) -> dict:
    """Writes the result from the partial results of all ranks; returns its facts."""
    by_rank = [partial_results.read_rank(rank) for rank in range(partial_results.ranks.world_size)]
    rows = [row for files in by_rank for decoded in files for row in decoded.rows]
    rows.sort(key=lambda row: row["id"])
    times = [DecodingTimes.sum(decoded.times for decoded in files) for files in by_rank]
    slowest = max(times, key=lambda rank_times: rank_times.total)
    incomplete = _count_marked(rows, "partial", "utterances have no path to the end of the graph, only a partial one")
    skipped = _count_marked(rows, "skipped", "cuts are too short, with empty hypotheses")
    facts = facts | {"utterances": len(rows), "partial": incomplete, "skipped": skipped}
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
    """Returns the row of a cut without a single frame: an empty hypothesis, and the reason as `skipped`."""
    return hypothesis_row(tokenizer, cut.id, cut.text, empty, 0.0, cut.speaker) | {"skipped": cut.reason}


def hypothesis_row(
    tokenizer: Tokenizer, cut_id: str, ref: str, hypothesis: Hypothesis, frame_seconds: float, speaker: str | None
) -> dict:
    """Returns a row of hyps.jsonl.

    `units`, the hypothesis's tokens, and `words` are lists of [symbol, seconds from the start of the cut]. `score` is
    the hypothesis's natural log-probability. `speaker` is there where the manifest names one, `partial` where no path
    reached the end of the graph, `nbest` where there are further hypotheses; `_skipped_row` adds `skipped`. Where the
    units are phones and no graph makes words of them, `ref` and `hyp` are phones, and `token_type` is "phones".
    """
    symbols = [tokenizer.symbols[unit] for unit in hypothesis.tokens]
    row: dict = {"id": cut_id}
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
