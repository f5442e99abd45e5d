"""`asrtool export`: its folder is enough to run the model, and a graph that differs from the model is not written."""

import copy
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from asrtool.experiment import open_experiment
from asrtool.export import export
from asrtool.files import file_hash
from tests.tiny import make_experiment

needs_packages = pytest.mark.skipif(not all(map(find_spec, export.PACKAGES)), reason="asrtool[export] is not installed")


@pytest.fixture(scope="module")
def make(tiny_config, tokenizer_file, tmp_path_factory):
    """make(mask="chunk", ...) -> the folder of an experiment with this model and random weights"""
    return lambda **model: make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(model=model), tokenizer_file)


@pytest.fixture(scope="module")
def offline(make):
    """An experiment whose model needs the whole utterance."""
    return make(normalise="utterance")


@pytest.fixture(scope="module")
def streaming(make):
    """An experiment whose model can stream, with a delay of a few frames."""
    return make(mask="sliding", left_context=3, right_context=1, subsampling={"kind": "stack", "factor": 3})


NUMPY = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def run_exported_stream(folder, features):
    """Returns log-probs (T', V) of one stream (T, F) from step.onnx, using export.json alone, without asrtool."""
    import onnxruntime

    facts = json.loads((folder / "export.json").read_text())
    stream = facts["stream"]
    chunk = stream["chunk"]
    frames = -(-len(features) // facts["subsampling_factor"])
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    types = {node.name: NUMPY[node.type] for node in session.get_inputs()}
    state = {
        part["input"]: np.full([1, *part["shape"][1:]], part["initial_value"], types[part["input"]])
        for part in stream["state"]
    }
    outputs = ["log_probs", *(part["output"] for part in stream["state"])]
    remaining = np.pad(features, ((stream["lead_padding"], 0), (0, 0)))
    rows = []
    while len(rows) < stream["delay"] + frames:
        x, remaining = remaining[:chunk], remaining[chunk:]
        feeds = {"x": np.pad(x, ((0, chunk - len(x)), (0, 0)))[None], "x_lens": np.array([len(x)])}
        log_probs, *new_state = session.run(outputs, feeds | state)
        state = dict(zip(state, new_state, strict=True))
        rows.extend(log_probs[0])
    return np.stack(rows[stream["delay"] :][:frames])


@pytest.mark.slow
@needs_packages
def test_the_exported_folder_is_enough_to_run_a_stream(streaming, asr, tmp_path):
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
    log_probs = torch.from_numpy(run_exported_stream(out, features.numpy()))
    torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@needs_packages
def test_a_model_that_needs_the_whole_utterance_has_no_step_graph(offline, asr, tmp_path):
    status, printed, _ = asr("export", offline, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert status == 0 and "100.00 % of" in printed
    assert [*facts["graphs"]] == ["model.onnx"] and facts["stream"] is None
    assert facts["features"]["num_filters"] == 20 and facts["checked_with"] == "random features"
    assert facts["graphs"]["model.onnx"]["sha256"] == file_hash(tmp_path / "out" / "model.onnx")
    assert facts["files"] == ["model.onnx", "tokens.txt"]
    assert facts["graphs"]["model.onnx"]["parity"]["largest_relative_difference"] <= facts["tolerance"]
    (out,) = facts["graphs"]["model.onnx"]["outputs"][:1]
    assert out["shape"][2] == facts["units"]["count"] == 5


@pytest.fixture
def fast_export(monkeypatch):
    """Graphs are tiny files, which takes no time; fast_export["model"] is the features that would be checked."""
    checked = {}

    def write_tiny_graph(model, name, folder, opset, batches, quantise):
        checked[name] = batches
        (folder / f"{name}.onnx").write_text("new")
        parity = {"largest_difference": 0.0, "best_unit_equal": 1.0, "frames": 1}
        return {f"{name}.onnx": {"bytes": 3, "parity": parity}}

    monkeypatch.setattr(export, "require_packages", lambda: None)
    monkeypatch.setattr(export, "_export_graph", write_tiny_graph)
    return checked


def test_the_manifests_of_the_configuration_are_not_opened(make, asr, tmp_path, fast_export):
    """The folder may come from somebody else, and its manifests may be missing."""
    exp, manifest = make(normalise="utterance"), tmp_path / "dev.jsonl.gz"
    manifest.write_bytes(b"not a manifest")
    text = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(re.sub(r"dev: .*cuts.jsonl.gz", f"dev: {manifest}", text))
    assert str(manifest) in (exp / "config.yaml").read_text()
    assert "(random features)" in asr("export", exp, tmp_path / "out")[1]
    assert asr("export", exp, tmp_path / "other", "--cuts", manifest)[0] == 2 and not (tmp_path / "other").exists()


def test_the_check_uses_the_cuts_that_are_given(offline, asr, corpus, tmp_path, fast_export):
    status, printed, _ = asr("export", offline, tmp_path / "out", "--cuts", corpus)
    assert status == 0 and f"({corpus})" in printed
    assert fast_export["model"] and all(features.shape[2] == 20 for features, _ in fast_export["model"])
    assert asr("export", offline, tmp_path / "out", "--cuts", tmp_path / "none.jsonl.gz")[0] == 2


def test_only_files_of_an_earlier_export_are_replaced(streaming, offline, asr, tmp_path, fast_export):
    out = tmp_path / "out"
    assert asr("export", streaming, out)[0] == 0 and (out / "step.onnx").is_file()
    for name in ("mine.onnx", "notes.txt"):
        (out / name).write_text("mine")
    assert asr("export", offline, out)[0] == 0
    names = [path.name for path in out.iterdir()]
    assert sorted(names) == ["export.json", "mine.onnx", "model.onnx", "notes.txt", "tokens.txt"]
    assert (out / "mine.onnx").read_text() == (out / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_refused_and_kept(offline, asr, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "require_packages", lambda: None)
    (tmp_path / "model.onnx").write_text("mine")
    status, _, err = asr("export", offline, tmp_path)
    assert status == 2 and "was not written by `asrtool export`" in err and err.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "error", [RuntimeError("torch\nand more"), AssertionError("lengths"), TypeError(), KeyError(1)]
)
def test_errors_of_the_exporter_are_one_line(offline, asr, tmp_path, monkeypatch, error):
    def broken(model, opset):
        raise error

    monkeypatch.setattr(export, "require_packages", lambda: None)
    monkeypatch.setitem(export.GRAPHS, "model", (broken, export.check_forward_graph))
    status, _, err = asr("export", offline, tmp_path / "out")
    assert status == 1 and f"model.onnx failed ({type(error).__name__}" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_packages
def test_a_graph_with_other_weights_is_refused_and_the_old_folder_is_kept(offline, asr, tmp_path, monkeypatch):
    def other(model, opset):
        model = copy.deepcopy(model)
        model.output.bias.data[1] += 0.01
        return export.forward_graph(model, opset)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("an older one")
    (tmp_path / "out" / "export.json").write_text('{"files": ["model.onnx"]}')
    monkeypatch.setitem(export.GRAPHS, "model", (other, export.check_forward_graph))
    status, _, err = asr("export", offline, tmp_path / "out")
    assert status == 1 and "model.onnx differs from the model by" in err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "an older one"


def test_missing_packages_are_named(offline, asr, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnx") else find_spec(name))
    status, _, err = asr("export", offline, tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert err.count("\n") == 1 and "pip install 'asrtool[export]'" in err and "onnxruntime" in err


@needs_packages
def test_a_file_instead_of_a_folder_is_refused(offline, asr, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert asr("export", offline, tmp_path / "out")[0] == 2
    assert (tmp_path / "out").read_text() == "mine"
