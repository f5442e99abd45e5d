"""Decoding a manifest with an experiment: hypotheses as JSONL, and how long it took.

What is decoded is kept on the way (asrtool/decoding/partial_results.py): an interrupted run goes on, and ranks take turns.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from asrtool.data.batch import Batch, Skipped
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.sampling import CutBatch, OrderedSampler
from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.partial_results import DecodedBatches, DecodingTimes, PartialResults
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.decoding.result_folder import write_result
from asrtool.distributed import this_rank
from asrtool.errors import UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.readers import read_json
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Search = Callable[[torch.Tensor, torch.Tensor], list[Hypothesis]]

PART_SECONDS = 30.0  # of decoding are the most that is lost with a process; a part takes milliseconds to write
SHOWN = 10  # utterances named in a line; hyps.jsonl marks all
LATTICES = "lat.gz"  # a text archive of Kaldi: `lattice-copy "ark:gunzip -c lat.gz |" ark:lat.ark`


def search(method: str, beam: int = 8) -> Search:
    """The search named "greedy" or "prefix"; one hypothesis an utterance."""
    if method == "greedy":
        return ctc_greedy
    return lambda log_probs, lens: [best[0] for best in ctc_prefix_beam(log_probs, lens, beam)]


def decode(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    name: str,
    method: str = "greedy",
    beam: int = 8,
    batch_seconds: float = 200.0,
    workers: int = 1,
    find: Search | None = None,
    settings: dict | None = None,
    options: dict | None = None,
) -> dict | None:
    """Decode every cut of the manifest `cuts` into `out`/hyps.jsonl; returns and writes the facts (`decode.json`).

    The real-time factor counts everything from audio to words: features, model and search. An interrupted run is
    continued. `find` is another search than `search(method, beam)`, and `settings` all that decides over its results.
    `options` are what the user chose (asrtool/decoding/result_folder.py). Scores of the hypotheses that were there
    before are removed. UserError while another process decodes into `out`.

    Under torchrun the ranks take turns at the batches; all but the first return None when they have had theirs. The
    real-time factor is that of the slowest over all audio. A result of the same run is then not made again: a rank that
    is started again may find that the first one has all it needs, and has finished.
    """
    ranks = this_rank()
    facts = {"set": name, "method": method, "beam": beam if method == "prefix" else None} | (settings or {})
    facts |= {"checkpoint": experiment.checkpoint.name, "cuts": str(cuts), "batch_seconds": batch_seconds}
    facts |= {"ranks": ranks.world_size} | (experiment.adapted.facts() if experiment.adapted else {})
    facts |= {"run": run_hash(experiment, cuts, facts)}
    facts |= {"rtf_before": experiment.adapted.rtf} if experiment.adapted else {}
    facts |= {"options": options or {}}
    with write_lock(out, "asrtool decode") if ranks.is_first else nullcontext():
        return _decode(experiment, cuts, out, facts, find or search(method, beam), workers)


def _decode(experiment: Experiment, cuts: Path, out: Path, facts: dict, find: Search, workers: int) -> dict | None:
    ranks = this_rank()
    parts = PartialResults(out, facts["run"], ranks)
    ended = parts.ended(ranks.rank)  # asked first, since the first rank writes decode.json and then removes the parts
    made = _made(out, facts["run"]) if ranks.world_size > 1 else None
    if not (ended or made):
        items = OrderedSampler(cuts, facts["batch_seconds"], ranks=ranks, apart=experiment.adapted is not None)
        empty = Hypothesis([], [], 0.0, [] if facts["method"] == "graph" else None)
        _decode_share(experiment, items, find, workers, parts, facts["set"], empty)
    if not ranks.is_first:
        return None
    if made:
        logger.info(f"{out} has this result already; delete it to have it made again")
    else:
        parts.wait()
        made = _join(parts, out, facts, experiment.device)
    parts.remove()
    return made


def _made(out: Path, run: str) -> dict | None:
    """The facts of a result of the same run, if there is one; a damaged one is decoded again."""
    if (out / "hyps.jsonl").is_file():
        with suppress(UserError):
            facts = read_json(out / "decode.json", "facts", "decode again")
            return facts if isinstance(facts, dict) and facts.get("run") == run else None
    return None


def _decode_share(
    experiment: Experiment,
    items: Iterable[CutBatch],
    find: Search,
    workers: int,
    parts: PartialResults,
    name: str,
    empty: Hypothesis,
) -> None:
    """Decode what is missing of this rank's `items`; `empty` is the hypothesis of cuts without a frame."""
    done = parts.own()
    skip = sum(part.batches for part in done)
    if skip:
        logger.info(f"decoding {name}: {skip} batches are there from an interrupted run, in {parts.folder}")
    loaded = experiment.batches(itertools.islice(items, skip, None), workers)
    loaded = progress(loaded, f"decoding {name}", units="batches") if parts.ranks.is_first else loaded
    number = len(done)
    for part in _decoded(experiment, loaded, find, empty):
        parts.write(number, part)
        number += 1
    parts.end(number)


