"""What a pack carries: files and default options that the user names or the experiment has."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from asrtool.decoding.options import REQUIRED_OPTIONS, option_flag, require_effect
from asrtool.decoding.system_options import REPLACED_BY, best_method
from asrtool.errors import UserError, require_file
from asrtool.experiment import Experiment
from asrtool.graphs.folder import META, load_graph
from asrtool.lm.kenlm_model import is_kenlm_binary
from asrtool.lm.ngram_files import COMPILED_SUFFIX, convert_ngrams, is_compiled
from asrtool.pack_manifest import DECODING_WEIGHTS, FILE_NAME, GRAPH, LM
from asrtool.progress import progress
from asrtool.system_files import CALIBRATION, PRIORS, SystemFiles

FIELDS = {field.name for field in fields(SystemFiles)}
SINGLE_FILES = {"priors": PRIORS, "decoding_weights": DECODING_WEIGHTS, "calibration": CALIBRATION}
LM_NAMES = {"graph_lm": "graph", "rescore": "rescore", "lm": "prefix"}  # in the folder lm/, without their suffixes
# The default options that a pack records for each method. Scales and penalties of graph search are in a file of
# `asrtool tune`.
RECORDED_OPTIONS = {"prefix": ("beam", "lm_weight", "lm_units", "insertion_penalty"), "graph": ("beam", "lattice_beam")}
SUFFIX = re.compile(r"(\.arpa)?\.[A-Za-z0-9]{1,20}")


def chosen_files(experiment: Experiment, given: Mapping[str, Any], method: str | None) -> SystemFiles:
    """Returns the files, the default method and the default options of a pack.

    `given` has files and options by the names of asrtool/decoding/options.py; what it lacks is what the experiment
    carries already, unless it belongs to a graph or a language model that `given` replaces. `method` is the default
    method, by default the most accurate that there are files for. Raises UserError for a file that is missing, for one
    without another that it needs, and for options without an effect.
    """
    files = experiment.files
    replaced = {key for name, dependent in REPLACED_BY.items() if name in given for key in dependent}
    changes: dict[str, Any] = {name: None for name in replaced & FIELDS}
    changes |= {name: given[name] for name in FIELDS & {*given}}
    files = replace(files, **changes | {"default_method": None})
    method = method or best_method(replace(experiment, files=files))
    require_effect([method], {"beam": given["beam"]} if "beam" in given else {})
    options = {}
    for name, recorded in RECORDED_OPTIONS.items():
        kept = {key: value for key, value in files.options.get(name, {}).items() if key not in replaced}
        chosen = {key: given[key] for key in recorded if key in given and (key != "beam" or name == method)}
        options[name] = kept | chosen
    files = replace(files, default_method=method, options=options)
    _require_complete(files)
    return files


def _require_complete(files: SystemFiles) -> None:
    """Raises UserError for a missing file, and for a file or an option without another that it needs."""
    for name in (*LM_NAMES, *SINGLE_FILES):
        if path := getattr(files, name):
            require_file(path, name.replace("_", " "), f"see {option_flag(name)}")
    needs = [
        *REQUIRED_OPTIONS,
        ("rescore", "graph"),
        ("decoding_weights", "graph"),
        ("insertion_penalty", "lm"),
        ("lattice_beam", "graph"),
    ]
    for name, needed in needs:
        has_option = getattr(files, name, None) or any(name in options for options in files.options.values())
        if has_option and not getattr(files, needed):
            raise UserError(f"{option_flag(name)} needs {option_flag(needed)} (see --help)")
    if files.default_method == "graph" and not files.graph:
        raise UserError("--method graph needs --graph FOLDER; build one with `asrtool graph`")


def copy_files(experiment: Experiment, files: SystemFiles, pack: Path) -> dict[str, str]:
    """Copies the files into the folder `pack`; returns the place of each there, by the names of SystemFiles.

    The n-gram model of the graph becomes a compiled one, which is read in a tenth of the time of an ARPA file.
    Raises UserError for a graph of other units than the experiment's, and for files of a pack that are damaged.
    """
    places, copies = {}, []
    if files.graph:
        load_graph(files.graph, experiment.tokenizer)
        places["graph"] = GRAPH
        copies += [(path, pack / GRAPH / path.name) for path in graph_files(files.graph)]
    for name, stem in LM_NAMES.items():
        if path := getattr(files, name):
            files.require_intact(path)
            compiled = name == "graph_lm" and not (is_compiled(path) or is_kenlm_binary(path))
            places[name] = f"{LM}/{stem}{COMPILED_SUFFIX if compiled else _suffix(path)}"
            copies.append((path, pack / places[name]))
    for name, target in SINGLE_FILES.items():
        if path := getattr(files, name):
            places[name] = target
            copies.append((path, pack / target))
    for source, copy in progress(copies, "packing", len(copies), "files"):
        copy.parent.mkdir(exist_ok=True)
        if is_compiled(copy) and not is_compiled(source):
            convert_ngrams(source, copy)
        else:
            shutil.copyfile(source, copy)
    return places


def graph_files(folder: Path) -> Iterator[Path]:
    """Yields the files of a graph's folder. Raises UserError for a name that is not one of a file in it."""
    for name in load_graph(folder).meta.get("files", ()):
        if not isinstance(name, str) or "/" in name or not FILE_NAME.fullmatch(name):
            raise UserError(f"{folder / META} lists {str(name)[:100]!r}, which is not a file of it; build it again")
        yield require_file(folder / name, "file of a graph", "build it again with `asrtool graph`")


def _suffix(path: Path) -> str:
    """Returns the suffix by which a reader of language models recognises the format: ".npz", ".arpa.gz"."""
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".arpa.gz") else path.suffix
    return suffix if SUFFIX.fullmatch(suffix) else ""
