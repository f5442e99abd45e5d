"""The folder of `asrtool export`: all that another runtime needs.

    OUT/model.onnx     features of whole utterances to log-probs
        step.onnx      one chunk of a stream, of a model that streams
        tokens.txt     symbol and number of each unit, a line each; 0 is the blank, and ▁ stands for a space
        export.json    features, frame rates, latency, inputs and outputs, a stream's first state, the sha256 of each
                       graph, how far it was checked, and what it was made of
    *.int8.onnx        beside a graph, with quantise: weights of matrix products as 8-bit integers

export.json says of the features which options of Kaldi's filterbank they have; kaldi-native-fbank and others take the
same. Samples are float in -1 .. 1. Mean and variance are normalised inside the graphs.

A stream is fed `lead` frames of zeros, then its own, `chunk` at a time; x_lens is the frames of this chunk up to the
stream's end: all, fewer in the one where it ends, 0 in those after it. Of the log-probs, the first `delay` output
frames do not count; after the end the stream is fed until ceil(frames / subsampling_factor) others have come.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import asrtool
from asrtool.data.features import FRAME_SHIFT, extractor
from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.checks import check_cuts
from asrtool.deploy.onnx_graphs import quiet, state_names, step_graph, whole_graph
from asrtool.deploy.parity import TOLERANCE, Graph, Parity, Utterances, compare_steps, compare_whole
from asrtool.errors import AsrtoolError, UserError
from asrtool.experiment import Experiment
from asrtool.files import file_hash, new_folder, report_full_disk, require_own_folder, write_json
from asrtool.graphs.folder import write_symbols
from asrtool.models.acoustic import BLANK
from asrtool.progress import progress
from asrtool.text.tokenizer import SPACE

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

META, MADE_BY = "export.json", "asrtool export"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCHES, BATCH_SECONDS = 4, 30.0  # of the check: short and long cuts alike, two minutes at most
GRAPHS = {"model": (whole_graph, compare_whole), "step": (step_graph, compare_steps)}


def require_packages() -> None:
    """UserError that names the packages that are missing."""
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
) -> dict[str, dict]:
    """Write the folder; returns for each graph its bytes and what its check found, as export.json has them.

    The experiment is on the CPU. The check hears `cuts`, and random features without: a manifest that only the
    experiment's configuration names is not opened, since the folder may come from somebody else. `out` is new, empty,
    or of an earlier export; what else is in it stays. Raises AsrtoolError when a graph that is not quantised differs
    from the model by more than TOLERANCE, or cannot be made, and leaves `out` as it was.
    """
    require_packages()
    require_own_folder(out, META, MADE_BY)
    heard, batches = _utterances(experiment, cuts, max_minutes)
    with new_folder(out, META, MADE_BY) as folder:
        graphs = {}
        for name in GRAPHS if experiment.model.streams else ["model"]:
            with _named(f"{name}.onnx", out):
                graphs |= _export_graph(experiment, name, folder, opset, batches, quantise)
        write_symbols(folder / "tokens.txt", spelled_apart(experiment.tokenizer.symbols))
        meta = facts(experiment) | {"opset": opset, "checked_with": heard, "tolerance": TOLERANCE, "graphs": graphs}
        write_json(folder / META, meta | {"files": sorted(path.name for path in folder.iterdir())})
    return {name: graph | {"checked_with": heard} for name, graph in graphs.items()}


def spelled_apart(symbols: list[str]) -> list[str]:
    """The units with marks for the spaces between them, if they are whole words or phones, which have none."""
    blank, *others = symbols
    return symbols if any(SPACE in symbol for symbol in others) else [blank, *(SPACE + symbol for symbol in others)]


def facts(experiment: Experiment) -> dict:
    """What a runtime must know of the model beside its graphs."""
    model, settings, tokenizer = experiment.model, experiment.config.features, experiment.tokenizer
    options = extractor(settings.sampling_rate, settings.num_bins).config.to_dict()
    options = {name: value for name, value in options.items() if name not in ("device", "energy_floor")}
    right, chunk = model.latency()
    made = {"asrtool": asrtool.__version__, "torch": torch.__version__, "experiment": experiment.folder.name}
    return {
        "made_of": made | {"checkpoint": experiment.checkpoint.name, "sha256": file_hash(experiment.checkpoint)},
        "units": {"count": tokenizer.size, "blank": BLANK, "spell": tokenizer.spells},
        "features": {"type": "Kaldi's log-mel filterbank", "samples": "float, -1 to 1"} | options,
        "normalisation": {"kind": experiment.config.model.normalise, "where": "inside the graphs"},
        "subsampling_factor": model.subsampling.factor,
        "output_frame_seconds": round(FRAME_SHIFT * model.subsampling.factor, 6),
        "latency_frames": {"chunk": chunk, "right": right} if model.streams else None,
        "stream": _stream_facts(experiment) if model.streams else None,
    }


def _stream_facts(experiment: Experiment) -> dict:
    """How streams begin, and the state of one: its tensors hold one value each then."""
    model = experiment.model
    state = [
        {"name": name, "new": f"new_{name}", "shape": ["N", *tensor.shape[1:]], "begins_with": _only_value(tensor)}
        for name, tensor in zip(state_names(model), model.initial_state(1), strict=True)
    ]
    return {"chunk": model.latency().chunk, "lead": model.lead, "delay": model.delay, "state": state}


def _only_value(tensor: torch.Tensor) -> int | float:
    first, *others = tensor.unique().tolist() or [0.0]  # none where nothing is kept
    assert not others
    return first


def _export_graph(
    experiment: Experiment, name: str, folder: Path, opset: int, batches: list[Utterances], quantise: bool
) -> dict[str, dict]:
    """Write and check one graph and, maybe, its quantised twin; returns the facts of both by file name."""
    make, compare = GRAPHS[name]
    logger.info(f"export: {name}.onnx")
    program = make(experiment.model, opset)
    path = folder / f"{name}.onnx"
    _save(program, path, opset)
    found = compare(experiment.model, Graph(path), progress(batches, f"checking {path.name}", len(batches), "batches"))
    if not found.holds:
        raise AsrtoolError(
            f"{path.name} differs from the model by {found.relative:.1e} of a log-prob, at most {TOLERANCE:.0e} is "
            f"rounding; nothing was written; try another --opset, and report this with the experiment's config.yaml"
        )
    made = {path.name: _graph_facts(path, found)}
    if quantise:
        small = folder / f"{name}.int8.onnx"
        _quantise(path, small)
        shown = progress(batches, f"checking {small.name}", len(batches), "batches")
        made[small.name] = _graph_facts(small, compare(experiment.model, Graph(small), shown))
    return made


def _save(program: "ONNXProgram", path: Path, opset: int) -> None:
    made = program.model.opset_imports[""]
    if made != opset:  # torch keeps its own version in silence where it cannot convert
        raise UserError(f"--opset {opset}: torch could only write {made}; give that, or leave the option out")
    program.save(path, external_data=False)


def _graph_facts(path: Path, found: Parity) -> dict:
    return {"bytes": path.stat().st_size, "sha256": file_hash(path), **Graph(path).signature(), "parity": found.facts()}


def _quantise(path: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(path, out, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "LSTM"])


def _utterances(experiment: Experiment, cuts: Path | None, max_minutes: float) -> tuple[str, list[Utterances]]:
    """What the check hears, and its name: batches from the shortest cuts to the longest, or random features."""
    if cuts is None:
        return "random features", _random(experiment)
    check_cuts(cuts, max_minutes)
    experiment.max_seconds = 60 * max_minutes
    items = list(OrderedSampler(cuts, BATCH_SECONDS))
    items = items[-1 :: -max(1, len(items) // BATCHES)][:BATCHES]
    found = [(batch.features, batch.feature_lens) for batch in experiment.batches(items, workers=0) if batch.ids]
    if not found:
        raise UserError(f"{cuts} has no cut of a whole frame to check the graphs with; name another manifest")
    return str(cuts), found


def _random(experiment: Experiment) -> list[Utterances]:
    """Noise with the training set's mean and deviation, up to ten seconds."""
    draw, normalise = torch.Generator().manual_seed(1), experiment.model.normalise
    lens = torch.randint(1, 1000, (BATCHES, 3), generator=draw)
    noise = [torch.randn(3, n, len(normalise.mean), generator=draw) for n in lens.amax(1).tolist()]
    return [(normalise.mean + x / normalise.inverse_deviation, n) for x, n in zip(noise, lens, strict=True)]


@contextmanager
def _named(what: str, out: Path) -> Iterator[None]:
    """Inside, whatever torch's exporter, onnx and onnxruntime raise becomes one line that says what was made."""
    try:
        with report_full_disk(out):
            yield
    except (AsrtoolError, OSError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        hint = "nothing was written; try another --opset, or other versions of the packages in asrtool[export]"
        raise AsrtoolError(f"export: {what} failed ({reason}); {hint}") from error