def _decoded(
    experiment: Experiment, loaded: Iterable[Batch], find: Search, empty: Hypothesis
) -> Iterator[DecodedBatches]:
    """The batches, decoded and gathered into parts of PART_SECONDS; the last one is shorter, or empty."""
    part, begin = DecodedBatches(), time.monotonic()
    for batch in loaded:
        if batch.ids:
            _decode_batch(experiment, batch, find, part)
        part.rows += [_skipped_row(experiment.tokenizer, cut, empty) for cut in batch.skipped]
        part.batches += 1
        part.clock.total = time.monotonic() - begin
        if part.clock.total >= PART_SECONDS:
            yield part
            part, begin = DecodedBatches(), begin + part.clock.total
    yield part


def _join(parts: PartialResults, out: Path, facts: dict, device: torch.device) -> dict:
    """Write the result from the parts of all ranks; returns its facts."""
    shares = [parts.share(rank) for rank in range(parts.ranks.world_size)]
    rows = sorted((row for share in shares for part in share for row in part.rows), key=lambda row: row["id"])
    clocks = [DecodingTimes.sum(part.clock for part in share) for share in shares]
    slowest = max(clocks, key=lambda clock: clock.total)
    partial = _count(rows, "partial", "utterances end within the graph, with partial results")
    skipped = _count(rows, "skipped", "cuts are too short, with empty hypotheses")
    facts = facts | {"utterances": len(rows), "partial": partial, "skipped": skipped}
    facts |= slowest.facts(sum(clock.audio for clock in clocks), device) | provenance()
    facts["rtf"] = round(facts["rtf"] + facts.get("rtf_before", 0.0), 5)
    parts.join_lattices(out / LATTICES)
    write_result(out, rows, "decode.json", facts)
    return facts


def _count(rows: list[dict], mark: str, what: str) -> int:
    """How many rows have this mark; names them."""
    marked = [row["id"] for row in rows if row.get(mark)]
    if marked:
        shown = ", ".join(marked[:SHOWN]) + (" ..." if len(marked) > SHOWN else "")
        logger.info(f"{len(marked)} of {len(rows)} {what}: {shown}")
    return len(marked)


def _decode_batch(experiment: Experiment, batch: Batch, find: Search, part: DecodedBatches) -> None:
    """Add a batch's rows and lattices, and the time it took."""
    begin = time.monotonic()
    log_probs, lens = experiment.log_probs(batch)
    lens = lens.cpu()  # waits for the device
    middle = time.monotonic()
    hypotheses = find(log_probs, lens)
    part.clock.model += middle - begin
    part.clock.search += time.monotonic() - middle
    part.clock.audio += batch.seconds
    frame_seconds = FRAME_SHIFT * experiment.model.subsampling.factor
    for name, ref, speaker, found in zip(batch.ids, batch.texts, batch.speakers, hypotheses, strict=True):
        part.rows.append(hypothesis_row(experiment.tokenizer, name, ref, found, frame_seconds, speaker))
        part.lattices += [f"{name}\n{found.lattice}\n"] if found.lattice else []


def _skipped_row(tokenizer: Tokenizer, cut: Skipped, empty: Hypothesis) -> dict:
    return hypothesis_row(tokenizer, cut.id, cut.text, empty, 0.0, cut.speaker) | {"skipped": cut.reason}


def hypothesis_row(
    tokenizer: Tokenizer, name: str, ref: str, hypothesis: Hypothesis, frame_seconds: float, speaker: str | None
) -> dict:
    """A line of hyps.jsonl; `units` and `words` are [symbol, seconds from the start of the cut].

    `speaker` is there where the manifest names one, `partial` where no path reached the end of the graph, `nbest` where
    there are further hypotheses, `skipped` where the cut has not even one frame. Phones stay phones where no graph
    makes words of them: `ref` is then in phones, too, and `of` says so.
    """
    symbols = [tokenizer.symbols[unit] for unit in hypothesis.tokens]
    spelled = hypothesis.words is None
    row = {"id": name} | ({"speaker": speaker} if speaker else {})
    row |= {
        "ref": tokenizer.reference(ref) if spelled else ref,
        "hyp": _text(tokenizer, hypothesis),
        "score": round(hypothesis.score, 4),
        "units": _timed(symbols, hypothesis.frames, frame_seconds),
    }
    if not spelled:
        row |= {"words": _timed(hypothesis.words, hypothesis.word_frames, frame_seconds)}
    elif tokenizer.spells != "words":
        row |= {"of": tokenizer.spells}
    if hypothesis.others:
        best = (hypothesis, *hypothesis.others)
        row |= {"nbest": [{"hyp": _text(tokenizer, one), "score": round(one.score, 4)} for one in best]}
    return row if hypothesis.complete else row | {"partial": True}


def _text(tokenizer: Tokenizer, hypothesis: Hypothesis) -> str:
    return tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)


def _timed(symbols: list[str], frames: list[int], frame_seconds: float) -> list[list]:
    return [[symbol, round(frame * frame_seconds, 3)] for symbol, frame in zip(symbols, frames, strict=True)]
