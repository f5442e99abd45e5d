"""`asrtool export`: what it writes is enough to run the model, and what is wrong is not written."""

import copy
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from asrtool.deploy import export
from asrtool.experiment import open_experiment
from asrtool.files import file_hash
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
    return make(mask="sliding", left_context=3, right_context=1, subsampling={"kind": "stack", "factor": 3})


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


@pytest.mark.slow
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


@pytest.mark.slow
@needs_packages
def test_what_needs_the_whole_utterance_has_no_step(offline, asr, tmp_path):
    status, printed, _ = asr("export", offline, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "export.json").read_text())
    assert status == 0 and "100.00 % of" in printed
    assert [*meta["graphs"]] == ["model.onnx"] and meta["stream"] is None
    assert meta["features"]["num_filters"] == 20 and meta["checked_with"] == "random features"
    assert meta["graphs"]["model.onnx"]["sha256"] == file_hash(tmp_path / "out" / "model.onnx")
    assert meta["files"] == ["model.onnx", "tokens.txt"]
    assert meta["graphs"]["model.onnx"]["parity"]["largest_relative_difference"] <= meta["tolerance"]
    (out,) = meta["graphs"]["model.onnx"]["outputs"][:1]
    assert out["shape"][2] == meta["units"]["count"] == 5


@pytest.fixture
def quick(monkeypatch):
    """Graphs are empty files, which takes no time; quick["model"]: what the check of model.onnx would have heard."""
    heard = {}

    def written(experiment, name, folder, opset, batches, quantise):
        heard[name] = batches
        (folder / f"{name}.onnx").write_text("new")
        parity = {"largest_difference": 0.0, "best_unit_equal": 1.0, "frames": 1}
        return {f"{name}.onnx": {"bytes": 3, "parity": parity}}

    monkeypatch.setattr(export, "require_packages", lambda: None)
    monkeypatch.setattr(export, "_export_graph", written)
    return heard


def test_a_manifest_that_the_experiment_names_is_not_opened(make, asr, tmp_path, quick):
    """The folder may come from somebody else, and its manifest from nowhere."""
    exp, manifest = make(normalise="utterance"), tmp_path / "dev.jsonl.gz"
    manifest.write_bytes(b"not a manifest")
    text = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(re.sub(r"dev: .*cuts.jsonl.gz", f"dev: {manifest}", text))
    assert str(manifest) in (exp / "config.yaml").read_text()
    assert "(random features)" in asr("export", exp, tmp_path / "out")[1]
    assert asr("export", exp, tmp_path / "other", "--cuts", manifest)[0] == 2 and not (tmp_path / "other").exists()


def test_the_check_hears_the_cuts_that_are_named(offline, asr, corpus, tmp_path, quick):
    status, printed, _ = asr("export", offline, tmp_path / "out", "--cuts", corpus)
    assert status == 0 and f"({corpus})" in printed
    assert quick["model"] and all(features.shape[2] == 20 for features, _ in quick["model"])
    assert asr("export", offline, tmp_path / "out", "--cuts", tmp_path / "none.jsonl.gz")[0] == 2


def test_only_files_of_an_earlier_export_are_replaced(streaming, offline, asr, tmp_path, quick):
    out = tmp_path / "out"
    assert asr("export", streaming, out)[0] == 0 and (out / "step.onnx").is_file()
    for name in ("mine.onnx", "notes.txt"):
        (out / name).write_text("mine")
    assert asr("export", offline, out)[0] == 0
    names = [path.name for path in out.iterdir()]
    assert sorted(names) == ["export.json", "mine.onnx", "model.onnx", "notes.txt", "tokens.txt"]
    assert (out / "mine.onnx").read_text() == (out / "notes.txt").read_text() == "mine"


def test_a_folder_of_others_is_refused_and_stays(offline, asr, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "require_packages", lambda: None)
    (tmp_path / "model.onnx").write_text("mine")
    status, _, said = asr("export", offline, tmp_path)
    assert status == 2 and "was not made by `asrtool export`" in said and said.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "error", [RuntimeError("torch\nand more"), AssertionError("lengths"), TypeError(), KeyError(1)]
)
def test_what_the_exporter_raises_is_one_line(offline, asr, tmp_path, monkeypatch, error):
    def broken(model, opset):
        raise error

    monkeypatch.setattr(export, "require_packages", lambda: None)
    monkeypatch.setitem(export.GRAPHS, "model", (broken, export.compare_whole))
    status, _, said = asr("export", offline, tmp_path / "out")
    assert status == 1 and f"model.onnx failed ({type(error).__name__}" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_packages
def test_a_graph_of_other_weights_is_refused_and_the_old_folder_stays(offline, asr, tmp_path, monkeypatch):
    def other(model, opset):
        model = copy.deepcopy(model)
        model.output.bias.data[1] += 0.01
        return export.whole_graph(model, opset)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("an older one")
    (tmp_path / "out" / "export.json").write_text('{"files": ["model.onnx"]}')
    monkeypatch.setitem(export.GRAPHS, "model", (other, export.compare_whole))
    status, _, said = asr("export", offline, tmp_path / "out")
    assert status == 1 and "model.onnx differs from the model by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "an older one"


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
