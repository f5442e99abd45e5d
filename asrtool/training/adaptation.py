"""Adaptation to speakers: the weights of a trained model, trained on for each speaker by what was recognised of them.

Few speakers make a model that knows few voices. What it finds in ten minutes of a new one is mostly right, the more so
after a language model, and training on it for a few passes, with the training's own objective and augmentation, makes
a model of that voice (unsupervised adaptation, as Kaldi's with fMLLR, but of all weights; Bell et al. 2021, "Adaptation
Algorithms for Neural Network-Based Speech Recognition", is an overview). With transcripts in the place of hypotheses it
is supervised, from an enrolment.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from asrtool import checkpoint
from asrtool.adapted_weights import MARKER, AdaptationInfo, read_adaptation_info, round_suffix, weights_file
from asrtool.data.batch import Position
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import speaker_of
from asrtool.data.sampling import CutBatch, is_trained_on, ordered_batches, shuffled_batches
from asrtool.data.shards import Entry, deserialize_cut, entries_with_trees, manifest_name
from asrtool.decoding.align import Span, align_cuts, with_alignment
from asrtool.distributed import SINGLE_PROCESS, rank_log, this_rank
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.files import file_hash, require_own_folder, write_json, write_text
from asrtool.locks import write_lock
from asrtool.objectives.objective import Objective
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring.folder import HYPOTHESES, read_hypotheses
from asrtool.scoring.folder import read_facts as facts_of_decoding
from asrtool.training.data_counts import PRIORS, UNIT_COUNTS
from asrtool.training.objective import make_objective
from asrtool.training.precision import products
from asrtool.training.schedule import cosine
from asrtool.training.session import are_finite
from asrtool.training.train import batch_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adaptation:
    """How the weights are adapted; chosen on speakers who were held out (egs/librispeech/TUNING.md)."""

    epochs: int = 5  # passes over what there is of a speaker
    lr: float = 2e-4  # of the first step, falling to 0 along a cosine
    batch_seconds: float = 40.0  # audio in a step
    seed: int = 1
    noise: str | None = None  # a manifest of noise to mix in; else there is none, whatever the training had


@dataclass
class Speaker:
    """A speaker with the cuts to learn from, whose texts are believed."""

    name: str
    cuts: list[Entry] = field(default_factory=list)
    audio_seconds: float = 0.0  # of all there are in the manifest

    @property
    def seconds(self) -> float:
        """Audio to learn from."""
        return sum(cut.duration for cut in self.cuts)


def adapt(
    experiment: Experiment, cuts: Path, out: Path | None, hypotheses: Path | None, how: Adaptation, workers: int = 1
) -> str | None:
    """Write weights for each speaker of the manifest `cuts` into `out`; returns what was done.

    What was said is what `hypotheses` has, a folder of `asrtool decode`, or else the manifest's texts; a speaker with
    none that can be used keeps the weights as they are. Hypotheses of adapted weights make a further round, from the
    same weights as the first. Speakers who are there already, of the same run, are left alone, so an interrupted run
    goes on. Under torchrun the ranks take turns at the speakers; all but the first return None. The noise of the
    experiment's own configuration is not opened: that of `how` is mixed in, if any.

    Raises UserError for hypotheses in phones and for a folder `out` of something else, and DataError for a manifest
    without speakers, for cuts that are not in `hypotheses`, and when no speaker could be adapted to.
    """
    ranks = this_rank()
    with rank_log(ranks, experiment.folder / "logs"):
        speakers = by_speaker(cuts, said_in(hypotheses) if hypotheses else None, experiment)
        facts = _facts(experiment, cuts, hypotheses, how) | {"rank": ranks.rank}
        out = out or experiment.folder / f"adapted{round_suffix(facts['round'])}" / manifest_name(cuts)
        require_own_folder(out, MARKER, "asrtool adapt")
        with write_lock(out, "asrtool adapt") if ranks.is_first else nullcontext():
            write_text(out / MARKER, f"Weights of `asrtool adapt` for the speakers of {cuts}.\n")
            mine = sorted(speakers, key=lambda speaker: -speaker.seconds)[ranks.rank :: ranks.world_size]
            work = _Adapter(experiment, how, workers)
            for speaker in progress(mine, f"adapting to the speakers of {cuts.name}", len(mine), "speakers"):
                made = read_adaptation_info(out, speaker.name)
                if not (made and made.run == facts["run"] and weights_file(out, speaker.name).is_file()):
                    work.write(speaker, weights_file(out, speaker.name), facts)
            _require_some([facts for speaker in mine if (facts := read_adaptation_info(out, speaker.name))])
    if not ranks.is_first:
        return None
    minutes = sum(speaker.seconds for speaker in speakers) / 60
    return f"{out}: {len(speakers)} speakers, {minutes:.1f} minutes of audio believed"


def _facts(experiment: Experiment, cuts: Path, hypotheses: Path | None, how: Adaptation) -> dict:
    """What all speakers' weights of a run have in common; `run` names all that decides over them."""
    settings = {name: value for name, value in asdict(how).items() if name != "noise" or value}
    facts = {"cuts": str(cuts), "source": str(hypotheses or cuts)} | settings
    believed = file_hash(hypotheses / HYPOTHESES) if hypotheses else None
    facts |= {"run": run_hash(experiment, cuts, facts | {"believed": believed})}
    before = facts_of_decoding(hypotheses) if hypotheses else {}
    round_before, rtf = before.get("adapted_round", 0), before.get("rtf", 0.0)
    if type(round_before) is not int or round_before < 0 or not isinstance(rtf, int | float):
        raise UserError(f"the facts beside the hypotheses in {hypotheses} are damaged; decode again")
    return facts | {"base": file_hash(experiment.checkpoint), "round": round_before + 1, "rtf_before": rtf}


