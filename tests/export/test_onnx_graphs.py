"""The graphs of a model give its log-probs in onnxruntime, for all sizes, and wherever streams end."""

import pytest
import torch

pytest.importorskip("onnx", reason="asrtool[export] is not installed")
pytest.importorskip("onnxscript", reason="asrtool[export] is not installed")
pytest.importorskip("onnxruntime", reason="asrtool[export] is not installed")

from asrtool.export.onnx_graphs import forward_graph, state_names, step_graph
from asrtool.export.parity import OnnxGraph, Parity, check_forward_graph, check_step_graph

OPSET = 18
LENGTHS = [53, 20], [1], [30, 1, 45, 29], [7], [64, 64], [3, 160]  # frames of the utterances in a batch


@pytest.fixture(scope="module")
def batches():
    """Utterances, padded with NaN."""
    generator = torch.Generator().manual_seed(2)
    padded = []
    for lens in map(torch.tensor, LENGTHS):
        x = torch.randn(len(lens), lens.max(), 7, generator=generator)
        x[torch.arange(lens.max()) >= lens[:, None]] = torch.nan
        padded.append((x, lens))
    return padded


@pytest.fixture
def load(tmp_path):
    """load(program) -> the graph in onnxruntime"""

    def loaded(program):
        program.save(tmp_path / "graph.onnx", external_data=False)
        return OnnxGraph(tmp_path / "graph.onnx")

    return loaded


# A trace takes seconds, and more with each layer; tests of `asrtool export` trace Transformers.
@pytest.mark.parametrize("streaming_kind", ["blstm", "lc_blstm"], indirect=True)
def test_a_graph_of_whole_utterances_gives_the_log_probs_of_forward(make_model, streaming_kind, batches, load):
    model = make_model(**streaming_kind, layers=1, subsampling={"kind": "stack", "factor": 2})
    parity = check_forward_graph(model, load(forward_graph(model, OPSET)), batches)
    assert parity.is_within_tolerance and parity.best_unit_equal == parity.frames, parity


@pytest.mark.parametrize("streaming_kind", ["sliding_vgg"], indirect=True)
def test_a_graph_of_a_step_gives_the_log_probs_of_forward(make_model, streaming_kind, batches, load):
    model = make_model(**streaming_kind)
    graph = load(step_graph(model, OPSET))
    parity = check_step_graph(model, graph, batches)
    assert parity.is_within_tolerance and parity.best_unit_equal == parity.frames, parity
    state = state_names(model)
    assert [node["name"] for node in graph.signature()["inputs"]] == ["x", "x_lens", *state]
    assert [node["name"] for node in graph.signature()["outputs"]] == ["log_probs", *(f"new_{name}" for name in state)]


def test_a_mask_that_is_off_by_a_frame_is_outside_the_tolerance(make_model, batches):
    sliding = {"mask": "sliding", "left_context": 3}
    model = make_model(**sliding, right_context=1)
    same = make_model(**sliding, right_context=1)
    wider = make_model(**sliding, right_context=2)
    assert check_forward_graph(model, same, batches).is_within_tolerance
    assert not check_forward_graph(model, wider, batches).is_within_tolerance


def test_nan_is_outside_the_tolerance():
    lens, numbers = torch.tensor([3]), torch.zeros(1, 3, 2)
    parity = Parity()
    parity.add(torch.full_like(numbers, torch.nan), numbers, lens)
    assert not parity.is_within_tolerance
