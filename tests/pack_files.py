"""A small pack that carries everything, and changes of its model.json."""

import json
from collections.abc import Callable
from pathlib import Path

from asrtool.experiment import open_experiment
from asrtool.files import file_hash
from asrtool.packs.pack import PackSettings, write_pack
from asrtool.text.tokenizer import load_tokenizer
from tests.decoding.graphs import ARPA, save_word_graph


def carried_files(folder: Path, tokenizer_file: Path) -> dict[str, Path]:
    """Writes a graph and what belongs to it into `folder`; returns the paths by the names of options."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"graph": folder / "graph"}
    for name, text in (("graph_lm", ARPA), ("rescore", ARPA.replace("-0.3\tone", "-1.3\tone"))):
        files[name] = folder / f"{name}.arpa"
        files[name].write_text(text, encoding="utf-8")
    files["lm"] = files["rescore"]
    save_word_graph(files["graph"], load_tokenizer(tokenizer_file), files["graph_lm"])
    best = {"acoustic_scale": 0.8, "blank_penalty": 1, "insertion_penalty": 0.5}
    for name, value in (("priors", [5, 1, 1, 0, 3]), ("decoding_weights", {"best": best})):
        files[name] = folder / f"{name}.json"
        files[name].write_text(json.dumps(value), encoding="utf-8")
    return files


def make_pack(out: Path, experiment: Path, tokenizer_file: Path, **options: object) -> Path:
    """Packs an experiment with a graph, language models, priors, decoding weights and default options."""
    given = carried_files(out.parent / "lang", tokenizer_file) | {"beam": 14.0, "lm_weight": 0.3} | options
    write_pack(open_experiment(experiment, device="cpu"), out, given, PackSettings(licence="CC BY 4.0"))
    return out


def change_manifest(pack: Path, change: Callable[[dict], object]) -> None:
    """Applies `change` to the content of model.json."""
    path = pack / "model.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def relist(pack: Path, name: str) -> None:
    """Lists the size and the sha256 that a file has now, as whoever changes a pack on purpose would."""
    path = pack / name
    entry = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    change_manifest(pack, lambda content: content["hashes"].update({name: entry}))
