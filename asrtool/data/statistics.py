"""Means and deviations of features."""

from collections.abc import Iterable
from itertools import takewhile

import torch
from torch import Tensor

from asrtool.data.batch import Batch
from asrtool.errors import UserError

STATISTICS_SECONDS = 3600.0  # an hour of shuffled speech fixes the mean of a bin to about 0.01 of its deviation


def feature_statistics(batches: Iterable[Batch], per_utterance: bool) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation per bin, (F,) float32 each, over an hour of `batches`, or the first epoch.

    With `per_utterance` the deviation is around each utterance's own mean. UserError if there are no frames, or
    values of which no mean can be computed.
    """
    count = 0
    seconds = 0.0
    total = torch.zeros((), dtype=torch.float64)
    squares = torch.zeros((), dtype=torch.float64)
    for batch in takewhile(lambda batch: batch.position.epoch == 0, batches):
        for features, length in zip(batch.features.double(), batch.feature_lens.tolist(), strict=True):
            frames = features[:length]  # (T, F)
            if per_utterance:
                frames = frames - frames.mean(0)
            count += length
            total = total + frames.sum(0)
            squares = squares + (frames**2).sum(0)
        seconds += batch.seconds
        if seconds > STATISTICS_SECONDS:
            break
    if not count:
        raise UserError("data.train has no cut with a whole frame, so that its features have no mean")
    mean = total / count
    deviation = (squares / count - mean**2).clamp(min=0).sqrt().float()
    if not (mean.float().isfinite().all() and deviation.isfinite().all()):
        raise UserError("the mean of the features is not finite; look for extreme values in the audio of data.train")
    return mean.float(), deviation
