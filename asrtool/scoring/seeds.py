"""Systems that were trained with several seeds: means of their error rates, and the mean difference of two systems."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.errors import DataError, UserError
from asrtool.scoring.folder import HYPOTHESES, compare_folders, read_hypotheses
from asrtool.scoring.normalised import normalise_rows
from asrtool.scoring.paired import PairedDifference, count_errors, difference_of_errors
from asrtool.scoring.report import format_interval
from asrtool.scoring.wer import Interval
from asrtool.text.normalisation_rules import NormalisationRules


@dataclass(frozen=True)
class SeedMean:
    """The mean of one figure of each seed, and its 95 % interval by Student's t: other seeds have such means."""

    values: tuple[float, ...]
    mean: float
    interval: Interval


@dataclass(frozen=True)
class SeedDifference:
    """The error rate of one system minus the one of another in percent, both with the same seeds.

    pairs: the difference of each seed. over_seeds: their mean. over_utterances: the same by paired bootstrap,
    in which an utterance is drawn with its results of all seeds. A difference that one of the two intervals does not
    tell from 0 may be chance.
    """

    pairs: tuple[PairedDifference, ...]
    over_seeds: SeedMean
    over_utterances: PairedDifference


def mean_over_seeds(values: Sequence[float]) -> SeedMean:
    """Returns the mean of two or more values and its interval. Raises UserError for fewer."""
    from scipy.stats import t

    if len(values) < 2:
        raise UserError("a mean over seeds needs the results of two seeds or more")
    mean = statistics.fmean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return SeedMean(tuple(values), mean, (mean - half, mean + half))


def compare_seeds(
    folders: Sequence[Path], other_folders: Sequence[Path], rules: NormalisationRules | None = None
) -> SeedDifference:
    """Returns the difference of two systems; the N-th folders of both are results of the same seed.

    `rules` normalise all texts. Raises UserError unless there are as many folders of both and two or more, the errors
    of `compare_folders`, and DataError if some folders have other utterances.
    """
    if len(folders) != len(other_folders):
        raise UserError(
            f"{len(folders)} results are compared with {len(other_folders)}; give one --against for each, "
            "in the same order of seeds"
        )
    pairs = tuple(compare_folders([one], [other], rules) for one, other in zip(folders, other_folders, strict=True))
    over_seeds = mean_over_seeds([pair.difference for pair in pairs])
    ids = sorted(row["id"] for row in read_hypotheses(Path(folders[0]) / HYPOTHESES))
    lengths = _of_utterances(folders[0], ids, rules, lambda refs, _: np.array([len(ref.split()) for ref in refs]))
    errors, other_errors = (
        np.sum([_of_utterances(folder, ids, rules, count_errors) for folder in own], axis=0)
        for own in (folders, other_folders)
    )
    return SeedDifference(pairs, over_seeds, difference_of_errors(errors - other_errors, len(folders) * lengths))


def _of_utterances(
    folder: Path, ids: list[str], rules: NormalisationRules | None, figure: Callable[[list[str], list[str]], np.ndarray]
) -> np.ndarray:
    """Returns a figure of the references and hypotheses of these utterances, which must be all that the folder has."""
    rows = read_hypotheses(Path(folder) / HYPOTHESES)
    by_id = {row["id"]: row for row in (normalise_rows(rows, rules) if rules else rows)}
    problems = [f"{key}: not in all folders" for key in sorted(by_id.keys() ^ set(ids))]
    if problems:
        raise DataError(f"{folder} has other utterances than the first folder; decode the same manifest", problems)
    return figure([by_id[key]["ref"] for key in ids], [by_id[key]["hyp"] for key in ids])


def seeds_line(name: str, rates: SeedMean) -> str:
    """Returns a line with the mean error rate of several seeds, its interval and the range of the rates, in percent."""
    low, high = min(rates.values), max(rates.values)
    seeds = f"over {len(rates.values)} seeds, which have {low:.2f} to {high:.2f} %"
    return f"{name} {rates.mean:.2f} % {format_interval(rates.interval)} {seeds}"


def seed_difference_line(difference: SeedDifference) -> str:
    """Returns a line with the mean difference of two systems with several seeds, in percent."""
    over_seeds = format_interval(difference.over_seeds.interval, "{:+.2f}")
    over_utterances = format_interval(difference.over_utterances.interval, "{:+.2f}")
    seeds = f"against the other over {len(difference.pairs)} seeds"
    utterances = f"{over_utterances} over {difference.over_utterances.utterances} utterances"
    return f"    {difference.over_seeds.mean:+.2f} {over_seeds} {seeds}, {utterances}"
