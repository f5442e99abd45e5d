"""The hours and the lengths of a training set, for a plan."""

from dataclasses import dataclass

from asrtool.config import Config
from asrtool.data.corpus_lines import is_trained_on
from asrtool.data.shards import entries
from asrtool.progress import progress


@dataclass(frozen=True)
class TrainingData:
    """The training set of a configuration, as its manifests have it."""

    utterances: int
    hours: float
    longest: float  # seconds

    @property
    def mean(self) -> float:
        """The mean length of an utterance in seconds."""
        return 3600 * self.hours / self.utterances


def read_training_data(config: Config) -> TrainingData | None:
    """Returns the size of the training set, without utterances that are left out for their length; None if it has none.

    None is also returned where a manifest is not there. Raises the errors of reading a manifest.
    """
    if not all(path.exists() for path in config.data.train_manifests):
        return None
    count, seconds, longest = 0, 0.0, 0.0
    read = (entry for path in config.data.train_manifests for entry in entries(path))
    for entry in progress(read, "reading the training set", None, "utterances"):
        if is_trained_on(entry, config.data):
            count, seconds, longest = count + 1, seconds + entry.duration, max(longest, entry.duration)
    return TrainingData(count, seconds / 3600, longest) if count else None
