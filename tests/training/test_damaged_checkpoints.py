"""A checkpoint that is damaged, or holds what no training can go on from, is named, with what to do."""

import copy
import math
import shutil

import pytest
import torch

from asrtool import checkpoint
from asrtool.errors import UserError
from asrtool.tensor_files import DamagedFileError
from asrtool.training.checkpoint_folder import Checkpoints
from asrtool.training.train import train
from tests.tiny import make_config


@pytest.fixture(scope="module")
def config(corpus, tokenizer_file):
    def make(**training):
        changes = {"max_steps": 4, "validate_every": 2, "keep_best": 5, "warmup_steps": 1, "ema_decay": 0.9} | training
        return make_config(corpus, tokenizer_file, training=changes)

    return make


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "exp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asrtool.data.statistics.STATISTICS_SECONDS", 30.0)
        patch.setattr("asrtool.training.train.plot_losses", lambda *_: None)
        train(config(), folder, device="cpu")
    return folder


@pytest.fixture
def exp(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "exp")


def flip_a_bit_of_a_weight(path):
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["output.weight"]
    content[content.index(weight.numpy().tobytes()) + 3] ^= 0x40  # of the exponent
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit_of_a_weight,
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 5000),
    ],
    ids=["bit", "half", "byte_short", "empty", "zeros"],
)
def test_a_damaged_last_checkpoint_is_reported_with_the_one_to_resume_from(exp, config, damage):
    last = exp / "checkpoints/step-00000004.pt"
    damage(last)
    with pytest.raises(UserError) as caught:
        train(config(max_steps=6), exp, resume=True, device="cpu")
    message = str(caught.value)
    assert str(last) in message and "\n" not in message
    assert message.endswith(
        "delete step-00000004.pt and repeat the command: it resumes from step-00000002.pt, which is intact"
    )
    last.unlink()
    train(config(max_steps=6), exp, resume=True, device="cpu")
    assert Checkpoints(exp / "checkpoints", 1).last().name == "step-00000006.pt"


def test_if_no_checkpoint_is_intact_the_error_says_so(exp, config):
    for path in (exp / "checkpoints").glob("step-*.pt"):
        path.write_bytes(b"gone")
    with pytest.raises(UserError, match="no earlier one is intact"):
        train(config(max_steps=6), exp, resume=True, device="cpu")


