"""What export.json says about a model in addition to its graphs."""

import torch

import asrtool
from asrtool.data.features import extractor
from asrtool.experiment import Experiment
from asrtool.export.onnx_graphs import common_value, state_names
from asrtool.files import file_hash
from asrtool.models.acoustic import BLANK, AcousticModel


def model_facts(experiment: Experiment) -> dict:
    """Returns what a runtime must know about the model in addition to its graphs."""
    model = experiment.model
    tokenizer = experiment.tokenizer
    topology = experiment.config.objective.topology
    features = experiment.config.features
    options = extractor(features.sampling_rate, features.num_bins).config.to_dict()
    no_effect = ("device", "energy_floor")  # the floor is for the energy, which is not among the features
    options = {name: value for name, value in options.items() if name not in no_effect}
    latency = model.latency()
    return {
        "source": {
            "asrtool": asrtool.__version__,
            "torch": torch.__version__,
            "experiment": experiment.folder.name,
            "checkpoint": experiment.checkpoint.name,
            "sha256": file_hash(experiment.checkpoint),
        },
        "units": {
            "count": tokenizer.size,
            "blank": None if topology == "hmm" else BLANK,
            "output_type": tokenizer.output_type,
        },
        "outputs": {"count": experiment.num_outputs, "topology": topology},
        "features": {"type": "Kaldi's log-mel filterbank", "samples": "float, -1 to 1"} | options,
        "normalisation": {"kind": experiment.config.model.normalise, "where": "inside the graphs"},
        "subsampling_factor": model.subsampling.factor,
        "output_frame_seconds": round(experiment.frame_seconds, 6),
        "latency_frames": {"chunk": latency.chunk, "right": latency.right} if model.can_stream else None,
        "stream": stream_facts(model) if model.can_stream else None,
    }


def stream_facts(model: AcousticModel) -> dict:
    """Returns how streams begin, and the tensors of their state, all of whose elements have one initial value."""
    state = [
        {
            "input": name,
            "output": f"new_{name}",
            "shape": ["N", *tensor.shape[1:]],
            "initial_value": common_value(tensor),
        }
        for name, tensor in zip(state_names(model), model.initial_state(1), strict=True)
    ]
    return {
        "chunk": model.latency().chunk,
        "lead_padding": model.lead_padding,
        "delay": model.delay,
        "state": state,
    }
