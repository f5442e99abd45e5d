"""bf16 where the device has instructions for it, and fp32 elsewhere; in training and in recognition."""

import json

import pytest
import torch

import asrtool
from asrtool.data.lhotse_sets import open_cuts
from asrtool.decoding.recording_log_probs import recording_log_probs
from asrtool.errors import UserError
from asrtool.experiment import open_experiment, run_hash
from asrtool.inference.transcribe import system_settings
from asrtool.precision import autocast, uses_bf16
from tests.tiny import feature_batch, make_experiment


@pytest.fixture
def cpu_without_bf16(monkeypatch):
    monkeypatch.setattr("asrtool.precision.lacks_bf16", lambda device: True)


@pytest.fixture
def cpu_with_bf16(monkeypatch):
    monkeypatch.setattr("asrtool.precision.lacks_bf16", lambda device: False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_a_cpu_without_bf16_instructions_always_computes_in_fp32(cpu_without_bf16, precision):
    assert not uses_bf16(precision, torch.device("cpu"))


@pytest.mark.parametrize("precision, expected", [("fp32", False), ("bf16", True), ("auto", True)])
def test_with_bf16_instructions_bf16_and_auto_mean_bf16(cpu_with_bf16, precision, expected):
    assert uses_bf16(precision, torch.device("cpu")) == expected


def test_products_are_in_bf16_only_inside_autocast(cpu_with_bf16):
    a, b = torch.randn(7, 5), torch.randn(5, 3)
    with autocast("bf16", torch.device("cpu")):
        assert (a @ b).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert torch.equal(a @ b, torch.matmul(a, b)) and (a @ b).dtype == torch.float32


def test_recognition_in_bf16_differs_from_fp32_by_rounding(tiny_config, tokenizer_file, tmp_path):
    config = tiny_config(model={"mask": "chunk", "chunk_size": 4, "memory": 8, "normalise": "global"})
    experiment = open_experiment(make_experiment(tmp_path / "exp", config, tokenizer_file), device="cpu")
    batch = feature_batch(torch.randn(3, 60, config.features.num_bins), torch.tensor([60, 40, 9]), 1.0)
    expected, lens = experiment.log_probs(batch)
    experiment.precision = "bf16"
    log_probs, _ = experiment.log_probs(batch)
    assert log_probs.dtype == torch.float32
    difference = max(float((log_probs[n, :length] - expected[n, :length]).abs().max()) for n, length in enumerate(lens))
    assert uses_bf16("bf16", experiment.device) == (difference > 0) and difference < 0.2


@pytest.mark.parametrize("precision, expected", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_batches_and_windows_of_recordings_are_computed_in_the_precision(
    cpu_with_bf16, tiny_config, tokenizer_file, tmp_path, write_audio, precision, expected
):
    folder = make_experiment(tmp_path / "exp", tiny_config(), tokenizer_file)
    experiment = open_experiment(folder, device="cpu", precision=precision)
    types = []
    experiment.model.output.register_forward_hook(lambda _module, _inputs, logits: types.append(logits.dtype))
    experiment.log_probs(feature_batch(torch.randn(2, 30, 20), torch.tensor([30, 20]), 1.0))
    recording_log_probs(experiment, write_audio(tmp_path / "talk.wav", 1.0))
    assert types == [expected, expected]


def test_an_unknown_precision_is_one_line(tmp_path):
    with pytest.raises(UserError, match="precision is b16; did you mean 'bf16'"):
        asrtool.load(tmp_path, precision="b16")


@pytest.fixture
def stream_exp(tiny_config, tokenizer_file, tmp_path):
    config = tiny_config(model={"mask": "chunk", "chunk_size": 4, "memory": 8, "normalise": "global"})
    return make_experiment(tmp_path / "exp", config, tokenizer_file)


@pytest.mark.parametrize("command", ["decode", "stream"])
def test_results_in_bf16_say_so_and_do_not_replace_those_in_fp32(cpu_with_bf16, stream_exp, corpus, asr, command):
    call = (command, stream_exp, corpus, "--device", "cpu", "--name", "test")
    facts = stream_exp / command / "test/greedy" / f"{command}.json"
    assert asr(*call)[0] == 0
    assert json.loads(facts.read_text())["precision"] == "fp32"
    status, _, err = asr(*call, "--precision", "bf16")
    assert status == 2 and "precision not given (now bf16)" in err
    assert asr(*call, "--precision", "bf16", "--overwrite")[0] == 0
    bf16 = json.loads(facts.read_text())
    assert bf16["precision"] == "bf16" and bf16["options"]["precision"] == "bf16"


def test_auto_records_the_precision_that_was_computed(cpu_without_bf16, stream_exp, corpus, asr):
    status, out, err = asr("decode", stream_exp, corpus, "--device", "cpu", "--name", "test", "--precision", "auto")
    assert status == 0 and "in fp32" in out and "falls back" not in err
    facts = json.loads((stream_exp / "decode/test/greedy/decode.json").read_text())
    assert facts["precision"] == "fp32" and facts["options"]["precision"] == "auto"


def test_runs_in_bf16_and_in_fp32_have_other_hashes(monkeypatch, stream_exp, corpus):
    monkeypatch.setattr("asrtool.precision.lacks_bf16", lambda device: False)
    hashes = {precision: _run_hash(stream_exp, corpus, precision) for precision in ("fp32", "bf16", "auto")}
    assert hashes["bf16"] == hashes["auto"] != hashes["fp32"]
    monkeypatch.setattr("asrtool.precision.lacks_bf16", lambda device: True)
    assert {_run_hash(stream_exp, corpus, precision) for precision in hashes} == {hashes["fp32"]}


def _run_hash(folder, cuts, precision):
    return run_hash(open_experiment(folder, device="cpu", precision=precision), cuts, {})


def test_transcripts_in_bf16_are_other_outputs(cpu_with_bf16, stream_exp):
    settings = [system_settings(asrtool.load(stream_exp, device="cpu", precision=name)) for name in ("fp32", "auto")]
    assert [one["precision"] for one in settings] == ["fp32", "bf16"]


def test_alignments_in_bf16_are_those_of_fp32_up_to_rounding(cpu_with_bf16, stream_exp, corpus, asr, tmp_path):
    times = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.jsonl.gz"
        assert asr("align", stream_exp, corpus, out, "--device", "cpu", "--precision", precision)[0] == 0
        alignments = [cut.supervisions[0].alignment["word"] for cut in open_cuts(out)]
        times.append([[(item.symbol, item.start, item.score) for item in words] for words in alignments])
    assert [[word[:2] for word in words] for words in times[0]] == [[word[:2] for word in words] for words in times[1]]
    assert times[0] != times[1]  # the scores


def test_speakers_are_adapted_to_in_the_precision_of_the_option(cpu_with_bf16, stream_exp, corpus, asr):
    call = ("adapt", stream_exp, corpus, "--epochs", 1, "--workers", 0, "--device", "cpu")
    for options, expected in (([], "fp32"), (["--precision", "bf16"], "bf16")):
        assert asr(*call, *options)[0] == 0
        infos = [json.loads(path.read_text()) for path in sorted((stream_exp / "adapted/cuts").glob("*.json"))]
        assert [info["precision"] for info in infos] == [expected] * 3