def changed(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    checkpoint.save_checkpoint(path, state)


def put(*keys_and_value):
    """Puts a value at the place in a state that the keys lead to."""

    def change(state):
        *keys, last, value = keys_and_value
        for key in keys:
            state = state[key]
        state[last] = value(state[last]) if callable(value) else value

    return change


NAN = math.nan
WRONG = [  # what no training can go on from
    *[
        put(key, value)
        for key in ("optimizer", "progress", "ranks", "device_hours", "ema")
        for value in (None, "text", 3.5j)
    ],
    *[
        lambda state, key=key: state.pop(key)
        for key in ("optimizer", "progress", "ranks", "device_hours", "ema", "model")
    ],
    put("progress", "step", "4"),
    put("progress", "step", -1),
    put("progress", "step", True),
    put("progress", "seconds", NAN),
    put("progress", "position", [0, 0, 0]),
    put("progress", "position", [0, 0, 0, "1"]),
    put("progress", "dev_losses", {2: NAN}),
    put("progress", "dev_losses", {"two": 1.0}),
    put("progress", "manifest", 7),
    put("ranks", []),
    put("ranks", 0, "random", "torch", lambda state: state[:100]),
    put("ranks", 0, "random", "python", [3, [1, 2], None]),
    put("ranks", 0, "random", {}),
    put("ranks", 0, "guard", "mean", "low"),
    put("ranks", 0, "guard", {"good_steps": NAN}),
    put("ranks", 0, "unreported", [{"loss": "high"}]),
    put("ranks", 0, "unsynced_seconds", None),
    put("optimizer", "state", 0, "exp_avg", torch.zeros(3)),
    put("optimizer", "state", 0, "exp_avg_sq", lambda moment: moment * NAN),
    put("optimizer", "state", 0, "step", "4"),
    put("optimizer", "state", 0, {}),
    put("optimizer", "state", {999: {}}),
    put("optimizer", "param_groups", []),
    put("optimizer", "param_groups", 0, "betas", "high"),
    put("optimizer", "param_groups", 0, "eps", math.inf),
    put("ema", "weights", []),
    put("ema", "steps", "many"),
    put("ema", "weights", 0, lambda weight: weight * NAN),
    put("device_hours", math.inf),
    put("model", torch.zeros(3)),
    put("model", "output.bias", "text"),
    put("model", "output.bias", torch.zeros(5).to_sparse()),
    put("model", "output.bias", torch.zeros(5, dtype=torch.complex64)),
    put("model", "output.bias", torch.full((5,), NAN)),
    put("model", "output.weight", lambda weight: weight / 0.0),
    put("units", "abc"),
    put("units", [1, 2]),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_an_invalid_state_is_refused_before_any_of_it_is_used(exp, config, number):
    last = exp / "checkpoints/step-00000004.pt"
    changed(last, WRONG[number])
    with pytest.raises(DamagedFileError) as caught:
        train(config(max_steps=6), exp, resume=True, device="cpu")
    assert str(last) in str(caught.value) and "\n" not in str(caught.value)
    assert "it resumes from step-00000002.pt" in str(caught.value)


def test_loading_names_a_weight_that_is_not_finite(exp):
    best = exp / "checkpoints/best.pt"
    changed(best, put("model", "output.weight", lambda weight: weight / 0.0))
    with pytest.raises(UserError, match=r"best\.pt: output\.weight has values that are not finite"):
        checkpoint.load_checkpoint(best)


def test_weights_that_are_not_finite_are_not_averaged(exp, config):
    changed(exp / "checkpoints/step-00000002.pt", put("model", "output.bias", torch.full((5,), NAN)))
    checkpoints = Checkpoints(exp / "checkpoints", keep_best=2)
    before = (exp / "checkpoints/averaged.pt").read_bytes()
    with pytest.raises(UserError, match=r"step-00000002\.pt: output\.bias has values that are not finite"):
        checkpoints.average("best", {2: 1.0, 4: 2.0}, {"config": {}})
    with pytest.raises(UserError, match="not finite; it was not written"):
        checkpoints.write_averaged({"w": torch.full((1,), NAN)}, [], {"config": {}})
    assert (exp / "checkpoints/averaged.pt").read_bytes() == before


def test_files_with_similar_names_are_not_step_checkpoints(exp, config):
    for name in (
        "step-zzz.pt",
        "step-99999999.pt.bak",
        "step-9.pt",
        "step-999999999.pt",
        ".tmp-host-1-abc-step-00000009.pt",
    ):
        (exp / "checkpoints" / name).write_bytes(b"notes")
    assert Checkpoints(exp / "checkpoints", 1).last().name == "step-00000004.pt"
    train(config(max_steps=6), exp, resume=True, device="cpu")
    assert (exp / "checkpoints/step-zzz.pt").read_bytes() == b"notes"


def test_a_loss_that_is_not_finite_never_ranks_as_best(tmp_path):
    checkpoints, losses = Checkpoints(tmp_path, keep_best=2), {}
    for step, loss in enumerate([NAN, 3.0, math.inf, 2.0, NAN], 1):
        losses[step] = loss
        checkpoints.write(step, {"model": {"n": torch.tensor(step)}, "config": {}}, losses)
    assert [path.name for path in checkpoints.all()] == [f"step-0000000{step}.pt" for step in (2, 4, 5)]
    assert checkpoint.load_checkpoint(tmp_path / "best.pt")["model"]["n"] == 4


@pytest.mark.parametrize("name", ["step-00000002", "step-00000002.pt", "2", "00000002"])
def test_a_checkpoint_of_the_experiment_can_be_named_by_its_step(exp, name):
    assert checkpoint.find_checkpoint(exp, name) == exp / "checkpoints/step-00000002.pt"


def test_an_unknown_checkpoint_name_lists_the_existing_names(exp):
    with pytest.raises(UserError, match="checkpoint not found: 77; .*averaged, best, step-00000002, step-00000004"):
        checkpoint.find_checkpoint(exp, "77")


def test_no_memory_is_allocated_for_a_model_that_the_weights_do_not_fit(
    exp, config, tokenizer_file, corpus, monkeypatch
):
    best = exp / "checkpoints/best.pt"
    state = checkpoint.load_checkpoint(best)
    vast = make_config(corpus, tokenizer_file, model={"dim": 16, "heads": 2, "layers": 3, "ff_dim": 131_072})
    monkeypatch.setattr("torch.nn.init.kaiming_uniform_", lambda tensor, **_: tensor if tensor.is_meta else 1 / 0)
    with pytest.raises(UserError, match="does not fit the configuration"):
        checkpoint.build_model(vast.model, vast.features.num_bins, 5, state, best)


def test_a_model_with_too_many_parameters_is_refused_before_training(tiny_config, tmp_path):
    config = tiny_config(model={"dim": 16_384, "heads": 2, "layers": 4, "ff_dim": 131_072})
    with pytest.raises(UserError, match="the configured model has .* weights; at most"):
        train(config, tmp_path / "exp", device="cpu")


def test_resuming_a_complete_checkpoint_changes_nothing(exp, config):
    """The checks take what training writes, with a running mean and with steps that were left out."""
    before = copy.deepcopy(torch.load(exp / "checkpoints/step-00000004.pt", weights_only=True))
    changed(
        exp / "checkpoints/step-00000004.pt",
        put("ranks", 0, "unreported", [{"loss": NAN, "gradient_norm": 1.0, "lr": 1.0, "seconds": 1.0, "padded": 1.0}]),
    )
    train(config(), exp, resume=True, device="cpu")
    after = torch.load(exp / "checkpoints/step-00000004.pt", weights_only=True)
    assert torch.equal(after["model"]["output.weight"], before["model"]["output.weight"])
