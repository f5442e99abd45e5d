"""The figures of `asrtool info` compared with the model itself."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrtool.cli.info import read_model_config
from asrtool.config_file import load_config, save_config
from asrtool.models.acoustic import AcousticModel
from asrtool.models.cost import attention_seconds
from asrtool.models.info import model_info
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.session import Session

RECIPE = Path(__file__).parents[2] / "egs" / "librispeech"
PLAIN = {"convolution": {"kind": "none"}, "subsampling": {"kind": "stack"}, "dropout": 0.0}


def test_parameters_are_counted(tiny_config):
    config = tiny_config(model={"convolution": {"kind": "residual"}})
    info = model_info(config, 37)
    everything = sum(p.numel() for p in AcousticModel(config.model, config.features.num_bins, 37).parameters())
    assert sum(info.parameters.values()) == everything
    assert info.lines()["parameters"].startswith(f"{everything:,} (")


@pytest.mark.parametrize("topology, factor", [("ctc", 1), ("modified", 1), ("hmm", 2)])
def test_all_figures_are_of_the_outputs_of_the_topology(tiny_config, tokenizer_file, tmp_path, topology, factor):
    config = tiny_config(objective={"kind": "mmi", "topology": topology})
    save_config(config, tmp_path / "config.yaml")
    assert read_model_config(tmp_path / "config.yaml", (), None) == (config, 5 * factor)
    assert read_model_config(tmp_path / "config.yaml", (), 7) == (config, 7 * factor)
    tokenizer = load_tokenizer(tokenizer_file)
    assert outputs_of(config, tokenizer) == 5 * factor
    expected = attention_seconds(config, 5 * factor)
    session = SimpleNamespace(config=config, tokenizer=tokenizer)
    assert Session.utterance_cost.fget(session).attention_seconds == expected


def test_operations_of_a_transformer_are_counted(tiny_config):
    config = tiny_config(model={**PLAIN, "dim": 16, "layers": 3, "heads": 2, "ff_dim": 24})
    bins, frames, dim = config.features.num_bins, 375, 16  # 15 s at 40 ms
    matrices = bins * 4 * dim + 3 * (4 * dim * dim + 2 * dim * 24) + dim * 7
    attention = 3 * 2 * frames * dim  # scores and sums, for each frame
    assert model_info(config, 7).flops == pytest.approx(2 * frames * (matrices + attention) / 15)


def test_operations_of_an_lstm_are_counted(tiny_config):
    config = tiny_config(model={**PLAIN, "architecture": "blstm", "dim": 16, "layers": 2})
    bins, frames, dim = config.features.num_bins, 375, 16
    lstm = 4 * 8 * (dim + 8)
    assert model_info(config, 7).flops == pytest.approx(2 * frames * (bins * 4 * dim + 4 * lstm + dim * 7) / 15)


def test_activation_memory_grows_with_the_batch_and_checkpointing_reduces_it(tiny_config):
    def kept(seconds=30, **model):
        return model_info(tiny_config(model={"layers": 6, **model}, data={"batch_seconds": seconds}), 7).activations

    assert kept(60) - kept(45) == pytest.approx(kept(45) - kept(30), rel=0.01)
    assert kept(activation_checkpointing=True) < 0.5 * kept()
    assert kept(layer_drop=0.5) == kept()


def test_activation_memory_is_what_autograd_saves(tiny_config):
    """The same count on real tensors: what the allocator gave between the start and the end of a forward pass."""
    config = tiny_config(model={"layers": 2}, data={"batch_seconds": 15})
    model, kept = AcousticModel(config.model, config.features.num_bins, 7), {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        held = model(torch.zeros(1, 1500, config.features.num_bins), torch.tensor([1500]))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    real = sum(size for address, size in kept.items() if address not in weights)
    assert model_info(config, 7).activations == pytest.approx(real, rel=0.05), held[1]


@pytest.mark.parametrize(
    "name, maximum, average",
    [
        ("lc_blstm", 800, 600),  # C 400, R 400
        ("transformer_12l_sliding", 800, 780),  # C 40, R 19 x 40
        ("transformer_12l_chunk", 800, 400),  # C 800, R 0
        ("transformer_xl_24l", 800, 400),
    ],
)
def test_latency_of_the_streaming_presets(name, maximum, average):
    with torch.device("meta"):
        config = load_config(RECIPE / "conf" / f"{name}.yaml", ["model.dim=16", "data.batch_seconds=1"])
    info = model_info(config, 50)
    assert (info.maximum_latency, info.average_latency, info.can_stream) == (maximum, average, True)
    assert info.lines()["latency"] == f"{maximum} ms at most, {average} ms on average"


@pytest.mark.parametrize("changes", [{}, {"architecture": "blstm"}, {"mask": "sliding", "left_context": 2}])
def test_an_offline_model_waits_for_the_whole_utterance(tiny_config, changes):
    info = model_info(tiny_config(model=changes), 5)
    assert math.isinf(info.maximum_latency) and info.lines()["latency"] == "the whole utterance"
    is_whole = math.isinf(info.left)
    expected = "the whole utterance" if is_whole else f"{10 * info.left:,.0f} ms before, everything after its chunk"
    assert info.lines()["receptive field"] == expected
    assert info.lines()["can stream"] == "no"


def test_the_table_of_presets_has_a_line_for_each_with_its_size():
    readme = (RECIPE / "README.md").read_text(encoding="utf-8")
    conf = RECIPE / "conf"
    for path in (*conf.glob("*.yaml"), *conf.glob("small/*.yaml")):
        with torch.device("meta"):
            config = load_config(path)
            model = AcousticModel(config.model, config.features.num_bins, 500)
        row = next((line for line in readme.splitlines() if line.startswith(f"| `conf/{path.relative_to(conf)}` ")), "")
        assert f" {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M " in row, f"{path.name}: {row}"
