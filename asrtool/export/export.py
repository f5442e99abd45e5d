"""The folder of `asrtool export`: everything that another runtime needs.

    OUT/model.onnx     features of whole utterances to log-probs
        step.onnx      one chunk of a stream to log-probs, for models that can stream
        tokens.txt     symbol and number of each unit, one per line; 0 is the blank, and ▁ stands for a space
        export.json    features, frame rates, latency, inputs and outputs, a stream's initial state, the sha256 of each
                       graph, the results of its check, and the source of the model
    *.int8.onnx        next to a graph, with quantise: the weights of matrix products are 8-bit integers

export.json lists the options of Kaldi's filterbank for the features; kaldi-native-fbank and others take the same.
Samples are floats from -1 to 1. Mean and variance normalisation is inside the graphs.

A stream begins with `lead_padding` frames of zeros, followed by its own frames, `chunk` frames per step. The input
x_lens of step.onnx is the number of frames of the chunk that belong to the stream, leading zeros included: all of them,
fewer in the chunk in which the stream ends, and 0 in chunks after it, which are zeros. The first `delay` output frames
are meaningless: steps go on after the end of the stream until delay + ceil(frames / subsampling_factor) output frames
have been computed in all.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.checks import check_cuts
from asrtool.errors import AsrtoolError, UserError
from asrtool.experiment import Experiment
from asrtool.export.export_facts import model_facts
from asrtool.export.onnx_graphs import forward_graph, silence_exporter, step_graph
from asrtool.export.parity import (
    TOLERANCE,
    FeatureBatch,
    OnnxGraph,
    Parity,
    check_forward_graph,
    check_sherpa_graph,
    check_step_graph,
)
from asrtool.export.sherpa_onnx import open_search, require_runtime, symbols_with_spaces, write_runtime_files
from asrtool.export.sherpa_onnx_graph import streaming_graph
from asrtool.files import file_hash, new_folder, report_full_disk, require_own_folder, write_json
from asrtool.graphs.folder import write_symbols
from asrtool.models.acoustic import AcousticModel
from asrtool.progress import progress

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

FACTS_FILE = "export.json"
COMMAND = "asrtool export"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CHECK_BATCHES = 4  # from the shortest to the longest cuts
CHECK_BATCH_SECONDS = 30.0
RUNTIMES = ("sherpa-onnx",)
GRAPHS = {
    "model": (forward_graph, check_forward_graph),
    "step": (step_graph, check_step_graph),
    "streaming": (streaming_graph, check_sherpa_graph),
}


def require_packages() -> None:
    """Raises UserError with the names of the packages that are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"asrtool export needs {', '.join(missing)}: pip install 'asrtool[export]'")


def export(
    experiment: Experiment,
    out: Path,
    opset: int,
    cuts: Path | None = None,
    quantise: bool = False,
    max_minutes: float = 5.0,
    runtime: str | None = None,
    search_files: Mapping[str, Path] | None = None,
) -> dict[str, dict]:
    """Writes the folder; returns the facts of each graph by file name: its size and the result of its check.

    The experiment must be on the CPU. The check uses `cuts`, or random features by default: a manifest that only the
    experiment's configuration names is not opened, since the folder may come from somebody else. `out` is new, empty,
    or the folder of an earlier export; other files in it are kept. Raises AsrtoolError if a graph that is not quantised
    differs from the model by more than TOLERANCE, or cannot be created, and leaves `out` as it was.

    `runtime`, one of RUNTIMES, makes it a folder for sherpa-onnx (asrtool/export/sherpa_onnx.py). `search_files` are
    its decoding graph and decoding weights, by the names of `sherpa_onnx.open_search`.
    """
    require_packages()
    require_runtime(search_files or {}, runtime)
    if runtime and experiment.config.objective.topology == "hmm":
        raise UserError(f"--runtime {runtime} is for models with a blank, and objective.topology is hmm; leave it out")
    require_own_folder(out, FACTS_FILE, COMMAND)
    source, batches = _check_batches(experiment, cuts, max_minutes)
    search = open_search(experiment, search_files or {}) if runtime else None
    names = ["model"]
    if experiment.model.can_stream:
        names.append("streaming" if runtime else "step")
    graphs: dict[str, dict] = {}
    with new_folder(out, FACTS_FILE, COMMAND) as folder:
        for name in names:
            with _explain_errors(f"{name}.onnx", out):
                graphs |= _export_graph(experiment.model, name, folder, opset, batches, quantise)
        facts = model_facts(experiment)
        if runtime:
            facts["sherpa_onnx"] = write_runtime_files(experiment, search, folder)
        else:
            write_symbols(folder / "tokens.txt", symbols_with_spaces(experiment.tokenizer))
        facts |= {"opset": opset, "checked_with": source, "tolerance": TOLERANCE, "graphs": graphs}
        write_json(folder / FACTS_FILE, facts | {"files": sorted(path.name for path in folder.iterdir())})
    return {name: graph | {"checked_with": source} for name, graph in graphs.items()}


