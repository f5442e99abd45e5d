"""Adaptation to speakers: the model's weights, trained on for each speaker with pseudo-labels.

A model that was trained on few speakers generalises badly to new ones. Its hypotheses for a few minutes of a new
speaker are mostly right, more so after a language model, and some epochs of training on them, with the training's own
objective and augmentation, adapt the model to that voice. This is unsupervised adaptation, as Kaldi's with fMLLR but of
all weights; Bell et al. 2021, "Adaptation Algorithms for Neural Network-Based Speech Recognition", is an overview. With
transcripts instead of hypotheses it is supervised, from an enrolment.
"""

import logging
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asrtool.adapted_weights import MARKER, read_adaptation_info, round_suffix, weights_file
from asrtool.data.shards import entries, manifest_name
from asrtool.distributed import rank_log, this_rank
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.files import file_hash, require_own_folder, write_text
from asrtool.locks import write_lock
from asrtool.precision import uses_bf16
from asrtool.progress import progress
from asrtool.scoring.folder import HYPOTHESES, read_hypothesis_texts, read_result_facts
from asrtool.training.speaker_cuts import SpeakerCuts, cuts_by_speaker
from asrtool.training.speaker_trainer import AdaptationSettings, SpeakerTrainer

logger = logging.getLogger(__name__)


def adapt(
    experiment: Experiment,
    cuts: Path,
    out: Path | None,
    hypotheses: Path | None,
    settings: AdaptationSettings,
    workers: int = 1,
) -> str | None:
    """Writes weights for each speaker of the manifest `cuts` into the folder `out`; returns a line for people.

    The texts are the hypotheses in `hypotheses`, a folder of `asrtool decode`, or else the texts of the manifest. A
    speaker without usable texts keeps the model's weights. Hypotheses from adapted weights lead to a further round,
    which starts from the same weights as the first. Speakers that have weights of the same run already are skipped, so
    that an interrupted run can be repeated. Under torchrun the ranks share the speakers; all but the first return None.

    Raises UserError for hypotheses in phones, for a folder `out` of something else, and for transforms of a system that
    was trained with other speeds, and DataError for a manifest without speakers, for cuts that are not in `hypotheses`,
    and when no speaker could be adapted to.
    """
    ranks = this_rank()
    speeds = experiment.config.data.augment.speeds
    if experiment.transforms and speeds != (1.0,):
        named = ", ".join(f"{speed:g}" for speed in speeds)
        raise UserError(
            f"--transforms are of voices at their own speed, and {experiment.folder} augments with the speeds {named}; "
            "leave --transforms out"
        )
    with rank_log(ranks, experiment.folder / "logs"):
        ids = (entry.id for entry in entries(cuts))
        pseudo_labels = read_hypothesis_texts(hypotheses, ids) if hypotheses else None
        speakers = cuts_by_speaker(cuts, pseudo_labels, experiment.tokenizer, experiment.config.data)
        facts = _run_facts(experiment, cuts, hypotheses, settings) | {"rank": ranks.rank}
        out = out or experiment.folder / f"adapted{round_suffix(facts['round'])}" / manifest_name(cuts)
        require_own_folder(out, MARKER, "asrtool adapt")
        with write_lock(out, "asrtool adapt") if ranks.is_first else nullcontext():
            write_text(out / MARKER, f"Weights of `asrtool adapt` for the speakers of {cuts}.\n")
            own_speakers = sorted(speakers, key=lambda speaker: -speaker.seconds)[ranks.rank :: ranks.world_size]
            trainer = SpeakerTrainer(experiment, settings, workers)
            _adapt_speakers(own_speakers, trainer, out, facts)
            _require_adapted(out, speakers, facts["run"])
    if not ranks.is_first:
        return None
    minutes = sum(speaker.seconds for speaker in speakers) / 60
    return f"{out}: {len(speakers)} speakers, adapted on {minutes:.1f} minutes of audio"


def _adapt_speakers(speakers: list[SpeakerCuts], trainer: SpeakerTrainer, out: Path, facts: dict[str, Any]) -> None:
    """Writes the weights of each speaker who has none of this run yet."""
    for speaker in progress(speakers, "adapting to the speakers", len(speakers), "speakers"):
        info = read_adaptation_info(out, speaker.name)
        path = weights_file(out, speaker.name)
        if info is None or info.run != facts["run"] or not path.is_file():
            trainer.write(speaker, path, facts)


def _run_facts(
    experiment: Experiment, cuts: Path, hypotheses: Path | None, settings: AdaptationSettings
) -> dict[str, Any]:
    """What the weights of all speakers of a run have in common; `run` is a hash of everything that they depend on."""
    chosen = {name: value for name, value in asdict(settings).items() if value is not None}
    precision = settings.precision or experiment.config.training.precision
    chosen["precision"] = "bf16" if uses_bf16(precision, experiment.device) else "fp32"
    facts: dict[str, Any] = {"cuts": str(cuts), "source": str(hypotheses or cuts)} | chosen
    facts |= experiment.transforms.facts() if experiment.transforms else {}
    hypotheses_hash = file_hash(hypotheses / HYPOTHESES) if hypotheses else None
    facts["run"] = run_hash(experiment, cuts, facts | {"hypotheses": hypotheses_hash})
    decoding = read_result_facts(hypotheses) if hypotheses else {}
    round_before = decoding.get("adapted_round", 0)
    rtf_before = decoding.get("rtf", 0.0)
    if type(round_before) is not int or round_before < 0 or not isinstance(rtf_before, int | float):
        raise UserError(f"the facts beside the hypotheses in {hypotheses} are damaged; decode again")
    facts["base"] = file_hash(experiment.checkpoint)
    facts["round"] = round_before + 1
    facts["rtf_before"] = rtf_before
    return facts


def _require_adapted(out: Path, speakers: list[SpeakerCuts], run: str) -> None:
    """Raises DataError when training failed for every speaker, on whichever rank; it may not have ended on others."""
    infos = [read_adaptation_info(out, speaker.name) for speaker in speakers]
    if all(info and info.run == run and info.broken for info in infos):
        problems = [f"{speaker.name}: numbers that are not finite" for speaker in speakers]
        raise DataError("no speaker was adapted to: all keep the model's weights; lower --lr", problems)