def _require_some(made: list[AdaptationInfo]) -> None:
    """DataError when training gave numbers that are not finite for every speaker."""
    if made and all(facts.broken for facts in made):
        problems = [f"{facts.speaker}: numbers that are not finite" for facts in made]
        raise DataError("nothing was adapted: all speakers keep the weights as they were; lower --lr", problems)


def said_in(folder: Path) -> dict[str, str]:
    """The hypotheses in words of a folder of `asrtool decode`, by id."""
    rows = read_hypotheses(folder / HYPOTHESES)
    if any(row.get("of") == "phones" for row in rows):
        raise UserError(f"{folder} has phones, not words; give hypotheses of `asrtool decode --method graph`")
    return {row["id"]: row["hyp"] for row in rows}


def by_speaker(cuts: Path, texts: dict[str, str] | None, experiment: Experiment) -> list[Speaker]:
    """The speakers of a manifest with what can be learnt from: cuts of the length trained on, with words that have
    units. `texts` take the place of the manifest's. Raises DataError with all cuts that have no speaker or text."""
    speakers: dict[str, Speaker] = {}
    problems = []
    for entry, tree in entries_with_trees(cuts):
        name = speaker_of(tree)
        if not name:
            problems.append(f"{entry.id}: no speaker")
        elif texts is not None and entry.id not in texts:
            problems.append(f"{entry.id}: not among the hypotheses")
        else:
            speaker = speakers.setdefault(name, Speaker(name))
            speaker.audio_seconds += entry.duration
            text = tree["supervisions"][0].get("text") or "" if texts is None else texts[entry.id]
            usable = text.split() and not experiment.tokenizer.unknown(text)
            if usable and is_trained_on(entry, experiment.config):
                tree["supervisions"][0]["text"] = text
                speaker.cuts.append(replace(entry, line=json.dumps(tree).encode()))
    if problems:
        raise DataError(f"{len(problems)} cuts of {cuts} cannot be adapted to", problems)
    return list(speakers.values())


