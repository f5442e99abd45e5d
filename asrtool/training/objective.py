"""The objective of a training, created from its configuration and its data."""

from pathlib import Path

import torch

from asrtool.config import Config
from asrtool.data.exclusion import read_exclusions
from asrtool.distributed import Ranks, on_first_rank
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.mmi import Mmi
from asrtool.objectives.objective import Objective
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.data_counts import PRIORS, UNIT_COUNTS, unit_counts, write_priors


def create_objective(
    config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device
) -> Objective:
    """Returns the objective on `device`. Its counts over the training data are kept in the experiment's folder."""
    section = config.objective
    train = config.data.train_manifests
    excluded = read_exclusions(config.data.exclusion_lists)
    objective: Objective
    if section.kind == "ctc":
        objective = Ctc()
    elif section.kind == "ce":
        on_first_rank(ranks, lambda: write_priors(train, tokenizer, experiment / PRIORS, excluded))
        objective = CrossEntropy(config.model.subsampling.factor, section.label_smoothing)
    else:
        path = experiment / UNIT_COUNTS
        counts = on_first_rank(ranks, lambda: unit_counts(train, section, tokenizer, path, excluded))
        cross_entropy = CrossEntropy(config.model.subsampling.factor, section.label_smoothing)
        objective = Mmi(section, tokenizer, UnitNgram(section.ngram_order, counts), device, cross_entropy)
    objective.intermediate_ctc = section.intermediate_ctc
    return objective
