"""What objectives count in the training data, kept in the experiment folder: unit priors and unit n-gram counts."""

from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from asrtool.config import Config, Integer
from asrtool.data.inspection import MAX_CUTS, aligned_units, transcript
from asrtool.data.shards import entries_with_trees
from asrtool.errors import UserError
from asrtool.files import write_json
from asrtool.graphs.unit_ngram import END, START, UnitCounts, UnitNgram
from asrtool.progress import progress
from asrtool.readers import read_json
from asrtool.text.tokenizer import BLANK, Tokenizer

PRIORS = "priors.json"  # in an experiment's folder: seconds of each unit in its training data


def write_priors(config: Config, tokenizer: Tokenizer, path: Path) -> None:
    """Seconds of each unit in the alignments of the training data, as a JSON list in the tokenizer's order.

    Counted once: a file that is there is left alone. What is not aligned is blank. Decoding subtracts their logs
    (`--priors`): a frame's posterior is then a scaled likelihood (Bourlard and Morgan 1994). Of a long manifest the
    first MAX_CUTS count.
    """
    if path.is_file():
        return
    number = {symbol: index for index, symbol in enumerate(tokenizer.symbols)}
    seconds = [0.0] * tokenizer.size
    for entry, tree in islice(entries_with_trees(config.data.train), MAX_CUTS):
        seconds[BLANK] += entry.duration
        for symbol, _, duration in aligned_units(tree):
            seconds[number.get(symbol, BLANK)] += duration
            seconds[BLANK] -= duration
    write_json(path, [round(max(value, 0.0), 3) for value in seconds])


UNIT_COUNTS = "unit_ngram.json"  # in an experiment's folder: what its training transcripts have
Occurrences = Annotated[Integer, Field(gt=0, lt=2**53)]  # float64 counts so far
COUNTS = TypeAdapter(list[tuple[list[Integer], list[tuple[Integer, Occurrences]]]])  # as UnitCounts


def unit_counts(config: Config, tokenizer: Tokenizer, kept: Path) -> UnitCounts:
    """What units follow each other in the training transcripts, for UnitNgram; counted once, then read from `kept`.

    Of a long manifest the first MAX_CUTS count, as in the look through it (asrtool/data/inspection.py). UserError
    when `kept` is there, and has no such counts.
    """
    if kept.is_file():
        return read_counts(kept, tokenizer.size)
    cuts = islice(entries_with_trees(config.data.train), MAX_CUTS)
    texts = (transcript(tree) for _, tree in cuts)
    units = (tokenizer.encode(text) for text in texts if text and not tokenizer.unknown(text))
    found = UnitNgram.count(progress(units, "counting units"), config.objective.ngram_order, config.objective.min_count)
    if not found:
        raise UserError(f"no transcript of {config.data.train} has units of the tokenizer; look at both")
    write_json(kept, found)
    return found


def read_counts(path: Path, size: int) -> UnitCounts:
    """The counts that `unit_counts` has written, of units below `size`. UserError for anything else."""
    hint = "delete it, and the training counts again"
    counts = read_json(path, "unit counts", hint)
    try:
        COUNTS.validate_python(counts)
        histories = [tuple(history) for history, _ in counts]
        units = {unit for history in histories for unit in history[1:]}
        units |= {unit for history in histories for unit in history[:1] if unit != START}
        units |= {unit for _, seen in counts for unit, _ in seen if unit != END}
        if not all(0 < unit < size for unit in units):
            raise ValueError(f"units that are not 1 to {size - 1}")
        if () not in histories or len(set(histories)) < len(histories):
            raise ValueError("no empty history, or a history twice")
        if not all(seen for _, seen in counts):
            raise ValueError("a history that nothing follows")
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} has no unit counts (at {place}: {error.errors()[0]['msg']}); {hint}") from error
    except ValueError as error:
        raise UserError(f"{path} has no unit counts ({error}); {hint}") from error
    return counts
