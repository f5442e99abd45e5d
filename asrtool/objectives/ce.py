"""Frame-level cross entropy on alignments: the criterion that hybrid acoustic models begin with."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from asrtool.config import Config
from asrtool.data.inspection import MOST_CUTS, aligned_units
from asrtool.data.loading import NO_LABEL, Batch
from asrtool.data.shards import entries_with_trees
from asrtool.files import write_json
from asrtool.text.tokenizer import BLANK, Tokenizer

PRIORS = "priors.json"  # in an experiment's folder: seconds of each unit in its training data


class CrossEntropy:
    """-ln of the aligned unit, added up over the frames of an utterance; the blank where no unit is.

    `factor` frames of 10 ms are one of the model's; it answers for the one in their middle. `smoothing` gives this
    share of each frame to all units alike (Szegedy et al. 2016, section 7).
    """

    intermediate = 0.0  # see asrtool/objectives/objective.py

    def __init__(self, factor: int, smoothing: float = 0.0):
        self.factor, self.smoothing = factor, smoothing

    def __str__(self) -> str:
        return "ce: frame-level cross entropy on the alignments of the manifest"

    def frames_needed(self, units: Sequence[int]) -> int:
        """The fewest output frames that training can use: one."""
        return 1

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance that has no units or no alignment."""
        labels = self.labels(batch, log_probs.shape[1]).to(log_probs.device)
        beyond = torch.arange(log_probs.shape[1], device=log_probs.device) >= out_lens[:, None]
        labels = labels.masked_fill(beyond, NO_LABEL)
        with torch.autocast(log_probs.device.type, enabled=False):
            loss = cross_entropy(
                log_probs.float().transpose(1, 2),
                labels,
                ignore_index=NO_LABEL,
                reduction="none",
                label_smoothing=self.smoothing,
            )
        return loss.sum(1) * (batch.target_lens.to(loss.device) > 0)

    def labels(self, batch: Batch, frames: int) -> Tensor:
        """(N, frames) of the model's frames, from those of 10 ms; NO_LABEL where there is none."""
        middle = torch.arange(frames) * self.factor + self.factor // 2
        return batch.labels[:, middle.clamp(max=batch.labels.shape[1] - 1)]


def write_priors(config: Config, tokenizer: Tokenizer, path: Path) -> None:
    """Seconds of each unit in the alignments of the training data, as a JSON list in the tokenizer's order.

    Counted once: a file that is there is left alone. What is not aligned is blank. Decoding subtracts their logs
    (`--priors`): a frame's posterior is then a scaled likelihood (Bourlard and Morgan 1994). Of a long manifest the
    first MOST_CUTS count.
    """
    if path.is_file():
        return
    number = {symbol: index for index, symbol in enumerate(tokenizer.symbols)}
    seconds = [0.0] * tokenizer.size
    for entry, tree in islice(entries_with_trees(config.data.train), MOST_CUTS):
        seconds[BLANK] += entry.duration
        for symbol, _, duration in aligned_units(tree):
            seconds[number.get(symbol, BLANK)] += duration
            seconds[BLANK] -= duration
    write_json(path, [round(max(value, 0.0), 3) for value in seconds])
