"""Muon beside AdamW: which weights it updates and how, its state in checkpoints, trainings with several processes."""

import pytest
import torch

from asrtool.config import Config, ModelConfig, TrainingConfig
from asrtool.distributed import SINGLE_PROCESS, process_group, this_rank
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel, layer_matrices
from asrtool.models.info import model_info
from asrtool.training.muon import Muon, orthogonalise, share_out
from asrtool.training.optimizer import create_optimizer, set_learning_rate
from asrtool.training.resume import InitialWeights
from asrtool.training.start import start_session
from asrtool.training.train import train
from tests.training.test_parallel import PLAIN, block_ends, weights

MUON = TrainingConfig(optimizer="muon", lr=0.01, muon_lr_factor=3.0, weight_decay=0.1)


ARCHITECTURES = {"transformer": {}, "transformer_xl": {"chunk_size": 4, "memory": 4}, "blstm": {}}


def model(architecture="transformer"):
    torch.manual_seed(0)
    options = {"dim": 16, "layers": 2, "ff_dim": 32, "heads": 2} | ARCHITECTURES[architecture]
    return AcousticModel(ModelConfig(architecture=architecture, **options), 20, 7)


def names(model, weights):
    ids = {id(weight) for weight in weights}
    return {name for name, weight in model.named_parameters() if id(weight) in ids}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_muon_updates_the_matrices_of_all_layers_but_the_output_layer(architecture):
    network = model(architecture)
    by_muon = names(network, layer_matrices(network))
    assert {len(weight.shape) for name, weight in network.named_parameters() if name in by_muon} == {2}
    assert not any(name.startswith(("output", "subsampling.convolutions")) for name in by_muon)
    rest = {name for name, weight in network.named_parameters() if weight.ndim == 2} - by_muon
    assert "output.weight" in rest and not any(name.endswith(("qkv.weight", "feed_forward.0.weight")) for name in rest)
    optimizer = create_optimizer(network, MUON)
    assert sorted(len(group["params"]) for group in optimizer.param_groups if "momentum" in group) == [len(by_muon)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_memory_of_a_model_counts_what_its_optimizer_keeps(optimizer):
    sizes = {"dim": 16, "layers": 2, "ff_dim": 32, "heads": 2}
    config = Config.model_validate({"model": sizes, "training": {"optimizer": optimizer}})
    network = AcousticModel(config.model, config.features.num_bins, 7)
    made = create_optimizer(network, config.training)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    made.step()
    kept = [value for state in made.state.values() for value in state.values() if value.ndim]
    assert model_info(config, 7).optimizer_values == sum(value.numel() for value in kept)


def test_a_step_of_muon_changes_all_directions_of_a_matrix_alike():
    layer = torch.nn.Linear(24, 48, bias=False)
    optimizer = create_optimizer(layer, MUON)
    before = layer.weight.detach().clone()
    vectors = torch.linalg.qr(torch.randn(48, 24))[0]
    layer.weight.grad = vectors * torch.logspace(0, 1, 24)  # singular values from 1 to 10
    optimizer.step()
    update = layer.weight.detach() - before * (1 - 0.1 * 0.01)  # 0.01: the rate before the first set_learning_rate
    expected = -0.01 * 0.2 * 48**0.5 * vectors
    values = torch.linalg.svdvals(update / (0.01 * 0.2 * 48**0.5))
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(update.flatten(), expected.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("lacks_bf16", [True, False])
@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_steps_are_those_of_the_muon_of_torch(monkeypatch, lacks_bf16, shape):
    """That one computes in bf16 on every processor."""
    monkeypatch.setattr("asrtool.training.muon.lacks_bf16", lambda device: lacks_bf16)
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.02, lr_factor=1.0, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    rounding = 0.03 if lacks_bf16 else 1e-3
    assert (ours - theirs).norm() < rounding * (theirs - start).norm()


def test_matrices_are_orthogonalised_without_bf16_where_the_processor_lacks_it(monkeypatch):
    monkeypatch.setattr("asrtool.training.muon.lacks_bf16", lambda device: True)
    assert orthogonalise(torch.randn(4, 8)).dtype == torch.float32
    monkeypatch.setattr("asrtool.training.muon.lacks_bf16", lambda device: False)
    assert orthogonalise(torch.randn(4, 8)).dtype == torch.bfloat16


def test_a_matrix_without_gradient_stays_zero_and_finite():
    assert torch.equal(orthogonalise(torch.zeros(3, 5)).float(), torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("costs", "num_ranks", "owners"), [([5, 1, 1, 4], 2, [0, 1, 0, 1]), ([2], 3, [0]), ([], 2, [])]
)
def test_tasks_are_shared_out_by_their_cost(costs, num_ranks, owners):
    assert share_out(costs, num_ranks) == owners


def updated_together(shapes):
    """What two steps of Muon make of matrices of these shapes: all ranks together, and one process."""
    ranks = this_rank()
    with process_group(ranks, torch.device("cpu"), 60):
        return [updated(shapes, sharing_ranks) for sharing_ranks in (ranks, SINGLE_PROCESS)]


def updated(shapes, ranks):
    """The weights after two steps, one after the other; the last one, as of a layer left out, has no gradient."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in [*shapes, (2, 2)]]
    optimizer = Muon(weights, lr=0.02, lr_factor=1.0, weight_decay=0.1, ranks=ranks)
    for _ in range(2):
        for weight in weights[:-1]:
            weight.grad = torch.randn(weight.shape)
        optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in weights]).numpy()


@pytest.mark.parametrize("shapes", [[(4, 4), (8, 3), (3, 8), (6, 6)], [(4, 8)]])
def test_ranks_share_the_updates_of_muon_and_have_the_same_bits(on_ranks, shapes):
    (shared, alone), (shared_by_second, _) = on_ranks(2, updated_together, shapes)
    assert (shared == shared_by_second).all() and (shared == alone).all()


def test_the_learning_rate_of_muon_is_the_others_times_its_factor():
    optimizer = create_optimizer(model(), MUON)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [1.5, 0.5, 0.5]


def test_other_weights_are_updated_as_by_adamw():
    networks = [model(), model()]
    x, lens = torch.randn(2, 40, 20), torch.tensor([40, 30])
    for network, optimizer_name in zip(networks, ["adamw", "muon"], strict=True):
        optimizer = create_optimizer(network, MUON.model_copy(update={"optimizer": optimizer_name}))
        network.eval()(x, lens)[0].square().sum().backward()
        optimizer.step()
    adamw, muon = (dict(network.named_parameters()) for network in networks)
    by_muon = names(networks[1], layer_matrices(networks[1]))
    assert {name for name in adamw if not torch.equal(adamw[name], muon[name])} == by_muon


@pytest.mark.parametrize("strategy", ["none", "bmuf", "fsdp"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, tiny_config, on_ranks, same_training, strategy):
    def run(folder, steps, resume=False):
        training = PLAIN | {"optimizer": "muon", "schedule": "none", "max_steps": steps}
        config = tiny_config(training=training, parallel={"strategy": strategy, "block_steps": 3})
        if strategy == "none":
            train(config, tmp_path / folder, resume, "cpu")
        else:
            on_ranks(2, train, config, tmp_path / folder, resume, "cpu")

    run("whole", 6)
    run("resumed", 3)
    run("resumed", 6, resume=True)
    same_training(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize(("strategy", "difference"), [("ddp", 0.02), ("fsdp", 0.15)])
def test_two_ranks_equal_one_rank_with_two_batches(tmp_path, tiny_config, on_ranks, state, strategy, difference):
    """Up to the rounding of Muon's products, in bf16 on some processors, which are sums over shards with fsdp."""
    settings = PLAIN | {"optimizer": "muon", "max_steps": 3, "warmup_steps": 1}
    start = tiny_config(training=settings | {"lr": 1e-9})
    train(start, tmp_path / "start", device="cpu")
    one = tiny_config(training=settings | {"accumulate_grad_batches": 2})
    train(one, tmp_path / "one", device="cpu")
    two = tiny_config(training=settings, parallel={"strategy": strategy})
    on_ranks(2, train, two, tmp_path / "two", False, "cpu")
    before, one, two = (weights(tmp_path / name, state) for name in ("start", "one", "two"))
    assert (one - two).norm() < difference * (one - before).norm()


@pytest.mark.parametrize("moments", ["average", "reset"])
def test_all_bmuf_ranks_have_the_same_bits_after_every_block(tmp_path, tiny_config, on_ranks, moments):
    parallel = {"strategy": "bmuf", "ranks_per_worker": 1, "block_steps": 2, "block_moments": moments}
    config = tiny_config(training=PLAIN | {"max_steps": 5, "optimizer": "muon"}, parallel=parallel)
    results = on_ranks(2, block_ends, config, tmp_path / "exp")
    assert [len(seen) for seen in results] == [3, 3] and results[0] == results[1]


def test_the_moments_of_another_optimizer_are_refused(tmp_path, tiny_config):
    train(tiny_config(training=PLAIN), tmp_path / "adamw", device="cpu")
    initial = InitialWeights(tmp_path / "adamw/checkpoints/best.pt", with_optimizer=True)
    with pytest.raises(UserError, match="has the moments of .adamw."):
        train(tiny_config(training=PLAIN | {"optimizer": "muon"}), tmp_path / "muon", device="cpu", initial=initial)


def started_options(config, experiment, checkpoint):
    """Returns the options of each group of the optimizer that a session starts with, and the number of moments.

    The session has the moments of `checkpoint`.
    """
    ranks = this_rank()
    with process_group(ranks, torch.device("cpu"), 60.0):
        session = start_session(config, experiment, ranks, "cpu", initial=InitialWeights(checkpoint, True))
        names = ("weight_decay", "betas", "lr_factor")
        groups = session.optimizer.param_groups
        options = [{name: group[name] for name in names if name in group} for group in groups]
        return options, len(session.optimizer.state)


OPTIONS = [("adamw", "none"), ("muon", "none"), ("adamw", "fsdp")]


@pytest.mark.parametrize(("optimizer", "strategy"), OPTIONS)
def test_the_moments_of_another_training_come_without_its_options(tmp_path, tiny_config, on_ranks, optimizer, strategy):
    """Weight decay, betas and the factor of Muon's learning rate are taken from the new training."""
    plain = PLAIN | {"max_steps": 3, "optimizer": optimizer}
    train(tiny_config(training=plain), tmp_path / "base", device="cpu")
    changed = plain | {"weight_decay": 0.5, "betas": [0.8, 0.9], "muon_lr_factor": 2.0}
    config = tiny_config(training=changed, parallel={"strategy": strategy})
    base = tmp_path / "base/checkpoints/best.pt"
    if strategy == "fsdp":
        (options, moments), _ = on_ranks(2, started_options, config, tmp_path / "exp", base)
    else:
        options, moments = started_options(config, tmp_path / "exp", base)
    assert moments > 0
    adamw = [{"weight_decay": 0.5, "betas": (0.8, 0.9)}, {"weight_decay": 0.0, "betas": (0.8, 0.9)}]
    muon = [{"weight_decay": 0.5, "lr_factor": 2.0}] if optimizer == "muon" else []
    assert [group | ({"betas": tuple(group["betas"])} if "betas" in group else {}) for group in options] == muon + adamw