def _export_graph(
    model: AcousticModel, name: str, folder: Path, opset: int, batches: list[FeatureBatch], quantise: bool
) -> dict[str, dict]:
    """Writes and checks one graph and, with `quantise`, its quantised version; returns their facts by file name."""
    create_graph, check_graph = GRAPHS[name]
    logger.info(f"export: {name}.onnx")
    path = folder / f"{name}.onnx"
    _save(create_graph(model, opset), path, opset)
    parity = check_graph(model, OnnxGraph(path), _with_progress(batches, path))
    if not parity.is_within_tolerance:
        difference = f"{parity.largest_relative_difference:.1e} relative to a log-prob"
        raise AsrtoolError(
            f"{path.name} differs from the model by {difference}, and rounding explains at most {TOLERANCE:.0e}; "
            f"nothing was written; try another --opset, and report this with the experiment's config.yaml"
        )
    graphs = {path.name: _graph_facts(path, parity)}
    if quantise:
        quantised = folder / f"{name}.int8.onnx"
        _quantise(path, quantised)
        parity = check_graph(model, OnnxGraph(quantised), _with_progress(batches, quantised))
        graphs[quantised.name] = _graph_facts(quantised, parity)
    return graphs


def _with_progress(batches: list[FeatureBatch], path: Path) -> Iterator[FeatureBatch]:
    return progress(batches, f"checking {path.name}", len(batches), "batches")


def _save(program: "ONNXProgram", path: Path, opset: int) -> None:
    """Writes a graph, weights included. Raises UserError if torch could not write this version of the operator set."""
    written = program.model.opset_imports[""]
    if written != opset:  # torch keeps its own version silently if it cannot convert
        raise UserError(f"--opset {opset}: torch could only write {written}; give that, or leave the option out")
    program.save(path, external_data=False)


def _graph_facts(path: Path, parity: Parity) -> dict:
    return {
        "bytes": path.stat().st_size,
        "sha256": file_hash(path),
        **OnnxGraph(path).signature(),
        "parity": parity.to_dict(),
    }


def _quantise(path: Path, out: Path) -> None:
    """Writes the graph in `path` to `out` with 8-bit integer weights in matrix products and LSTMs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with silence_exporter():
        quantize_dynamic(path, out, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "LSTM"])


def _check_batches(experiment: Experiment, cuts: Path | None, max_minutes: float) -> tuple[str, list[FeatureBatch]]:
    """Returns a name for what the graphs are checked with, and its features: cuts of all lengths, or random ones."""
    if cuts is None:
        return "random features", _random_batches(experiment.model)
    check_cuts(cuts, max_minutes)
    experiment.max_seconds = 60 * max_minutes
    from_longest = list(OrderedSampler(cuts, CHECK_BATCH_SECONDS))[::-1]
    step = max(1, len(from_longest) // CHECK_BATCHES)
    chosen = from_longest[::step][:CHECK_BATCHES]
    batches = [(batch.features, batch.feature_lens) for batch in experiment.batches(chosen, workers=0) if batch.ids]
    if not batches:
        raise UserError(f"{cuts} has no cut of a whole frame to check the graphs with; name another manifest")
    return str(cuts), batches


def _random_batches(model: AcousticModel) -> list[FeatureBatch]:
    """Returns noise of up to ten seconds with the mean and the deviation of the training set."""
    mean = model.normalise.mean
    generator = torch.Generator().manual_seed(1)
    lens = torch.randint(1, 1000, (CHECK_BATCHES, 3), generator=generator)
    noise = [torch.randn(3, longest, len(mean), generator=generator) for longest in lens.amax(1).tolist()]
    return [(mean + x / model.normalise.inverse_deviation, x_lens) for x, x_lens in zip(noise, lens, strict=True)]


@contextmanager
def _explain_errors(file: str, out: Path) -> Iterator[None]:
    """Turns all exceptions of torch's exporter, onnx and onnxruntime into one line that names the file."""
    try:
        with report_full_disk(out):
            yield
    except (AsrtoolError, OSError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0][:200]}"
        hint = "nothing was written; try another --opset, or other versions of the packages in asrtool[export]"
        raise AsrtoolError(f"export: {file} failed ({reason}); {hint}") from error
