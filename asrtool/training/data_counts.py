"""Counts of units in the training data, which objectives need and the experiment folder keeps.

priors.json        seconds of each output of the model, for objective ce
unit_ngram.json    n-gram counts of units, for the denominator graph of objective mmi
"""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from asrtool.config import ObjectiveConfig
from asrtool.config_data import DataConfig
from asrtool.config_types import Integer, Real
from asrtool.data.exclusion import read_exclusions
from asrtool.data.frame_labels import AlignedSymbol, FrameLabels
from asrtool.data.inspection import MAX_CUTS, aligned_units, transcript
from asrtool.data.mixing import CorpusSize, corpus_shares, training_entries
from asrtool.errors import UserError
from asrtool.files import write_json
from asrtool.graphs.unit_ngram import END, START, UnitCounts, UnitNgram
from asrtool.progress import progress
from asrtool.readers import read_json
from asrtool.text.outputs import num_outputs
from asrtool.text.tokenizer import BLANK, Tokenizer


def write_priors(data: DataConfig, labels: FrameLabels, path: Path) -> None:
    """Writes the seconds of each output of the model in the alignments of the training set, as a JSON list.

    An existing file is not written again, and exclusion lists are not read then. Audio that is not aligned counts as
    blank, or as silence in topology hmm, and only the first MAX_CUTS of a long manifest count, without those in the
    exclusion lists. Corpora that are mixed count by their shares. Decoding subtracts the logarithms of the priors
    (`--priors`): the posterior of a frame is then a scaled likelihood (Bourlard and Morgan 1994).
    """
    if path.is_file():
        return
    excluded = read_exclusions(data.exclusion_lists)
    of_corpora = []
    durations = []
    for manifest in data.train_manifests:
        seconds = [0.0] * num_outputs(labels.topology, labels.tokenizer.size)
        durations.append(0.0)
        for entry, cut_dict in training_entries(manifest, MAX_CUTS, excluded):
            durations[-1] += entry.duration
            for output, duration in _seconds_of_outputs(labels, aligned_units(cut_dict), entry.duration):
                seconds[output] += duration
        of_corpora.append(seconds)
    factors = corpus_factors(data, durations)
    weighted = [[factor * value for value in seconds] for factor, seconds in zip(factors, of_corpora, strict=True)]
    sums = [sum(of_output) for of_output in zip(*weighted, strict=True)]
    write_json(path, [round(max(value, 0.0), 3) for value in sums])


def corpus_factors(data: DataConfig, seconds: Sequence[float]) -> list[float]:
    """Returns how often training reads each corpus while it reads as much audio as all have, from their `seconds`.

    All are 1 for a single corpus, and for several without weights and temperature.
    """
    if not isinstance(data.train, tuple) or not sum(seconds):
        return [1.0] * len(seconds)
    shares = corpus_shares(data, [CorpusSize(1, own) for own in seconds])
    total = sum(seconds)
    return [share * total / own if own else 0.0 for share, own in zip(shares, seconds, strict=True)]


def _seconds_of_outputs(
    labels: FrameLabels, items: Sequence[AlignedSymbol], duration: float
) -> Iterator[tuple[int, float]]:
    """Yields outputs and how many seconds of an utterance, of `duration` seconds in all, each of them has."""
    if labels.topology == "hmm":
        yield from labels.hmm_seconds(items, duration)
        return
    yield BLANK, duration
    units = labels.tokenizer.aligned_units([symbol for symbol, _, _ in items])
    for unit, (_, _, seconds) in zip(units, items, strict=True):
        yield BLANK if unit is None else unit, seconds
        yield BLANK, -seconds


Occurrences = Annotated[Real, Field(gt=0, lt=2**53)]  # float64 holds whole numbers below exactly
COUNTS = TypeAdapter(list[tuple[list[Integer], list[tuple[Integer, Occurrences]]]])  # the schema of UnitCounts


def unit_counts(data: DataConfig, objective: ObjectiveConfig, tokenizer: Tokenizer, path: Path) -> UnitCounts:
    """Returns the n-gram counts of units in the transcripts of the training set (`UnitNgram.count`).

    If units are phones in context, the phones are counted. The counts are written to `path`, or read from it when it
    exists; neither manifests nor exclusion lists are read then. Cuts in the exclusion lists do not count, and only the
    first MAX_CUTS of a long manifest, as in its scan (asrtool/data/inspection.py). Corpora that are mixed count by
    their shares. Raises UserError when `path` has no such counts.
    """
    if path.is_file():
        return read_unit_counts(path, tokenizer.without_context.size)
    excluded = read_exclusions(data.exclusion_lists)
    is_mixed = isinstance(data.train, tuple)
    corpora = []
    durations = []
    for manifest in data.train_manifests:
        counted, seconds = _count_corpus(
            manifest, objective, tokenizer, excluded, 0 if is_mixed else objective.min_count
        )
        corpora.append(counted)
        durations.append(seconds)
    counts = corpora[0]
    if is_mixed:
        counts = UnitNgram.mixed_counts(corpora, corpus_factors(data, durations), objective.min_count)
    if not counts:
        names = ", ".join(map(str, data.train_manifests))
        raise UserError(f"no transcript of {names} has units of the tokenizer; look at both")
    write_json(path, counts)
    return counts


def _count_corpus(
    manifest: Path, objective: ObjectiveConfig, tokenizer: Tokenizer, excluded: Container[str], min_count: int
) -> tuple[UnitCounts, float]:
    """Returns the counts of a manifest, and the seconds of its cuts."""
    plain = tokenizer.without_context
    seconds = 0.0

    def sentences() -> Iterator[list[list[int]]]:
        """The units of each word, by its first pronunciation."""
        nonlocal seconds
        for entry, cut_dict in training_entries(manifest, MAX_CUTS, excluded):
            seconds += entry.duration
            text = transcript(cut_dict)
            if text and not tokenizer.unknown(text):
                yield [pronunciations[0] for pronunciations in plain.pronunciation_units(text)]

    silence = plain.silence if objective.optional_silence else None
    counts = UnitNgram.count_words(
        progress(sentences(), "counting units"), objective.ngram_order, min_count, silence, objective.optional_silence
    )
    return counts, seconds


def read_unit_counts(path: Path, num_units: int) -> UnitCounts:
    """Returns the counts that `unit_counts` wrote, of units below `num_units`. Raises UserError for anything else."""
    hint = "delete it, and training counts again"
    counts = read_json(path, "unit counts", hint)
    try:
        COUNTS.validate_python(counts)
        histories = [tuple(history) for history, _ in counts]
        _check_histories(histories, [followers for _, followers in counts], num_units)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} has no unit counts (at {place}: {error.errors()[0]['msg']}); {hint}") from error
    except ValueError as error:
        raise UserError(f"{path} has no unit counts ({error}); {hint}") from error
    return counts


def _check_histories(histories: list[tuple[int, ...]], followers: list[list[tuple[int, int]]], num_units: int) -> None:
    """Raises ValueError for counts that are not an n-gram over the units 1 to `num_units` - 1."""
    units = {unit for history in histories for unit in history[1:]}
    units |= {unit for history in histories for unit in history[:1] if unit != START}
    units |= {unit for pairs in followers for unit, _ in pairs if unit != END}
    if not all(0 < unit < num_units for unit in units):
        raise ValueError(f"units that are not 1 to {num_units - 1}")
    if () not in histories or len(set(histories)) < len(histories):
        raise ValueError("the empty history is missing, or a history occurs twice")
    if not all(followers):
        raise ValueError("a history that nothing follows")
