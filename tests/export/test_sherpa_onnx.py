"""`asrtool export --runtime sherpa-onnx`: the recognisers and servers of sherpa-onnx find the words of asrtool."""

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from asrtool.experiment import open_experiment
from asrtool.export.onnx_graphs import silence_exporter
from asrtool.export.sherpa_onnx import open_search, symbols_with_spaces, write_graph, write_runtime_files
from asrtool.export.sherpa_onnx_graph import streaming_graph
from asrtool.text.tokenizer import SPACE
from asrtool.text.tokenizer_training import train_tokenizer
from tests.decoding.graphs import save_word_graph
from tests.export.sherpa import (
    asrtool_words,
    free_port,
    make_system,
    sherpa_streams,
    sweeps,
    wait_for_port,
    websocket_results,
    write_wavs,
)
from tests.tiny import RATE

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
pytest.importorskip("onnxscript", reason="asrtool[export] is not installed")
SERVER = "sherpa-onnx-online-websocket-server"
COMMON = ["--tokens=tokens.txt", "--feat-dim=20", f"--sample-rate={RATE}"]
XL = {"architecture": "transformer_xl", "chunk_size": 5, "memory": 4, "positional_encoding": "relative"}
KINDS = {
    "chunk": {"mask": "chunk", "chunk_size": 5, "memory": 4, "convolution": {"kind": "residual"}},
    "lc_blstm": {"architecture": "lc_blstm", "chunk_size": 5, "look_ahead": 2},
    "sliding": {
        "mask": "sliding",
        "left_context": 3,
        "right_context": 1,
        "subsampling": {"kind": "vgg", "channels": 4},
        "positional_encoding": "relative",
    },
}


