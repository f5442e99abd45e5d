"""The start of a training: everything up to its first step, checked."""

import logging
import random
from pathlib import Path

import torch

from asrtool.config import Config
from asrtool.config_file import save_config
from asrtool.data.augment_audio import require_sources
from asrtool.data.inspection import CutRequirements
from asrtool.data.mixing import other_fingerprints, training_fingerprint
from asrtool.data.statistics import feature_statistics
from asrtool.device import describe_device, pick_device
from asrtool.distributed import SINGLE_PROCESS, Ranks, broadcast_from_first, on_first_rank
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.precision import log_precision_fallback
from asrtool.tensor_files import DamagedFileError
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.average import EmaWeights
from asrtool.training.compile import compile_blocks
from asrtool.training.experiment_folder import prepare_experiment, scan_manifests
from asrtool.training.objective import create_objective
from asrtool.training.optimizer import create_optimizer
from asrtool.training.resume import InitialWeights, initialise_session, restore_session
from asrtool.training.schedule import describe_learning_rate
from asrtool.training.session import Session
from asrtool.training.strategy import create_strategy

logger = logging.getLogger(__name__)


def start_session(
    config: Config,
    experiment: Path,
    ranks: Ranks,
    device_name: str = "auto",
    resume: bool = False,
    initial: InitialWeights | None = None,
) -> Session:
    """Checks folder and data, builds the model, and resumes or initialises it. Called on all ranks.

    `resume`: the folder may hold a training, which is continued. `initial` is used when it holds none.
    """
    tokenizer = on_first_rank(ranks, lambda: prepare_experiment(config, experiment, resume))
    on_first_rank(ranks, lambda: require_sources(config.data.augment, config.features.sampling_rate))
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    device = pick_device(device_name, ranks.local_rank)
    session = _create_session(config, experiment, ranks, device, tokenizer)
    torch.manual_seed(config.seed + ranks.rank)  # dropout differs from rank to rank
    _resume_or_initialise(session, initial)
    training = config.training
    log_precision_fallback(training.precision, device)
    size = f"{session.num_parameters / 1e6:.2f} M parameters, {tokenizer.size} units"
    logger.info(f"{size}, on {ranks.world_size} x {describe_device(device)}")
    logger.info(describe_learning_rate(training, config.model.dim, config.data.batch_seconds, ranks.world_size))
    return session


def _create_session(
    config: Config, experiment: Path, ranks: Ranks, device: torch.device, tokenizer: Tokenizer
) -> Session:
    """Creates model, objective and optimizer, and scans the manifests."""
    topology = config.objective.topology
    model = AcousticModel(
        config.model,
        config.features.num_bins,
        outputs_of(config, tokenizer),
        pack_frames=not config.training.compile,
        has_blank=topology != "hmm",
    ).to(device)
    objective = create_objective(config, tokenizer, experiment, ranks, device)
    logger.info(f"objective {objective}")
    data = config.data
    requirements = CutRequirements(
        data=data,
        sampling_rate=config.features.sampling_rate,
        tokenizer=tokenizer,
        min_frames=objective.min_frames,
        out_length=model.out_length,
        needs_alignments=config.objective.needs_alignments,
    )
    dropped = on_first_rank(ranks, lambda: scan_manifests(data, requirements, experiment))
    if config.training.compile:
        compile_blocks(model, device)
    strategy = create_strategy(config.parallel, ranks, skips_layers=config.model.layer_drop > 0)
    train_model = strategy.wrap(model)
    sharing_ranks = strategy.gradient_group if strategy.has_whole_model else SINGLE_PROCESS
    return Session(
        config=config,
        experiment=experiment,
        ranks=ranks,
        device=device,
        tokenizer=tokenizer,
        objective=objective,
        model=model,
        strategy=strategy,
        train_model=train_model,
        optimizer=create_optimizer(model, config.training, sharing_ranks),
        ema=EmaWeights(model, config.training.ema_decay) if config.training.ema_decay else None,
        dropped=dropped,
    )


def _resume_or_initialise(session: Session, initial: InitialWeights | None) -> None:
    """Resumes from the last checkpoint; without one, starts from other weights or from new ones."""
    last = broadcast_from_first(session.ranks, session.checkpoints.last())
    data = session.config.data
    if last is not None:
        _resume(session, last, initial)
        return
    session.progress.manifest = training_fingerprint(data)
    session.progress.other_manifests = other_fingerprints(data)
    measured_kind = initialise_session(session, initial) if initial else "none"
    if session.config.model.normalise not in ("none", measured_kind):
        _measure_features(session)
    session.strategy.start(session.model, session.optimizer)


def _resume(session: Session, last: Path, initial: InitialWeights | None) -> None:
    """Resumes from the checkpoint `last`, if the data is the same as in its training.

    Initial weights are not loaded again; they may have changed since, or be there no more.
    """
    try:
        restore_session(session, last)
    except DamagedFileError as error:
        raise DamagedFileError(error.problem, session.checkpoints.damage_hint(last)) from error
    _require_same_data(session, last)
    progress = session.progress
    source = progress.initialised_from
    config_file = session.experiment / "config.yaml"
    on_first_rank(session.ranks, lambda: save_config(session.config, config_file))  # with the settings that may change
    on_first_rank(session.ranks, lambda: session.checkpoints.link_best(progress.dev_losses))
    line = f"resumed from {last}: step {progress.step}, epoch {progress.position.epoch}"
    logger.info(f"{line}; it was initialised from {source}" if source else line)
    if initial and source != str(initial.checkpoint):
        logger.warning(f"{initial.checkpoint} is not used: {session.experiment} is resumed from its checkpoint")


def _require_same_data(session: Session, last: Path) -> None:
    """Raises UserError for manifests and exclusion lists that were changed since `last` was written."""
    data, progress = session.config.data, session.progress
    changed: list[str] = []
    if progress.manifest != training_fingerprint(data):
        changed += map(str, [*data.train_manifests, *data.exclusion_lists])
    fingerprints = other_fingerprints(data)
    # Checkpoints of earlier versions of asrtool have no fingerprints of these.
    changed += [name for name, digest in progress.other_manifests.items() if fingerprints.get(name, digest) != digest]
    if changed:
        raise UserError(f"{', '.join(changed)} was changed since {last} was written; give another --exp")


def _measure_features(session: Session) -> None:
    """Measures mean and standard deviation of the features, with which the model normalises them."""
    logger.info("measuring the mean and standard deviation of the features")
    per_utterance = session.config.model.normalise == "utterance"

    def measure() -> tuple[torch.Tensor, torch.Tensor]:
        return feature_statistics(session.training_batches(SINGLE_PROCESS, augmented=False), per_utterance)

    session.model.normalise.set_statistics(*on_first_rank(session.ranks, measure))