class _Adapter:
    """Trains the model of an experiment on one speaker after another, each time from the weights that it had."""

    def __init__(self, experiment: Experiment, how: Adaptation, workers: int):
        self.experiment, self.how, self.workers = experiment, how, workers
        config = experiment.config
        noise = Path(how.noise) if how.noise else None
        if config.data.augment.noise and not noise:
            logger.info(
                f"without the noise that the training had ({config.data.augment.noise}); --noise FILE mixes it in"
            )
        augment = config.data.augment.model_copy(update={"noise": noise})
        data = config.data.model_copy(update={"batch_seconds": how.batch_seconds, "augment": augment})
        self.config = config.model_copy(update={"data": data, "seed": how.seed})
        self.objective = objective_of(experiment)
        self.weights = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}

    def write(self, speaker: Speaker, path: Path, facts: dict) -> None:
        """Make the weights of `speaker`, and write them and, with `facts`, what that took.

        Where training broke, by numbers that are not finite, they are the weights as they were.
        """
        begin, model = time.monotonic(), self.experiment.model
        learnt = self.learn(speaker)
        if not are_finite(model.state_dict().values()) or 0 < learnt["steps"] == learnt["bad_steps"]:
            model.load_state_dict(self.weights)
            learnt |= {"broken": True}
            logger.info(f"speaker {speaker.name}: numbers that are not finite; keeps the weights as they were")
        path.with_suffix(".json").unlink(missing_ok=True)  # it says that the weights are whole
        described = checkpoint.described(self.experiment.config, self.experiment.tokenizer.symbols)
        checkpoint.save(path, {"model": model.state_dict(), **described})
        learnt |= {"speaker": speaker.name, "seconds": round(time.monotonic() - begin, 2)}
        write_json(path.with_suffix(".json"), facts | learnt | provenance())

    def learn(self, speaker: Speaker) -> dict:
        """Leave the speaker's weights in the experiment's model; returns what it took."""
        experiment, training, model = self.experiment, self.config.training, self.experiment.model
        model.load_state_dict(self.weights)
        torch.manual_seed(self.how.seed)
        cuts = self._aligned(speaker.cuts) if self.config.objective.needs_alignments else speaker.cuts
        items = [item for epoch in range(self.how.epochs if cuts else 0) for item in self._epoch(cuts, epoch)]
        dataset = SpeechDataset(self.config, experiment.tokenizer, training=True)
        optimizer = torch.optim.AdamW(model.parameters(), betas=training.betas, weight_decay=0.0)
        model.train()
        bad = 0
        for step, batch in enumerate(load_batches(dataset, items, self.workers)):
            with products(training.precision, experiment.device):
                loss = batch_loss(model, batch, experiment.device, training.precision, self.objective).sum()
                optimizer.zero_grad(set_to_none=True)
                (loss / max(1, int(batch.target_lens.sum()))).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
            if not (loss.isfinite() and norm.isfinite()):
                bad += 1
                continue
            for group in optimizer.param_groups:
                group["lr"] = self.how.lr * cosine(step / len(items))
            optimizer.step()
        model.eval()
        if bad or not cuts:
            logger.info(f"speaker {speaker.name}: " + (f"{bad} bad steps left out" if bad else "nothing to learn from"))
        return {"utterances": len(cuts), "steps": len(items), "bad_steps": bad, "audio_seconds": speaker.audio_seconds}

    def _epoch(self, cuts: list[Entry], epoch: int) -> Iterator[CutBatch]:
        for number, batch in enumerate(shuffled_batches(cuts, Position(epoch), self.config)):
            yield CutBatch(Position(epoch, batch=number), batch, Position(epoch, batch=number + 1))

    def _aligned(self, cuts: list[Entry]) -> list[Entry]:
        """Those that can be aligned, by the model as it is."""
        experiment, entries = self.experiment, {cut.id: cut for cut in cuts}
        items = [CutBatch(Position(), batch, Position()) for batch in ordered_batches(cuts, self.how.batch_seconds)]
        found = {}
        for batch in experiment.batches(items, self.workers):
            found |= align_cuts(batch, experiment)
        return [
            replace(entries[name], line=json.dumps(_aligned_tree(entries[name], *spans, experiment)).encode())
            for name, spans in found.items()
            if not isinstance(spans, str)
        ]


def _aligned_tree(entry: Entry, units: list[Span], words: list[Span], experiment: Experiment) -> dict:
    return with_alignment(deserialize_cut(entry.id, entry.tree()), units, words, experiment).to_dict()


def objective_of(experiment: Experiment) -> Objective:
    """That of the experiment's training; it counts nothing, but takes what the training has counted."""
    config, counts = experiment.config, {"mmi": UNIT_COUNTS, "ce": PRIORS}
    counted = experiment.folder / counts.get(config.objective.kind, "")
    if not counted.exists():
        raise UserError(f"{counted} is missing, which the training wrote; copy it there")
    return make_objective(config, experiment.tokenizer, experiment.folder, SINGLE_PROCESS, experiment.device)
