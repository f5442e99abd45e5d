"""Drivers of what models are made of: configurations, checkpoints, graphs, and the numbers that searches take."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch

from asrtool.config import Config
from asrtool.config_file import load_config, save_config
from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.log_probs import UtteranceLogProbs, read_log_probs, write_log_probs
from asrtool.decoding.options import graph_options, read_priors
from asrtool.experiment import open_experiment
from asrtool.files import file_hash
from asrtool.graphs.folder import load_graph
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.streaming.endpointing import parse_rules
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.data_counts import unit_counts
from tests.decoding.graphs import random_log_probs, save_word_graph
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.material import asrtool, build
from tests.tiny import make_config

UNITS = 5  # of the word tokenizer of material.py
FRAMES = 12  # that a model or a graph is tried on


def _finite(tree: object) -> bool:
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return all(map(_finite, values)) and (not isinstance(tree, float) or math.isfinite(tree))


def _config_seeds(folder: Path) -> list[Path]:
    config = make_config(
        material.manifest(), material.tokenizer(), model={"mask": "chunk", "chunk_size": 4, "memory": 2}
    )
    folder.mkdir(exist_ok=True)
    save_config(config, folder / "all.yaml")
    (folder / "base.yaml").write_text("base: all.yaml\ntraining: {lr: 1e-3}\nmodel: {layers: 3}\n", encoding="utf-8")
    return [folder / "all.yaml", folder / "base.yaml"]


def _check_config(config: Config) -> None:
    if not _finite(config.model_dump(mode="json")):
        raise Wrong("a number that is not finite")


def _override_seeds(folder: Path) -> list[Path]:
    _config_seeds(folder)
    lines = ["training.lr=1e-3", "model.layers=2", "data.augment.speeds=[0.9,1.0]", "seed=3", "features.num_bins=40"]
    (folder / "overrides.txt").write_text("\n".join(lines), encoding="utf-8")
    return [folder / "overrides.txt"]


def _read_overrides(path: Path) -> None:
    texts = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    _check_config(load_config(path.parent / "all.yaml", texts))


def _experiment_seeds(folder: Path) -> list[Path]:
    exp = material.experiment()
    material.copy(folder / "checkpoints", exp / "checkpoints" / "best.pt")
    return [folder / "checkpoints" / "best.pt", *material.copy(folder, exp / "config.yaml", exp / "tokenizer.json")]


def _read_experiment(path: Path) -> None:
    folder = path.parent if path.suffix != ".pt" else path.parents[1]
    experiment = open_experiment(folder, device="cpu")
    features, lens = torch.zeros(1, 8 * FRAMES, experiment.config.features.num_bins), torch.tensor([8 * FRAMES])
    with torch.no_grad():
        experiment.model(features, lens)
    if not all(weight.isfinite().all() for weight in experiment.model.state_dict().values()):
        raise Wrong("weights that are not finite")


def _resume_seeds(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    steps = {"max_steps": 2, "validate_every": 2, "warmup_steps": 1}
    save_config(make_config(material.manifest(), material.tokenizer(), training=steps), folder / "c.yaml")
    build("train", folder / "c.yaml", "--exp", folder / "exp", "--device", "cpu")
    return [folder / "exp" / "checkpoints" / "step-00000002.pt", folder / "exp" / "log.jsonl"]


def _resume(path: Path) -> None:
    """The training is at its end already: what is read is compared, and nothing is written but the end."""
    folder = next(parent for parent in path.parents if (parent / "c.yaml").is_file())
    asrtool("train", folder / "c.yaml", "--exp", folder / "exp", "--resume", "--device", "cpu")


def _adapted_seeds(folder: Path) -> list[Path]:
    exp = material.experiment()
    build("adapt", exp, material.manifest(), "--out", folder / "adapted", "--epochs", 1, "--device", "cpu")
    return [*(folder / "adapted").glob("*.pt"), *(folder / "adapted").glob("*.json")]


def _decode_adapted(path: Path) -> None:
    files = ("decode", material.experiment(), material.manifest(), "--adapted", path.parent)
    asrtool(*files, "--workers", 0, "--device", "cpu")


def _graph_seeds(folder: Path) -> list[Path]:
    save_word_graph(folder / "graph", load_tokenizer(material.tokenizer()))
    return [folder / "graph" / name for name in ("HLG.fst", "graph.json", "words.txt", "units.txt")]


def _write_hash(path: Path) -> None:
    """Write the hash of a changed graph into graph.json, for a stranger's folder has the right one."""
    meta = path.parent / "graph.json"
    if path.suffix == ".fst":
        tree = json.loads(meta.read_text(encoding="utf-8"))
        meta.write_text(json.dumps(_replaced(tree, file_hash(path), path.stat().st_size)), encoding="utf-8")


