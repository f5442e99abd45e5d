"""What training minimises, by the configuration's `objective`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from asrtool.config import Config
from asrtool.data.loading import Batch
from asrtool.graphs.training import UnitNgram
from asrtool.objectives.ce import PRIORS, CrossEntropy, write_priors
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.mmi import UNIT_COUNTS, Mmi, unit_counts
from asrtool.ranks import Ranks, on_first
from asrtool.text.tokenizer import Tokenizer


class Objective(Protocol):
    """From log-probabilities and what is known of a batch to the loss of each utterance.

    `intermediate`: the share of the loss in training that is CTC on the middle of the model (Lee and Watanabe 2021).
    """

    intermediate: float = 0.0

    def frames_needed(self, units: Sequence[int]) -> int:
        """The fewest output frames that can spell `units`."""

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats from log_probs (N, T', V) and out_lens (N,); 0, and no gradient, for what cannot be used."""


def make_objective(
    config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device
) -> Objective:
    """The objective, on `device`. What it counts in the training data is kept in the experiment's folder."""
    objective = _make(config, tokenizer, experiment, ranks, device)
    objective.intermediate = config.objective.intermediate
    return objective


def _make(config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device) -> Objective:
    chosen = config.objective
    if chosen.kind == "ctc":
        return Ctc()
    cross_entropy = CrossEntropy(config.model.subsampling.factor, chosen.label_smoothing)
    if chosen.kind == "ce":
        on_first(ranks, lambda: write_priors(config, tokenizer, experiment / PRIORS))
        return cross_entropy
    counts = on_first(ranks, lambda: unit_counts(config, tokenizer, experiment / UNIT_COUNTS))
    ngram = UnitNgram(chosen.order, counts)
    return Mmi(chosen, tokenizer, ngram, device, cross_entropy)
