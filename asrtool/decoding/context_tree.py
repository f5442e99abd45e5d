"""Units of phones in context from an aligned manifest: `asrtool tree`."""

import itertools
from pathlib import Path

import numpy as np
from lhotse import MonoCut

from asrtool.data.features import frame_seconds, stored_or_computed
from asrtool.data.inspection import alignment_problem
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sampling import OrderedSampler
from asrtool.data.shards import entries_with_dicts
from asrtool.data.sources import as_data_error
from asrtool.decoding.checks import check_cuts
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment
from asrtool.files import require_output, require_same_kind
from asrtool.progress import progress
from asrtool.text.context_statistics import ContextStatistics, StatisticsCollector
from asrtool.text.tokenizer import PhoneTokenizer, load_tokenizer, save_tokenizer
from asrtool.text.tree_growing import grow_tokenizer, likelihood_gain

NUM_BINS = 80  # of features that are computed: the recipes' number
NUM_CEPSTRA = 13  # as Kaldi's MFCC: the first cepstra, which are nearly uncorrelated, as a diagonal covariance assumes
DELTA_FRAMES = 5  # over which deltas are fitted, as in HTK and Kaldi
# Log-probs below it are raised to it: how impossible the other units of a frame are would outweigh everything else
MIN_LOG_PROB = -10.0


def grow_units(
    cuts: Path,
    out: Path,
    tokenizer: Path,
    kind: str,
    num_leaves: int,
    min_count: int,
    experiment: Experiment | None = None,
    batch_seconds: float = 200.0,
    workers: int = 1,
    max_minutes: float = 5.0,
) -> str:
    """Grows trees on an aligned manifest, and writes a tokenizer of `kind` "biphone" or "triphone"; returns a summary.

    `tokenizer` is the file of the phones that the manifest is aligned with. The trees are grown on the log-probs of
    `experiment`, or else on the features (`feature_statistics`). Raises UserError for another tokenizer and for an
    output that cannot be written, and DataError with all cuts without an alignment.
    """
    require_output(out, (".json",), [cuts, tokenizer])
    require_same_kind(out, "a tokenizer", load_tokenizer)
    phones = load_tokenizer(tokenizer)
    if not isinstance(phones, PhoneTokenizer):
        raise UserError(f"{tokenizer} is not of type phone; give the tokenizer of the system that aligned {cuts}")
    _check_alignments(cuts, phones, max_minutes)
    if experiment:
        statistics = log_prob_statistics(experiment, cuts, phones, batch_seconds, workers, max_minutes)
    else:
        statistics = feature_statistics(cuts, phones, max_minutes)
    if not statistics.num_frames:
        raise UserError(f"no phone of {cuts} has a frame; align it again with `asrtool align`")
    units = grow_tokenizer(statistics, phones, kind, num_leaves, min_count)
    save_tokenizer(units, out)
    gain = likelihood_gain(statistics, units)
    return (
        f"{units.size} units ({kind}): {units.size - 1} leaves of {phones.size - 1} phones, from "
        f"{len(statistics.contexts):,} contexts in {statistics.num_frames:,} frames; {gain:.2f} nats a frame gained"
    )


def feature_statistics(cuts: Path, phones: PhoneTokenizer, max_minutes: float) -> ContextStatistics:
    """Returns statistics of cepstra of the log-mel features of a manifest, stored or computed from the audio.

    They are 13 cepstra with deltas and second deltas, of mean 0 and variance 1 in each cut. Each cut is aligned with
    `phones`. Raises DataError for audio that cannot be read.
    """
    collector = StatisticsCollector()
    for cut in progress(open_cuts(cuts), f"statistics of {cuts.name}"):
        _add_cut(collector, cut, _cepstra(cut, 60 * max_minutes), frame_seconds(cut.sampling_rate), phones)
    return collector.result()


def log_prob_statistics(
    experiment: Experiment, cuts: Path, phones: PhoneTokenizer, batch_seconds: float, workers: int, max_minutes: float
) -> ContextStatistics:
    """Returns statistics of the log-probs of a model; each cut of the manifest is aligned with `phones`."""
    experiment.max_seconds = 60 * max_minutes
    collector = StatisticsCollector()
    # The loader reads some batches ahead: only these are kept.
    cut_batches, loaded = itertools.tee(OrderedSampler(cuts, batch_seconds))
    batches = progress(experiment.batches(loaded, workers), f"statistics of {cuts.name}", units="batches")
    for cut_batch, batch in zip(cut_batches, batches, strict=True):
        cut_of = {entry.id: read_cut(entry) for entry in cut_batch.entries}
        log_probs, lens = experiment.log_probs(batch)
        rows = zip(batch.ids, log_probs.float().clamp(min=MIN_LOG_PROB).cpu().numpy(), lens.tolist(), strict=True)
        for name, row, length in rows:
            _add_cut(collector, cut_of[name], row[:length], experiment.frame_seconds, phones)
    return collector.result()


def _check_alignments(cuts: Path, phones: PhoneTokenizer, max_minutes: float) -> None:
    check_cuts(cuts, max_minutes)
    problems = []
    for entry, cut_dict in entries_with_dicts(cuts):
        if problem := alignment_problem(cut_dict, phones):
            problems.append(f"{entry.id}: {problem}")
    if problems:
        hint = "align the manifest by `asrtool align` with a system of these phones"
        raise DataError(f"{len(problems)} cuts of {cuts} have no alignment of phones; {hint}", problems)


def _cepstra(cut: MonoCut, max_seconds: float) -> np.ndarray:
    """Returns normalised cepstra with deltas, (T, 3 * NUM_CEPSTRA)."""
    from scipy.fft import dct
    from scipy.signal import savgol_filter

    num_bins = cut.features.num_features if cut.has_features else NUM_BINS
    with as_data_error():
        features = stored_or_computed(cut, num_bins, max_seconds)
    cepstra = dct(features.numpy(), norm="ortho", axis=1)[:, :NUM_CEPSTRA]
    padded = np.pad(cepstra, [(DELTA_FRAMES, DELTA_FRAMES), (0, 0)], mode="edge")
    deltas = [savgol_filter(padded, DELTA_FRAMES, polyorder=order, deriv=order, axis=0) for order in (1, 2)]
    inner = slice(DELTA_FRAMES, -DELTA_FRAMES)
    stacked = np.concatenate([cepstra, *(values[inner] for values in deltas)], axis=1)
    return (stacked - stacked.mean(axis=0)) / np.maximum(stacked.std(axis=0), np.finfo(np.float32).eps)


def _add_cut(
    collector: StatisticsCollector, cut: MonoCut, frames: np.ndarray, frame_seconds: float, phones: PhoneTokenizer
) -> None:
    """Adds a cut with frames (T, D) of `frame_seconds` seconds."""
    items = (cut.supervisions[0].alignment or {})["unit"]
    units = [unit for unit in phones.aligned_units([item.symbol for item in items]) if unit is not None]
    begins = [round(item.start / frame_seconds) for item in items]
    ends = [round(item.end / frame_seconds) for item in items]
    collector.add(frames, units, begins, ends)
