"""Decoding a manifest with an experiment: hypotheses as JSONL, and the time it took.

Rows are stored on the way, in files of `PartialResults`: an interrupted run resumes, and ranks share the batches. A new
search is a function as `hypothesis.Search`, which `search_setup.open_search` opens for its method.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from asrtool.data.batch import Batch, SkippedCut
from asrtool.data.sampling import CutBatch, OrderedSampler
from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.partial_results import DecodedBatches, DecodingTimes, PartialResults
from asrtool.decoding.result_folder import result_lock, write_result
from asrtool.decoding.words import TimedWord, UtteranceWords, WordDescriber
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
    describer: WordDescriber | None = None,
) -> dict | None:
    """Decodes every cut of the manifest `cuts` into `out`/hyps.jsonl; writes and returns the facts (decode.json).

    The facts say what was decoded, how, and how long it took. `search` and its `settings`, which are everything that
    determines its results, come from `search_setup.open_search` for `method`. `describer` finds times and confidences
    of the words; without it words have neither. `options` are the user's (see asrtool/decoding/result_folder.py). An
    interrupted run resumes. Scores of earlier hypotheses are deleted. The real-time factor counts everything from audio
    to words: features, model, search, times and confidences. Raises UserError while another process decodes into `out`.

    Under torchrun the ranks share the batches; all but the first return None when they have finished. The real-time
    factor is the time of the slowest rank over all audio. Only then does a finished result of the same run count: a
    rank that is restarted after the first one has joined all results has nothing left to do.
    """
    ranks = this_rank()
    facts = {"set": set_name, "method": method, "beam": None} | settings
    facts |= {"checkpoint": experiment.checkpoint.name, "cuts": str(cuts), "batch_seconds": batch_seconds}
    facts |= {"precision": experiment.computed_precision}
    facts |= {"ranks": ranks.world_size} | (experiment.adapted.facts() if experiment.adapted else {})
    facts |= experiment.transforms.facts() if experiment.transforms else {}
    facts |= {"run": run_hash(experiment, cuts, facts), "checkpoint_sha256": experiment.checkpoint_sha256}
    facts |= {"rtf_before": experiment.adapted.rtf} if experiment.adapted else {}
    facts |= {"options": options or {}}
    with result_lock(out, "asrtool decode") if ranks.is_first else nullcontext():
        return _decode_and_join(experiment, cuts, out, facts, search, workers, describer)


def _decode_and_join(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    facts: dict,
    search: Search,
    workers: int,
    describer: WordDescriber | None,
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
        decoder = _BatchDecoder(experiment, search, describer, empty)
        _decode_own_batches(decoder, batches, workers, partial_results, facts["set"])
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


@dataclass(frozen=True)
class _BatchDecoder:
    """What turns batches into rows; `empty` is the hypothesis of cuts without a frame."""

    experiment: Experiment
    search: Search
    describer: WordDescriber | None
    empty: Hypothesis

    def decode(self, batch: Batch, decoded: DecodedBatches) -> None:
        """Adds the rows and lattices of a batch, and the time it took."""
        if batch.ids:
            self._decode_utterances(batch, decoded)
        tokenizer = self.experiment.tokenizer
        decoded.rows += [_skipped_row(tokenizer, cut, self.empty, self.describer is not None) for cut in batch.skipped]
        decoded.batches += 1

    def _decode_utterances(self, batch: Batch, decoded: DecodedBatches) -> None:
        begin = time.monotonic()
        log_probs, lens = self.experiment.log_probs(batch)
        lens = lens.cpu()  # waits for the device
        middle = time.monotonic()
        hypotheses = self.search(log_probs, lens)
        words = self._describe(batch, hypotheses, log_probs, lens.tolist())
        decoded.times.model += middle - begin
        decoded.times.search += time.monotonic() - middle
        decoded.times.audio += batch.seconds
        utterances = zip(batch.ids, batch.texts, batch.speakers, hypotheses, words, strict=True)
        for utterance, ref, speaker, hypothesis, described in utterances:
            frame = self.experiment.frame_seconds
            tokenizer = self.experiment.tokenizer
            row = hypothesis_row(tokenizer, utterance, ref, hypothesis, frame, speaker, described)
            decoded.rows.append(row)
            if hypothesis.lattice:
                decoded.lattices.append(f"{utterance}\n{hypothesis.lattice}\n")

    def _describe(
        self, batch: Batch, hypotheses: list[Hypothesis], log_probs: torch.Tensor, lens: list[int]
    ) -> list[UtteranceWords | None]:
        """Returns the words of each hypothesis with times and confidences, if they are wanted."""
        if self.describer is None:
            return [None] * len(hypotheses)
        rows = log_probs.float().cpu().numpy()
        features = batch.features.numpy()
        described: list[UtteranceWords | None] = []
        for n, hypothesis in enumerate(hypotheses):
            own_features = features[n, : batch.feature_lens[n]]
            described.append(self.describer.describe(hypothesis, rows[n, : lens[n]], own_features))
        return described


def _decode_own_batches(
    decoder: _BatchDecoder,
    cut_batches: Iterable[CutBatch],
    workers: int,
    partial_results: PartialResults,
    set_name: str,
) -> None:
    """Decodes the remaining batches of this rank."""
    number, num_done = partial_results.resume()
    if num_done:
        folder = partial_results.folder
        logger.info(f"decoding {set_name}: resuming after {num_done} batches of an interrupted run, in {folder}")
    batches = decoder.experiment.batches(itertools.islice(cut_batches, num_done, None), workers)
    if partial_results.ranks.is_first:
        batches = progress(batches, f"decoding {set_name}", units="batches")
    for decoded in _decode_batches(decoder, batches):
        partial_results.write(number, decoded)
        number += 1
    partial_results.finish(number)


def _decode_batches(decoder: _BatchDecoder, batches: Iterable[Batch]) -> Iterator[DecodedBatches]:
    """Yields what was decoded in each FILE_SECONDS: what one file of partial results holds. The last may be empty."""
    decoded = DecodedBatches()
    begin = time.monotonic()
    for batch in batches:
        decoder.decode(batch, decoded)
        decoded.times.total = time.monotonic() - begin
        if decoded.times.total >= FILE_SECONDS:
            yield decoded
            begin += decoded.times.total
            decoded = DecodedBatches()
    yield decoded


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


def _skipped_row(tokenizer: Tokenizer, cut: SkippedCut, empty: Hypothesis, is_described: bool) -> dict:
    """Returns the row of a cut without a single frame: an empty hypothesis, and the reason as `skipped`."""
    words = UtteranceWords([], None) if is_described else None
    return hypothesis_row(tokenizer, cut.id, cut.text, empty, 0.0, cut.speaker, words) | {"skipped": cut.reason}


def hypothesis_row(
    tokenizer: Tokenizer,
    cut_id: str,
    ref: str,
    hypothesis: Hypothesis,
    frame_seconds: float,
    speaker: str | None,
    described: UtteranceWords | None = None,
) -> dict:
    """Returns a row of hyps.jsonl.

    `units`, the hypothesis's tokens, is a list of [symbol, seconds from the start of the cut]; `words` is a list of
    [word, start, end, confidence], or, without `described`, of the words of a graph, [word, seconds]. `score` is
    the hypothesis's natural log-probability, `confidence` its expected word accuracy. `speaker` is there where
    the manifest names one, `partial` where no path reached the end of the graph, `nbest` where there are further
    hypotheses; `_skipped_row` adds `skipped`. Where the units are phones and no graph makes words of them, `ref`, `hyp`
    and `words` are phones, and `token_type` is "phones".
    """
    symbols = [tokenizer.symbols[unit] for unit in hypothesis.tokens]
    row: dict = {"id": cut_id}
    if speaker:
        row["speaker"] = speaker
    row["ref"] = tokenizer.reference(ref) if hypothesis.words is None else ref
    row["hyp"] = _text(tokenizer, hypothesis)
    row["score"] = round(hypothesis.score, 4)
    if described and described.confidence is not None:
        row["confidence"] = round(described.confidence, 4)
    row["units"] = _with_times(symbols, hypothesis.frames, frame_seconds)
    if described:
        row["words"] = [_word_entry(word) for word in described.words]
    elif hypothesis.words is not None:
        row["words"] = _with_times(hypothesis.words, hypothesis.word_frames, frame_seconds)
    if hypothesis.words is None and tokenizer.output_type != "words":
        row["token_type"] = tokenizer.output_type
    if hypothesis.others:
        nbest = (hypothesis, *hypothesis.others)
        row["nbest"] = [{"hyp": _text(tokenizer, one), "score": round(one.score, 4)} for one in nbest]
    if not hypothesis.complete:
        row["partial"] = True
    return row


def _word_entry(word: TimedWord) -> list:
    confidence = None if word.confidence is None else round(word.confidence, 4)
    return [word.text, round(word.start, 3), round(word.end, 3), confidence]


def _text(tokenizer: Tokenizer, hypothesis: Hypothesis) -> str:
    return tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)


def _with_times(symbols: list[str], frames: list[int], frame_seconds: float) -> list[list]:
    return [[symbol, round(frame * frame_seconds, 3)] for symbol, frame in zip(symbols, frames, strict=True)]
