"""The lines of training manifests in the order in which training reads them, and which of them it takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from asrtool.config_data import DataConfig
from asrtool.data.augment import keyed_generator
from asrtool.data.features import MIN_FRAME_SECONDS
from asrtool.data.shards import Entry, read_entries

ROUNDING_SECONDS = 0.001  # speed perturbation rounds a cut to whole samples; a sample is shorter than this


def epoch_lines(
    files: Sequence[Path], seed: int, epoch: int, first_file: int, first_line: int
) -> Iterator[tuple[int, int, Entry]]:
    """Yields the entries of an epoch from a line of a file on, each with its file and line number as in `Position`.

    The order of the files is drawn from (seed, epoch). A file is opened once.
    """
    files = list(files)
    keyed_generator("files", seed, epoch).shuffle(files)
    for file in range(first_file, len(files)):
        for line, entry in enumerate(read_entries(files[file], first_line), first_line):
            yield file, line, entry
        first_line = 0


def is_trained_on(entry: Entry, data: DataConfig) -> bool:
    """Returns True if the cut's length is within the configured limits, and it has a frame at every speed."""
    min_seconds = max(data.min_seconds, MIN_FRAME_SECONDS * max(data.augment.speeds) + ROUNDING_SECONDS)
    return min_seconds <= entry.duration <= data.max_seconds
