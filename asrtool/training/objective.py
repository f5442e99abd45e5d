"""The objective of a training, made from its configuration and its data."""

from pathlib import Path

import torch

from asrtool.config import Config
from asrtool.distributed import Ranks, on_first_rank
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.mmi import Mmi
from asrtool.objectives.objective import Objective
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.data_counts import PRIORS, UNIT_COUNTS, unit_counts, write_priors


def make_objective(
    config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device
) -> Objective:
    """The objective, on `device`. What it counts in the training data is kept in the experiment's folder."""
    objective = _make(config, tokenizer, experiment, ranks, device)
    objective.intermediate_ctc = config.objective.intermediate_ctc
    return objective


def _make(config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device) -> Objective:
    chosen = config.objective
    if chosen.kind == "ctc":
        return Ctc()
    cross_entropy = CrossEntropy(config.model.subsampling.factor, chosen.label_smoothing)
    if chosen.kind == "ce":
        on_first_rank(ranks, lambda: write_priors(config, tokenizer, experiment / PRIORS))
        return cross_entropy
    counts = on_first_rank(ranks, lambda: unit_counts(config, tokenizer, experiment / UNIT_COUNTS))
    ngram = UnitNgram(chosen.ngram_order, counts)
    return Mmi(chosen, tokenizer, ngram, device, cross_entropy)