@pytest.fixture(scope="module")
def recordings():
    return sweeps()


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A Transformer-XL with a decoding graph of its words."""
    folder = make_system(tmp_path_factory.mktemp("xl"), **XL)
    save_word_graph(folder / "graph", open_experiment(folder, device="cpu").tokenizer)
    return folder


@pytest.fixture(scope="module")
def exported(system, tmp_path_factory):
    """The folder of `asrtool export` for the system, with its graph and with graphs of 8-bit weights."""
    from asrtool.export.export import export

    out = tmp_path_factory.mktemp("exported") / "out"
    experiment = open_experiment(system, device="cpu")
    export(experiment, out, 18, quantise=True, runtime="sherpa-onnx", search_files={"graph": system / "graph"})
    return out


def online_recognizer(folder, model="streaming.onnx", **options):
    files = {"tokens": str(folder / "tokens.txt"), "model": str(folder / model)}
    return sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(**files, num_threads=1, feature_dim=20, **options)


def tail_padding(folder):
    return json.loads((folder / "export.json").read_text())["sherpa_onnx"]["tail_padding_seconds"]


def require_variety(words):
    assert len({word for row in words for word in row}) >= 4 and sum(map(len, words)) >= 20


def word_strings(folder, result):
    """Returns the words of a result of graph search, whose numbers are in words.txt."""
    words = [line.rpartition(" ")[0] for line in (folder / "words.txt").read_text(encoding="utf-8").splitlines()]
    return [words[number] for number in result["words"]]


@pytest.mark.slow
def test_the_online_recognizer_finds_the_words_of_asrtool(system, exported, recordings):
    expected = asrtool_words(system, recordings)
    require_variety(expected)
    recognizer = online_recognizer(exported)
    streams = sherpa_streams(recognizer, recordings, tail_padding(exported))
    assert [recognizer.get_result(stream).split() for stream in streams] == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_that_streams_gives_the_words_of_asrtool(kind, recordings, tmp_path):
    experiment = open_experiment(make_system(tmp_path, **KINDS[kind]), device="cpu")
    with silence_exporter():
        streaming_graph(experiment.model, 18).save(tmp_path / "streaming.onnx", external_data=False)
    facts = write_runtime_files(experiment, None, tmp_path)
    expected = asrtool_words(tmp_path, recordings)
    require_variety(expected)
    recognizer = online_recognizer(tmp_path)
    streams = sherpa_streams(recognizer, recordings, facts["tail_padding_seconds"])
    assert [recognizer.get_result(stream).split() for stream in streams] == expected


@pytest.mark.slow
def test_the_words_come_without_the_end_of_the_input(exported, recordings):
    """A client that cannot say that its input is finished gets the same words from the same padding."""
    recognizer = online_recognizer(exported)
    padding = np.zeros(round(tail_padding(exported) * RATE), np.float32)
    for samples in recordings[:3]:
        (ended,) = sherpa_streams(recognizer, [samples], tail_padding(exported))
        stream = recognizer.create_stream()
        for piece in np.array_split(np.concatenate([samples, padding]), 7):
            stream.accept_waveform(RATE, piece)
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
        assert recognizer.get_result(stream) == recognizer.get_result(ended) != ""


@pytest.mark.slow
def test_graph_search_finds_the_words_of_asrtool(system, exported, recordings):
    expected = asrtool_words(system, recordings, "graph", graph=system / "graph")
    require_variety(expected)
    recognizer = online_recognizer(exported, ctc_graph=str(exported / "HLG.fst"))
    streams = sherpa_streams(recognizer, recordings, tail_padding(exported))
    results = [json.loads(recognizer.get_result_as_json_string(stream)) for stream in streams]
    assert [word_strings(exported, result) for result in results] == expected


@pytest.mark.slow
def test_the_weights_of_the_search_are_in_the_copy_of_the_graph(system, exported, recordings, tmp_path):
    weights = {"acoustic_scale": 0.4, "blank_penalty": 1.5, "insertion_penalty": 0.7}
    (tmp_path / "weights.json").write_text(json.dumps({"best": weights}))
    (tmp_path / "priors.json").write_text(json.dumps([40, *range(1, 30)]))
    options = {"graph": system / "graph", "decoding_weights": tmp_path / "weights.json"}
    experiment = open_experiment(system, device="cpu")
    experiment.files = replace(experiment.files, priors=tmp_path / "priors.json")
    write_graph(open_search(experiment, options), tmp_path / "HLG.fst")
    expected = asrtool_words(system, recordings, "graph", priors=tmp_path / "priors.json", **options)
    assert expected != asrtool_words(system, recordings, "graph", graph=system / "graph")
    recognizer = online_recognizer(exported, ctc_graph=str(tmp_path / "HLG.fst"))
    streams = sherpa_streams(recognizer, recordings, tail_padding(exported))
    results = [json.loads(recognizer.get_result_as_json_string(stream)) for stream in streams]
    assert [word_strings(exported, result) for result in results] == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(SERVER) is None, reason="sherpa-onnx-bin is not installed")
@pytest.mark.parametrize("method", ["greedy", "graph"])
def test_the_websocket_server_finds_the_words_of_asrtool(system, exported, recordings, method):
    port = free_port()
    padding = f"--end-tail-padding={tail_padding(exported)}"
    command = [SERVER, *COMMON, "--zipformer2-ctc-model=streaming.onnx", padding, f"--port={port}"]
    command += ["--enable-endpoint=false", *(["--ctc-graph=HLG.fst"] if method == "graph" else [])]
    options = {"graph": system / "graph"} if method == "graph" else {}
    with subprocess.Popen(command, cwd=exported, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port, server)
            results = websocket_results(port, recordings)
        finally:
            server.terminate()
    words = [word_strings(exported, row) if method == "graph" else row["text"].split() for row in results]
    assert words == asrtool_words(system, recordings, method, **options)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(SERVER) is None, reason="sherpa-onnx-bin is not installed")
def test_the_commands_of_the_readme_run(system, exported, recordings, tmp_path):
    """The tools print the words that asrtool finds in the 16-bit files."""
    import soundfile

    (wav,) = write_wavs(tmp_path, recordings[-1:])
    samples, _ = soundfile.read(wav, dtype="float32")
    (expected,) = asrtool_words(system, [samples])
    readme = (exported / "README.md").read_text(encoding="utf-8").replace("talk.wav", str(wav))
    blocks = [block.split("```")[0] for block in readme.split("```bash\n")[1:]]
    commands = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    for command in (line.split() for line in commands if "websocket" not in line):
        done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
        assert f'"text": "{" ".join(expected)}"' in done.stdout + done.stderr, command
    (program,) = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    done = subprocess.run(["python3", "-c", program], cwd=exported, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


@pytest.mark.slow
def test_the_offline_recognizer_finds_the_words_of_asrtool(system, exported, recordings):
    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(exported / "model.onnx"), tokens=str(exported / "tokens.txt"), num_threads=1, feature_dim=20
    )
    streams = [recognizer.create_stream() for _ in recordings]
    for stream, samples in zip(streams, recordings, strict=True):
        stream.accept_waveform(RATE, samples)
    recognizer.decode_streams(streams)
    assert [stream.result.text.split() for stream in streams] == asrtool_words(system, recordings)


@pytest.mark.slow
def test_the_folder_and_its_8_bit_graphs_are_complete(exported, recordings):
    facts = json.loads((exported / "export.json").read_text())
    names = ["HLG.fst", "README.md", "model.int8.onnx", "model.onnx", "streaming.int8.onnx", "streaming.onnx"]
    assert facts["files"] == [*names, "tokens.txt", "words.txt"]
    assert facts["sherpa_onnx"]["decoding_graph"] == "HLG.fst"
    assert facts["graphs"]["streaming.onnx"]["parity"]["largest_relative_difference"] <= facts["tolerance"]
    assert (exported / "tokens.txt").read_text(encoding="utf-8").splitlines()[:2] == ["<blk> 0", "▁w1 1"]
    recognizer = online_recognizer(exported, "streaming.int8.onnx")
    streams = sherpa_streams(recognizer, recordings, tail_padding(exported))
    assert all(recognizer.get_result(stream) for stream in streams)


@pytest.mark.parametrize("kind, text, begins", [
    ("word", "ab c", True), ("char", "ab c", False), ("char", "abc", False),
])  # fmt: skip
def test_symbols_get_the_mark_of_a_space_where_units_are_words(kind, text, begins):
    _, *symbols = symbols_with_spaces(train_tokenizer(kind, [text]))
    assert all(symbol.startswith(SPACE) for symbol in symbols) == begins


def test_wrong_use_is_one_line(system, asr, tmp_path):
    cases = {
        "kaldi": (["--runtime", "kaldi"], "'kaldi' is not 'sherpa-onnx'"),
        "graph without runtime": (["--graph", system / "graph"], "--graph needs --runtime sherpa-onnx"),
        "weights without graph": (
            ["--runtime", "sherpa-onnx", "--decoding-weights", tmp_path / "none"],
            "--decoding-weights needs --graph FOLDER",
        ),
        "missing graph": (["--runtime", "sherpa-onnx", "--graph", tmp_path / "none"], "none"),
    }
    for arguments, message in cases.values():
        status, _, err = asr("export", system, tmp_path / "out", *arguments)
        assert status == 2 and message in err and err.count("\n") == 1, err
        assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_stream_has_only_the_offline_files(asr, tmp_path, monkeypatch):
    from asrtool.export import export

    def write_tiny_graph(model, name, folder, opset, batches, quantise):
        (folder / f"{name}.onnx").write_text("new")
        return {f"{name}.onnx": {"bytes": 3, "parity": {"largest_difference": 0.0, "best_unit_equal": 1, "frames": 1}}}

    monkeypatch.setattr(export, "_export_graph", write_tiny_graph)
    folder = make_system(tmp_path / "exp", normalise="utterance")
    status, printed, _ = asr("export", folder, tmp_path / "out", "--runtime", "sherpa-onnx")
    assert status == 0 and "has no streaming.onnx: this model needs whole utterances" in printed
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "sherpa-onnx-offline" in readme and "websocket" not in readme
    assert not (tmp_path / "out" / "streaming.onnx").exists()
