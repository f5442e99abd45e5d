"""The objective of a training, created from its configuration and its data."""

import logging
from pathlib import Path

import torch

from asrtool.config import Config, ObjectiveConfig
from asrtool.data.features import frame_seconds
from asrtool.data.frame_labels import FrameLabels
from asrtool.distributed import Ranks, on_first_rank
from asrtool.errors import UserError
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.full_sum import transcript_sum
from asrtool.objectives.mmi import Mmi
from asrtool.objectives.objective import Objective
from asrtool.system_files import PRIORS, UNIT_COUNTS
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.data_counts import unit_counts, write_priors

logger = logging.getLogger(__name__)


def create_objective(
    config: Config, tokenizer: Tokenizer, experiment: Path, ranks: Ranks, device: torch.device
) -> Objective:
    """Returns the objective on `device`. Its counts over the training data are kept in the experiment's folder.

    Raises UserError for a probability of silence if no unit is silence, and for pdfs of Kaldi without objective ce.
    """
    section = config.objective
    if isinstance(tokenizer, PdfTokenizer) and (section.kind != "ce" or section.intermediate_ctc):
        hint = "set objective.kind=ce and objective.intermediate_ctc=0"
        raise UserError(f"the units are pdfs of Kaldi, which alignments give and transcripts do not; {hint}")
    if section.silence_probability and tokenizer.silence is None:
        hint = "create the units with `asrtool tokenizer --silence SIL`, or leave it out"
        raise UserError(f"objective.silence_probability is given, and no unit is silence; {hint}")
    _warn_of_topology(section, tokenizer)
    objective: Objective
    if section.kind == "ctc":
        objective = transcript_sum(section, tokenizer)
    elif section.kind == "ce":
        shift = frame_seconds(config.features.sampling_rate)
        labels = FrameLabels(tokenizer, section.topology, config.model.subsampling.factor, shift)
        on_first_rank(ranks, lambda: write_priors(config.data, labels, experiment / PRIORS))
        objective = CrossEntropy(config.model.subsampling.factor, section.label_smoothing)
    else:
        path = experiment / UNIT_COUNTS
        counts = on_first_rank(ranks, lambda: unit_counts(config.data, section, tokenizer, path))
        cross_entropy = CrossEntropy(config.model.subsampling.factor, section.label_smoothing)
        objective = Mmi(section, tokenizer, UnitNgram(section.ngram_order, counts), device, cross_entropy)
    objective.intermediate_ctc = section.intermediate_ctc
    objective.intermediate_objective = transcript_sum(section, tokenizer)
    return objective


def _warn_of_topology(section: ObjectiveConfig, tokenizer: Tokenizer) -> None:
    """Warns of a topology that has no effect, or that leaves pauses without an output."""
    if section.topology == "hmm" and tokenizer.silence is None:
        logger.warning(
            "objective.topology=hmm has no blank, and no unit is silence, so that words take the pauses; create the "
            "units with `asrtool tokenizer --silence SIL`"
        )
    sums_over_silence = section.kind == "ctc" and section.optional_silence > 0
    if section.topology == "modified" and section.kind != "mmi" and not sums_over_silence:
        logger.warning(f"objective.topology=modified has no effect with objective.kind={section.kind}: it is for mmi")
