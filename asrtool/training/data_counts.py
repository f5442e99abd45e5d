"""Counts of units in the training data, which objectives need and the experiment folder keeps.

priors.json        seconds of each unit, for objective ce
unit_ngram.json    n-gram counts of units, for the denominator graph of objective mmi
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from asrtool.config import ObjectiveConfig
from asrtool.config_types import Integer
from asrtool.data.inspection import MAX_CUTS, aligned_units, transcript
from asrtool.data.mixing import training_entries
from asrtool.errors import UserError
from asrtool.files import write_json
from asrtool.graphs.unit_ngram import END, START, UnitCounts, UnitNgram
from asrtool.progress import progress
from asrtool.readers import read_json
from asrtool.text.tokenizer import BLANK, Tokenizer

PRIORS = "priors.json"
UNIT_COUNTS = "unit_ngram.json"


def write_priors(
    manifests: Path | Sequence[Path], tokenizer: Tokenizer, path: Path, excluded: Container[str] = ()
) -> None:
    """Writes the seconds of each unit in the alignments of manifests, as a JSON list in the tokenizer's order.

    An existing file is not written again. Audio that is not aligned counts as blank, and only the first MAX_CUTS of a
    long manifest count, without those that are `excluded`. Corpora count whatever their weights. Decoding subtracts the
    logarithms of the priors (`--priors`): the posterior of a frame is then a scaled likelihood (Bourlard and Morgan
    1994).
    """
    if path.is_file():
        return
    seconds = [0.0] * tokenizer.size
    for entry, tree in training_entries(manifests, MAX_CUTS, excluded):
        seconds[BLANK] += entry.duration
        items = aligned_units(tree)
        units = tokenizer.aligned_units([symbol for symbol, _, _ in items])
        for unit, (_, _, duration) in zip(units, items, strict=True):
            seconds[BLANK if unit is None else unit] += duration
            seconds[BLANK] -= duration
    write_json(path, [round(max(value, 0.0), 3) for value in seconds])


Occurrences = Annotated[Integer, Field(gt=0, lt=2**53)]  # float64 holds such counts exactly
COUNTS = TypeAdapter(list[tuple[list[Integer], list[tuple[Integer, Occurrences]]]])  # the schema of UnitCounts


def unit_counts(
    manifests: Path | Sequence[Path],
    objective: ObjectiveConfig,
    tokenizer: Tokenizer,
    path: Path,
    excluded: Container[str] = (),
) -> UnitCounts:
    """Returns the n-gram counts of units in the transcripts of manifests (`UnitNgram.count`).

    If units are phones in context, the phones are counted. The counts are written to `path`, or read from it when it
    exists. Cuts that are `excluded` do not count, and only the first MAX_CUTS of a long manifest, as in its scan
    (asrtool/data/inspection.py). Raises UserError when `path` has no such counts.
    """
    if path.is_file():
        return read_unit_counts(path, tokenizer.without_context.size)
    texts = (transcript(tree) for _, tree in training_entries(manifests, MAX_CUTS, excluded))
    units = (tokenizer.without_context.encode(text) for text in texts if text and not tokenizer.unknown(text))
    counts = UnitNgram.count(progress(units, "counting units"), objective.ngram_order, objective.min_count)
    if not counts:
        raise UserError(f"no transcript of {manifests} has units of the tokenizer; look at both")
    write_json(path, counts)
    return counts


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
