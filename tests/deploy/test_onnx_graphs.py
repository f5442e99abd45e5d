"""The graphs of a model give its log-probs in onnxruntime, whatever the sizes, and however streams end."""

import pytest
import torch

pytest.importorskip("onnx", reason="asrtool[export] is not installed")
pytest.importorskip("onnxscript", reason="asrtool[export] is not installed")
pytest.importorskip("onnxruntime", reason="asrtool[export] is not installed")

from asrtool.deploy.onnx_graphs import state_names, step_graph, whole_graph
from asrtool.deploy.parity import Graph, Parity, compare_steps, compare_whole

OPSET = 18
LENGTHS = [53, 20], [1], [30, 1, 45, 29], [7], [64, 64], [3, 160]  # frames of the utterances in a batch


@pytest.fixture(scope="module")
def batches():
    """Utterances, and not a number beyond their ends."""
    draw, made = torch.Generator().manual_seed(2), []
    for lens in map(torch.tensor, LENGTHS):
        x = torch.randn(len(lens), lens.max(), 7, generator=draw)
        x[torch.arange(lens.max()) >= lens[:, None]] = torch.nan
        made.append((x, lens))
    return made


@pytest.fixture
def load(tmp_path):
    """load(program) -> the graph in onnxruntime"""

    def loaded(program):
        program.save(tmp_path / "graph.onnx", external_data=False)
        return Graph(tmp_path / "graph.onnx")

    return loaded


# A trace takes seconds, and more with each layer; tests of `asrtool export` trace Transformers.
@pytest.mark.parametrize("streaming_kind", ["blstm", "lc_blstm"], indirect=True)
def test_a_graph_of_whole_utterances_gives_the_log_probs_of_forward(make_model, streaming_kind, batches, load):
    model = make_model(**streaming_kind, layers=1, subsampling={"kind": "stack", "factor": 2})
    found = compare_whole(model, load(whole_graph(model, OPSET)), batches)
    assert found.holds and found.equal == found.frames, found


@pytest.mark.parametrize("streaming_kind", ["sliding_vgg"], indirect=True)
def test_a_graph_of_a_step_gives_the_log_probs_of_forward(make_model, streaming_kind, batches, load):
    model = make_model(**streaming_kind)
    graph = load(step_graph(model, OPSET))
    found = compare_steps(model, graph, batches)
    assert found.holds and found.equal == found.frames, found
    state = state_names(model)
    assert [node["name"] for node in graph.signature()["inputs"]] == ["x", "x_lens", *state]
    assert [node["name"] for node in graph.signature()["outputs"]] == ["log_probs", *(f"new_{name}" for name in state)]


def test_a_mask_that_is_off_by_a_frame_is_no_rounding(make_model, batches):
    sees = {"mask": "sliding", "left_context": 3}
    assert compare_whole(make_model(**sees, right_context=1), make_model(**sees, right_context=1), batches).holds
    assert not compare_whole(make_model(**sees, right_context=1), make_model(**sees, right_context=2), batches).holds


def test_what_is_not_a_number_is_no_rounding():
    lens, numbers = torch.tensor([3]), torch.zeros(1, 3, 2)
    found = Parity()
    found.add(torch.full_like(numbers, torch.nan), numbers, lens)
    assert not found.holds
