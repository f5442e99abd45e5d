"""Writing a pack: a trained system with everything that recognition needs (asrtool/pack_manifest.py describes it)."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from asrtool.checkpoint import checkpoint_metadata, count_earlier_trainings, load_checkpoint
from asrtool.config_file import save_config
from asrtool.data.shards import entries, manifest_name
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.system_options import search_options
from asrtool.errors import UserError
from asrtool.experiment import Experiment, open_experiment
from asrtool.files import file_hash, new_folder, require_own_folder, write_json, write_text
from asrtool.inference.training_lengths import longest_utterance
from asrtool.pack_manifest import (
    CARD,
    COMMAND,
    CONFIG,
    FORMAT_VERSION,
    MANIFEST,
    ONNX,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    is_pack,
    read_manifest,
)
from asrtool.packs.model_card import model_card
from asrtool.packs.pack_contents import chosen_files, copy_files
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring import schemas
from asrtool.scoring.systems import FACTS_SCHEMAS, describe_objective, packed_training, read_results, read_training
from asrtool.system_files import UNIT_COUNTS
from asrtool.text.tokenizer import save_tokenizer
from asrtool.weight_files import save_safetensors

logger = logging.getLogger(__name__)

RESULT_COMMANDS = ("decode", "stream")


@dataclass(frozen=True)
class PackSettings:
    """What a pack has besides the files for recognition.

    method: the default search method, None for the most accurate that there are files for. licence: the terms of use,
    any text. train_cuts: the manifest of the training, whose hours the model card states. export: adds the ONNX graphs
    of `asrtool export`.
    """

    method: str | None = None
    licence: str | None = None
    train_cuts: Path | None = None
    export: bool = False


def write_pack(experiment: Experiment, out: Path, given: Mapping[str, Any], settings: PackSettings) -> Manifest:
    """Writes the experiment, or another pack, as a pack into the folder `out`; returns its manifest.

    `given` are the files and the default options, as in `pack_contents.chosen_files`. `out` is new, empty, or an
    earlier pack; other files in it are kept, and so is its model card if its user has changed it. Of another pack, the
    ONNX graphs of the same weights are taken over, too. The experiment must be on the CPU. Before the pack gets its
    name it is opened, and so is every search that it has files for. Raises UserError for files that do not fit, and
    leaves `out` as it was.
    """
    require_own_folder(out, MANIFEST, COMMAND)
    sha256 = experiment.checkpoint_sha256  # before the file is read again
    files = chosen_files(experiment, given, settings.method)
    with new_folder(out, MANIFEST, COMMAND) as folder:
        _write_model(experiment, folder, sha256)
        carried = copy_files(experiment, files, folder)
        if settings.export:
            _export(experiment, folder / ONNX)
        else:
            _copy_exported(experiment, folder)
        content = _facts(experiment, settings) | {
            "name": out.resolve().name[:200],
            "default_method": files.default_method,
            "options": {method: dict(options) for method, options in files.options.items()},
            "carried": carried,
            "hashes": dict(_hashes(folder)),
            "files": sorted({MANIFEST, CARD, *(path.name for path in folder.iterdir())}),
        }
        manifest = _validated(content)
        _write_card(manifest, folder / CARD, out)
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
        _open_searches(folder, manifest)
    return manifest


def _write_model(experiment: Experiment, folder: Path, sha256: str) -> None:
    """Writes configuration, units, weights, and the counts that adaptation needs.

    Raises UserError if the checkpoint does not have this sha256 any more.
    """
    tokenizer = experiment.tokenizer
    save_config(experiment.config, folder / CONFIG)
    save_tokenizer(tokenizer, folder / TOKENIZER)
    state = load_checkpoint(experiment.checkpoint)
    if file_hash(experiment.checkpoint) != sha256:
        reason = "was replaced meanwhile, by a training that runs perhaps"
        raise UserError(f"{experiment.checkpoint} {reason}; pack it again")
    earlier_trainings = count_earlier_trainings(state, experiment.checkpoint)
    metadata = checkpoint_metadata(experiment.config, tokenizer.symbols, earlier_trainings)
    metadata["versions"] = state.get("versions", {})  # of the training
    save_safetensors(folder / WEIGHTS, state["model"], metadata)
    counts = experiment.folder / UNIT_COUNTS
    if counts.is_file():
        shutil.copyfile(counts, folder / UNIT_COUNTS)


def _export(experiment: Experiment, folder: Path) -> None:
    from asrtool.export.export import export

    export(experiment, folder, opset=18)


def _copy_exported(experiment: Experiment, folder: Path) -> None:
    """Copies the ONNX graphs of another pack, which were verified when it was opened, if they are of these weights."""
    old = _packed_facts(experiment)
    for name in old.hashes if old else ():
        if name.startswith(f"{ONNX}/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(experiment.folder / name, folder / name)


def _write_card(manifest: Manifest, path: Path, out: Path) -> None:
    """Writes the model card; where the earlier pack `out` has one that was edited, a copy of that."""
    if _has_edited_card(out):
        shutil.copyfile(out / CARD, path)
        logger.warning(f"{out / CARD} was edited, and is kept; for one with the new facts, delete it and pack again")
    else:
        write_text(path, model_card(manifest))


def _has_edited_card(pack: Path) -> bool:
    """Returns True if the folder is a pack with another model card than the one of its facts."""
    card = pack / CARD
    if not is_pack(pack) or not card.is_file():
        return False
    try:
        return card.read_bytes() != model_card(read_manifest(pack)).encode()
    except UserError:  # for a damaged model.json nothing can be compared
        return True


def _hashes(folder: Path) -> Iterator[tuple[str, dict]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in progress(paths, "computing sha256", len(paths), "files"):
        yield str(path.relative_to(folder)), {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def _facts(experiment: Experiment, settings: PackSettings) -> dict:
    """Returns the entries of model.json about the model, its training and its results."""
    model, tokenizer, config = experiment.model, experiment.tokenizer, experiment.config
    old = _packed_facts(experiment)
    latency = model.latency()
    licence = settings.licence or (old.licence if old else None)
    return {
        "format": COMMAND,
        "format_version": FORMAT_VERSION,
        "licence": licence,
        "versions": checkpoint_metadata(config, tokenizer.symbols)["versions"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "features": {
            "sampling_rate": config.features.sampling_rate,
            "num_bins": config.features.num_bins,
            "output_frame_seconds": round(experiment.frame_seconds, 6),
        },
        "units": {
            "count": tokenizer.size,
            "type": tokenizer.to_dict()["type"],
            "output_type": tokenizer.output_type,
        },
        "latency": {"chunk": int(latency.chunk), "right": int(latency.right)} if model.can_stream else None,
        "training": _training(experiment, old, settings.train_cuts),
        "results": _results(experiment, old),
        "provenance": provenance(),
    }


def _packed_facts(experiment: Experiment) -> Manifest | None:
    """Returns the manifest of the pack that the weights are from; None for an experiment, and for other weights."""
    folder = experiment.folder
    if not is_pack(folder) or experiment.checkpoint.resolve() != (folder / WEIGHTS).resolve():
        return None
    return read_manifest(folder)


def _training(experiment: Experiment, old: Manifest | None, train_cuts: Path | None) -> dict:
    """Returns how the weights were trained."""
    config = experiment.config
    summary = packed_training(old) if old else read_training(experiment.folder / "log.jsonl")
    data = {
        "data": old.training.data if old else " + ".join(map(manifest_name, config.data.train_manifests))[:200],
        "data_hours": old.training.data_hours if old else None,
        "data_utterances": old.training.data_utterances if old else None,
    }
    if train_cuts:
        durations = [entry.duration for entry in progress(entries(train_cuts), f"reading {train_cuts}")]
        data = {
            "data": manifest_name(train_cuts)[:200],
            "data_hours": round(sum(durations) / 3600, 3),
            "data_utterances": len(durations),
        }
    return data | {
        "objective": describe_objective(config.objective)[:200],
        "seen_hours": summary.hours,
        "steps": summary.steps,
        "finished": summary.finished,
        "device_hours": summary.device_hours,
        "peak_memory_gb": summary.peak_memory_gb,
        "starts": summary.starts,
        "checkpoint": old.training.checkpoint if old else experiment.checkpoint.name[:200],
        "checkpoint_sha256": old.training.checkpoint_sha256 if old else experiment.checkpoint_sha256,
        "longest_seconds": longest_utterance(experiment),
    }


def _results(experiment: Experiment, old: Manifest | None) -> list[dict]:
    """Returns the scored results of the experiment with this checkpoint.

    Results of earlier versions, which do not have its sha256, are found by its name.
    """
    results = []
    hashes = {experiment.checkpoint_sha256, old.training.checkpoint_sha256 if old else None}
    names = {experiment.checkpoint.name, old.training.checkpoint if old else None, None}
    for command in RESULT_COMMANDS:
        for result in read_results(experiment.folder / command, old):
            sha256 = result.facts.get("checkpoint_sha256")
            is_own = sha256 in hashes if sha256 else result.facts.get("checkpoint") in names
            if not result.score or not is_own:
                continue
            facts = {name: result.facts[name] for name in _kept(FACTS_SCHEMAS[command]) if name in result.facts}
            score = {name: result.score[name] for name in _kept(schemas.ScoreFacts) if name in result.score}
            score.pop("hypotheses", None)  # the hash of a file that the pack does not have
            results.append(
                {"command": command, "set": result.set, "method": result.method, "facts": facts, "score": score}
            )
    return results


def _kept(schema: type[BaseModel]) -> list[str]:
    return [*schema.model_fields, "checkpoint", "checkpoint_sha256"]


def _validated(content: dict) -> Manifest:
    """Returns the manifest with this content. Raises UserError for a fact of the experiment that it cannot have."""
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, details["loc"]))[:100]
        raise UserError(f"the experiment cannot be packed: {field}: {details['msg'][:200]}") from error


def _open_searches(folder: Path, manifest: Manifest) -> None:
    """Opens a new pack and its searches. Raises UserError where its files do not fit together."""
    experiment = open_experiment(folder, device="cpu")
    methods = {name for name, needed in (("graph", "graph"), ("prefix", "lm")) if getattr(manifest.carried, needed)}
    for method in sorted({manifest.default_method} | methods):
        options = search_options(experiment, method, {})
        open_search(method, experiment.tokenizer, options, topology=experiment.config.objective.topology)