def _replaced(tree: dict, digest: str, size: int) -> dict:
    return tree | {
        "sizes": {kind: values | {"bytes": size, "sha256": digest} for kind, values in tree["sizes"].items()}
    }


def _search_graph(path: Path) -> None:
    graph = load_graph(path.parent, load_tokenizer(material.tokenizer()))
    log_probs = torch.from_numpy(random_log_probs(FRAMES, UNITS, 1))[None]
    for options in (GraphOptions(), GraphOptions(nbest=3, lattice_beam=8.0)):
        GraphSearch(graph, options)(log_probs, torch.tensor([FRAMES]))


def _decoding_weight_seeds(folder: Path) -> list[Path]:
    save_word_graph(folder / "graph", load_tokenizer(material.tokenizer()))
    best = {"acoustic_scale": 0.8, "blank_penalty": 1, "insertion_penalty": 4.0}
    return [
        material.write(folder / "decoding_weights.json", {"best": best}),
        material.write(folder / "priors.json", [5, 1, 1, 0, 3]),
    ]


def _read_decoding_weights(path: Path) -> None:
    graph, options = load_graph(path.parent / "graph"), GraphOptions()
    if path.name == "decoding_weights.json":
        options = graph_options({"decoding_weights": path})
        if not _finite(vars(options)) or options.acoustic_scale <= 0:
            raise Wrong(f"decoding weights that no search takes: {options}")
    elif not (read_priors(path, graph) < math.inf).all():
        raise Wrong("priors that are not numbers")


def _count_seeds(folder: Path) -> list[Path]:
    sentences = [[1, 2, 3, 4], [1, 2], [2, 3, 1], [4], [3, 3, 2, 1], [1]] * 3
    return [material.write(folder / "unit_ngram.json", UnitNgram.count(sentences, order=3, min_count=1))]


def _read_counts(path: Path) -> None:
    config = make_config(material.manifest(), material.tokenizer(), objective={"kind": "mmi", "ngram_order": 3})
    counts = unit_counts(config.data, config.objective, load_tokenizer(material.tokenizer()), path)
    graph = UnitNgram(3, counts).denominator_graph()
    if not all(math.isfinite(arc.log_weight) for arc in graph.arcs):
        raise Wrong("weights that are not finite")


def _log_prob_seeds(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rows = [
        UtteranceLogProbs(f"u{n}", "one two", random_log_probs(FRAMES, UNITS, n).astype("float16")) for n in range(3)
    ]
    write_log_probs(folder, rows, "run")
    return [folder / "00000.npz", folder / "index.json"]


def _read_log_probs(path: Path) -> None:
    for utterance in read_log_probs(path.parent):
        if utterance.log_probs.ndim != 2 or not isinstance(utterance.name, str):
            raise Wrong("an utterance without a name or a matrix")


def _rule_seeds(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / "rules.txt").write_text("default\nwords,trailing=1.2\ncost=2,trailing=0.5\nlength=15", encoding="utf-8")
    return [folder / "rules.txt"]


def _read_rules(path: Path) -> None:
    rules = parse_rules(path.read_bytes().decode("utf-8", "surrogateescape").split("\n"))
    if rules and not all(0 <= rule.trailing < math.inf and 0 <= rule.length < math.inf for rule in rules.rules):
        raise Wrong("times that are not finite")


def _simple(read: Callable[[Path], Config]) -> Callable[[Path], None]:
    return lambda path: _check_config(read(path))


DRIVERS = [
    Driver("config", _config_seeds, _simple(load_config)),
    Driver("overrides", _override_seeds, _read_overrides),
    Driver("experiment", _experiment_seeds, _read_experiment),
    Driver("resume", _resume_seeds, _resume),
    Driver("adapted", _adapted_seeds, _decode_adapted),
    Driver("graph", _graph_seeds, _search_graph, after_change=_write_hash),
    Driver("decoding_weights", _decoding_weight_seeds, _read_decoding_weights),
    Driver("unit-counts", _count_seeds, _read_counts),
    Driver("log-probs", _log_prob_seeds, _read_log_probs),
    Driver("endpoint-rules", _rule_seeds, _read_rules),
]
