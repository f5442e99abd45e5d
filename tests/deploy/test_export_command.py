"""`asrtool export`: what it writes is enough to run the model, and what is wrong is not written."""

import copy
import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from asrtool.decoding.decode import open_experiment
from asrtool.deploy import export
from tests.tiny import make_experiment

needs_packages = pytest.mark.skipif(not all(map(find_spec, export.PACKAGES)), reason="asrtool[export] is not installed")


@pytest.fixture(scope="module")
def make(tiny_config, tokenizer_file, tmp_path_factory):
    """make(mask="chunk", ...) -> the folder of an experiment with random weights and such a model"""
    return lambda **model: make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(model=model), tokenizer_file)


@pytest.fixture(scope="module")
def offline(make):
    """An experiment that needs the whole utterance."""
    return make(normalise="utterance")


@pytest.fixture(scope="module")
def streaming(make):
    """One that streams, a few frames late."""
    return make(mask="sliding", left=3, right=1, subsampling={"kind": "stack", "factor": 3})


NUMPY = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def by_the_folder_alone(folder, features):
    """Log-probs (T', V) of one stream (T, F) through step.onnx, as export.json says; without asrtool."""
    import onnxruntime

    meta = json.loads((folder / "export.json").read_text())
    how, frames = meta["stream"], -(-len(features) // meta["subsampling_factor"])
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    types = {node.name: NUMPY[node.type] for node in session.get_inputs()}
    state = {
        part["name"]: np.full([1, *part["shape"][1:]], part["begins_with"], types[part["name"]])
        for part in how["state"]
    }
    fed, made = np.pad(features, ((how["lead"], 0), (0, 0))), []
    while len(made) < how["delay"] + frames:
        x, fed = fed[: how["chunk"]], fed[how["chunk"] :]
        feeds = {"x": np.pad(x, ((0, how["chunk"] - len(x)), (0, 0)))[None], "x_lens": np.array([len(x)])}
        log_probs, *new = session.run(["log_probs", *(part["new"] for part in how["state"])], feeds | state)
        state = dict(zip(state, new, strict=True))
        made.extend(log_probs[0])
    return np.stack(made[how["delay"] :][:frames])


@needs_packages
def test_a_folder_says_all_that_a_stream_needs(streaming, asr, tmp_path):
    out = tmp_path / "new" / "out"
    status, printed, _ = asr("export", streaming, out, "--quantise", "int8")
    assert status == 0
    names = ["export.json", "model.int8.onnx", "model.onnx", "step.int8.onnx", "step.onnx", "tokens.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert {line.split(":")[0] for line in printed.splitlines()} == {str(path) for path in out.glob("*.onnx")}
    assert (out / "tokens.txt").read_text(encoding="utf-8").splitlines()[:2] == ["<blank> 0", "▁four 1"]
    model = open_experiment(streaming, device="cpu").model
    features = torch.randn(131, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(features[None], torch.tensor([131]))[0][0]
    found = torch.from_numpy(by_the_folder_alone(out, features.numpy()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_packages
def test_what_needs_the_whole_utterance_has_no_step(offline, asr, tmp_path):
    status, printed, _ = asr("export", offline, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "export.json").read_text())
    assert status == 0 and "100.00 % of" in printed
    assert [*meta["graphs"]] == ["model.onnx"] and meta["stream"] is None
    assert meta["features"]["num_filters"] == 20 and meta["checked_with"].endswith("cuts.jsonl.gz")
    assert meta["graphs"]["model.onnx"]["parity"]["largest_relative_difference"] <= meta["tolerance"]
    (out,) = meta["graphs"]["model.onnx"]["outputs"][:1]
    assert out["shape"][2] == meta["units"]["count"] == 5


@needs_packages
def test_a_dev_set_that_is_elsewhere_leaves_random_features(make, asr, tmp_path):
    exp = make(normalise="utterance")
    text = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(text.replace("cuts.jsonl.gz", "gone.jsonl.gz"))
    status, printed, said = asr("export", exp, tmp_path / "out")
    assert status == 0 and "(random features)" in printed and "gone.jsonl.gz is not here" in said
    assert asr("export", exp, tmp_path / "out", "--cuts", tmp_path / "none.jsonl.gz")[0] == 2


@needs_packages
def test_a_graph_of_other_weights_is_refused_and_the_old_folder_stays(offline, asr, tmp_path, monkeypatch):
    def other(model, opset):
        model = copy.deepcopy(model)
        model.output.bias.data[1] += 0.01
        return export.whole_graph(model, opset)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("an older one")
    monkeypatch.setitem(export.GRAPHS, "model", (other, export.compare_whole))
    status, _, said = asr("export", offline, tmp_path / "out")
    assert status == 1 and "model.onnx differs from the model by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["an older one"]


def test_missing_packages_are_named(offline, asr, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnx") else find_spec(name))
    status, _, said = asr("export", offline, tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert said.count("\n") == 1 and "pip install 'asrtool[export]'" in said and "onnxruntime" in said


@needs_packages
def test_a_file_is_no_folder(offline, asr, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert asr("export", offline, tmp_path / "out")[0] == 2
    assert (tmp_path / "out").read_text() == "mine"
