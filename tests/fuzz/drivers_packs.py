"""Drivers of packs: a changed model.json, and other changed files, whose sha256 model.json lists."""

from pathlib import Path

import torch

from asrtool.decoding.search_setup import open_search
from asrtool.decoding.system_options import search_options
from asrtool.errors import AsrtoolError
from asrtool.experiment import open_experiment
from asrtool.pack_manifest import MANIFEST, is_pack, open_pack
from asrtool.packs.model_card import manifest_lines
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.pack_files import make_pack, relist
from tests.tiny import feature_batch

FRAMES = 96  # that the model is tried on


def _pack_seeds(folder: Path) -> list[Path]:
    pack = make_pack(folder / "pack", material.experiment(), material.tokenizer())
    names = ("config.yaml", "tokenizer.json", "model.safetensors", "priors.json", "decoding_weights.json")
    names += ("graph/graph.json", "graph/words.txt", "graph/HLG.fst", "lm/rescore.arpa", "lm/graph.npz")
    return [pack / name for name in names]


def _manifest_seeds(folder: Path) -> list[Path]:
    return [make_pack(folder / "pack", material.experiment(), material.tokenizer()) / MANIFEST]


def _pack_of(path: Path) -> Path:
    return next(parent for parent in path.parents if is_pack(parent))


def _list_change(path: Path) -> None:
    pack = _pack_of(path)
    relist(pack, str(path.relative_to(pack)))


def _use_pack(path: Path) -> None:
    pack = _pack_of(path)
    lines = manifest_lines(open_pack(pack, large_files=True))
    if not all(isinstance(value, str) for value in lines.values()):
        raise Wrong("a fact that is not text")
    experiment = open_experiment(pack, device="cpu")
    features, lens = torch.zeros(1, FRAMES, experiment.config.features.num_bins), torch.tensor([FRAMES])
    log_probs, out_lens = experiment.log_probs(feature_batch(features, lens, seconds=1.0))
    errors = []
    for method in ("greedy", "prefix", "graph"):
        try:
            open_search(method, experiment.tokenizer, search_options(experiment, method, {})).search(
                log_probs, out_lens
            )
        except AsrtoolError as error:
            errors.append(error)
    if errors:
        raise errors[0]


DRIVERS = [
    Driver("pack", _pack_seeds, _use_pack, after_change=_list_change),
    Driver("pack-manifest", _manifest_seeds, _use_pack),
]
