"""Training with torch.compile. Here its back end runs the compiled operations one by one: no C++ compiler is needed."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from asrtool.config import Config
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.training import compile as module
from asrtool.training.compile import compile_blocks
from asrtool.training.train import train
from tests.training import ranks

CPU = torch.device("cpu")
SMALL = {"subsampling": {"channels": 3}, "dim": 8, "layers": 3, "heads": 2, "ff_dim": 12, "dropout": 0.0}
KINDS = {
    "full": {"convolution": {"kind": "residual"}},
    "sliding": {"mask": "sliding", "left_context": 3, "right_context": 2},
    "chunk": {"mask": "chunk", "chunk_size": 3, "memory": 4, "activation_checkpointing": True},
    "transformer_xl": {
        "architecture": "transformer_xl",
        "chunk_size": 3,
        "memory": 4,
        "positional_encoding": "relative",
    },
}
SIZES = [(2, 40), (3, 57), (2, 120), (5, 33), (4, 101), (3, 164)]  # utterances and frames of batches
LONG_SIZES = [(2, 400), (3, 450), (4, 340)]  # for which a sliding window is computed in blocks of frames


@pytest.fixture
def counter(monkeypatch):
    """Counts how many graphs are compiled, and makes compilation quick."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(module, "BACKEND", counter)
    yield counter
    torch._dynamo.reset()


def make_model(**model) -> AcousticModel:
    torch.manual_seed(1)
    config = Config.model_validate({"features": {"num_bins": 7}, "model": SMALL | model})
    return AcousticModel(config.model, 7, 5, pack_frames=False).train()


def loss_and_gradient(model: AcousticModel, count: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of random features; the last utterance has half of the frames."""
    torch.manual_seed(frames)
    lens = torch.full((count,), frames)
    lens[-1] = frames // 2
    log_probs, out_lens = model(torch.randn(count, frames, 7), lens)
    inside = torch.arange(log_probs.shape[1]) < out_lens[:, None]
    model.zero_grad()
    loss = log_probs.square()[inside].mean()
    loss.backward()
    return loss.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("name, sizes", [*((name, SIZES) for name in KINDS), ("sliding", LONG_SIZES)])
def test_batches_of_other_sizes_do_not_compile_the_blocks_again(counter, name, sizes):
    kind = KINDS[name]
    plain = make_model(**kind)
    compiled = copy.deepcopy(plain)
    compile_blocks(compiled, CPU)
    counts = []
    for count, frames in sizes:
        ours = loss_and_gradient(compiled, count, frames)
        counts.append(counter.frame_count)
        for one, other in zip(ours, loss_and_gradient(plain, count, frames), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert counts == [counts[0]] * len(sizes) and 0 < counts[0] <= 3


def test_weights_keep_their_names_and_a_copy_is_a_plain_model(counter):
    plain = make_model()
    compiled = make_model()
    compile_blocks(compiled, CPU)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    loss_and_gradient(copy.deepcopy(compiled), 2, 40)
    assert counter.frame_count == 0
    loss_and_gradient(compiled, 2, 40)
    assert counter.frame_count > 0


def test_a_compiled_training_is_resumed_averaged_and_exchanged_with_a_plain_one(
    counter, tiny_config, tmp_path, state, same_training, rows
):
    def config(steps, compiled):
        settings = {"max_steps": steps, "validate_every": 2, "schedule": "none", "compile": compiled}
        return tiny_config(training=settings)

    train(config(4, True), tmp_path / "whole", device="cpu")
    assert counter.frame_count > 0
    train(config(2, True), tmp_path / "resumed", device="cpu")
    train(config(4, True), tmp_path / "resumed", resume=True, device="cpu")
    same_training(tmp_path / "whole", tmp_path / "resumed")
    train(config(2, True), tmp_path / "mixed", device="cpu")
    train(config(4, False), tmp_path / "mixed", resume=True, device="cpu")
    train(config(4, False), tmp_path / "plain", device="cpu")
    for which in ("best", "averaged"):
        compiled, plain, mixed = (state(tmp_path / name, which)["model"] for name in ("whole", "plain", "mixed"))
        assert compiled.keys() == plain.keys()
        for name in plain:
            if not name.endswith("qkv.bias"):  # of keys: no gradient but rounding errors, which Adam amplifies
                torch.testing.assert_close(compiled[name], plain[name], rtol=0, atol=1e-4, msg=name)
                torch.testing.assert_close(mixed[name], plain[name], rtol=0, atol=1e-4, msg=name)


def train_compiled(config: Config, folder: Path) -> None:
    """Trains on a rank, which is a process of its own."""
    module.BACKEND = "aot_eager"
    train(config, folder, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_ranks_equal_one_plain_rank(tiny_config, tmp_path, on_ranks, state, monkeypatch, strategy):
    monkeypatch.setattr(ranks, "SECONDS", 600)  # each rank compiles
    settings = {"max_steps": 3, "validate_every": 3}
    plain = tiny_config(training=settings | {"accumulate_grad_batches": 2})
    compiled = tiny_config(training=settings | {"compile": True}, parallel={"strategy": strategy})
    train(plain, tmp_path / "plain", device="cpu")
    on_ranks(2, train_compiled, compiled, tmp_path / "compiled")
    ours, theirs = (state(tmp_path / name)["model"] for name in ("compiled", "plain"))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-4, msg=name)


def test_only_transformers_are_compiled():
    with pytest.raises(ValueError, match=r"training\.compile is for Transformers, not for blstm"):
        Config.model_validate({"model": {"architecture": "blstm"}, "training": {"compile": True}})


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler .* training\.compile=false"):
        compile_blocks(make_model(), CPU)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="needs the package triton"):
        compile_blocks(make_model(), torch.device("cuda"))
