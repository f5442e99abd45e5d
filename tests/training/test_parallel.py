"""Trainings with several processes, compared with one process."""

import os

import pytest
import torch

from asrtool.distributed import SINGLE_PROCESS, Ranks, pin_local_ranks, process_group, this_rank
from asrtool.errors import AsrtoolError, UserError
from asrtool.machine import share_of_cores
from asrtool.training.parallel import Strategy, bucket_megabytes
from asrtool.training.strategy import create_strategy
from asrtool.training.train import train
from tests.training import kill_and_resume

PLAIN = {"max_steps": 6, "validate_every": 3, "log_every": 1}


@pytest.fixture
def trained(tmp_path, tiny_config, on_ranks, state):
    """trained(2, "name", strategy="ddp", ...) -> the experiment folder, trained by so many ranks"""

    def run(ranks, name, resume=False, training=(), **parallel):
        config = tiny_config(training=PLAIN | dict(training), parallel=parallel)
        if ranks == 1:
            train(config, tmp_path / name, resume, "cpu")
        else:
            on_ranks(ranks, train, config, tmp_path / name, resume, "cpu")
        return tmp_path / name

    return run


def weights(experiment, state):
    """All weights but the biases of keys: attention does not depend on them, so that Adam amplifies rounding errors."""
    model = state(experiment)["model"]
    for name, tensor in model.items():
        if name.endswith("qkv.bias"):
            tensor[len(tensor) // 3 : 2 * len(tensor) // 3] = 0
    return torch.cat([tensor.flatten().double() for tensor in model.values()])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one_rank_that_accumulates_two_batches(trained, state, rows, strategy):
    one, two = trained(1, "one", training={"accumulate_grad_batches": 2}), trained(2, "two", strategy=strategy)
    torch.testing.assert_close(weights(one, state), weights(two, state), rtol=0, atol=1e-5)
    assert state(one)["progress"]["position"] == state(two)["progress"]["position"]
    assert state(one)["progress"]["seconds"] == pytest.approx(state(two)["progress"]["seconds"])
    for a, b in zip(rows(one, "train", "dev"), rows(two, "train", "dev"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_ranks_that_accumulate_batches_equal_one_rank_with_all_of_them(trained, state):
    one = trained(1, "one", training={"accumulate_grad_batches": 4})
    two = trained(2, "two", training={"accumulate_grad_batches": 2})
    torch.testing.assert_close(weights(one, state), weights(two, state), rtol=0, atol=1e-5)


def test_compressed_gradients_give_nearly_the_same_weights(trained, state):
    plain, sent = trained(2, "plain"), trained(2, "sent", gradient_compression="fp16")
    difference = (weights(plain, state) - weights(sent, state)).abs().max()
    assert 0 < difference < 1e-2


def test_ddp_trains_with_layer_drop(tmp_path, tiny_config, on_ranks):
    config = tiny_config(model={"layer_drop": 0.5, "layers": 3}, training=PLAIN)
    on_ranks(2, train, config, tmp_path / "exp", False, "cpu")
    assert (tmp_path / "exp/checkpoints/averaged.pt").is_file()


def test_bmuf_with_one_worker_equals_ddp(trained, state):
    plain = trained(2, "plain")
    bmuf = trained(2, "bmuf", strategy="bmuf", ranks_per_worker=2, block_steps=3)
    torch.testing.assert_close(weights(plain, state), weights(bmuf, state), rtol=0, atol=1e-6)


def block_ends(config, folder):
    """Train; this rank's weights after each block."""
    from asrtool.training.bmuf import Bmuf

    seen, finish_block = [], Bmuf.finish_block

    def noted(self, model, optimizer):
        finish_block(self, model, optimizer)
        states = [tensor for state in optimizer.state.values() for tensor in state.values()]
        seen.append(torch.cat([t.detach().flatten() for t in (*model.parameters(), *states)]).numpy().tobytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bmuf, "finish_block", noted)
        train(config, folder, device="cpu")
    return seen


@pytest.mark.parametrize("nesterov", [False, True])
def test_all_ranks_have_the_same_bits_after_every_block(tmp_path, tiny_config, on_ranks, nesterov):
    parallel = {"strategy": "bmuf", "ranks_per_worker": 2, "block_steps": 2, "nesterov": nesterov}
    config = tiny_config(training=PLAIN | {"max_steps": 5}, parallel=parallel)
    results = on_ranks(4, block_ends, config, tmp_path / "exp")
    assert [len(seen) for seen in results] == [3] * 4  # after steps 2, 4 and, at the end, 5
    assert all(seen == results[0] for seen in results)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_all_ranks_have_the_same_bits_though_workers_skip_different_layers(tmp_path, tiny_config, on_ranks, optimizer):
    """Some have not been updated by any worker, or by one only, when the first blocks end."""
    config = tiny_config(
        model={"layer_drop": 0.8, "layers": 4},
        training=PLAIN | {"max_steps": 4, "optimizer": optimizer},
        parallel={"strategy": "bmuf", "ranks_per_worker": 1, "block_steps": 1, "block_lr": 0.5},
    )
    one, other = on_ranks(2, block_ends, config, tmp_path / "exp")
    assert one == other and len(one) == 4


@pytest.mark.parametrize("strategy", ["fsdp", "bmuf"])
def test_other_numbers_of_ranks_continue_a_training(trained, state, strategy):
    """One process has neither shards nor a block filter."""
    settings = {"strategy": strategy, "ranks_per_worker": 1, "block_steps": 1, "block_momentum": 0.0}
    for ranks, steps in ((1, 2), (2, 4), (1, 5)):
        changes = {"schedule": "none", "warmup_steps": 0, "max_steps": steps}
        experiment = trained(ranks, "exp", resume=True, training=changes, **settings)
        saved = state(experiment)
        assert saved["progress"]["step"] == steps
        assert {float(moments["step"]) for moments in saved["optimizer"]["state"].values()} == {steps}


@pytest.mark.parametrize("moments", ["average", "reset"])
def test_bmuf_without_momentum_is_the_mean_of_the_workers(tmp_path, tiny_config, on_ranks, moments):
    parallel = {
        "strategy": "bmuf",
        "ranks_per_worker": 1,
        "block_steps": 3,
        "block_momentum": 0.0,
        "block_moments": moments,
    }
    config = tiny_config(training=PLAIN | {"max_steps": 3}, parallel=parallel)
    (before, after), (other, same) = on_ranks(2, around_last_block, config, tmp_path / "exp")
    assert (before != other).any() and (after == same).all()
    assert after == pytest.approx((before + other) / 2, abs=1e-6)


def around_last_block(config, folder):
    """Train; this rank's weights before and after the last block."""
    from asrtool.training.bmuf import Bmuf

    seen, finish_block = [], Bmuf.finish_block

    def noted(self, model, optimizer):
        for act in (lambda: None, lambda: finish_block(self, model, optimizer)):
            act()
            seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]).numpy())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bmuf, "finish_block", noted)
        train(config, folder, device="cpu")
    return seen[-2:]


@pytest.mark.slow
def test_bmuf_resumes_to_the_same_bits(trained, state, same_training):
    settings = {"strategy": "bmuf", "ranks_per_worker": 1, "block_steps": 3, "nesterov": True}
    changes = {"schedule": "none"}
    whole = trained(2, "whole", training=changes, **settings)
    half = trained(2, "half", training=changes | {"max_steps": 3}, **settings)
    same_training(whole, trained(2, half.name, True, training=changes, **settings))


@pytest.mark.slow
def test_sharded_weights_and_their_average_resume_to_the_same_bits(trained, same_training):
    changes = {"schedule": "none", "ema_decay": 0.5, "average": "ema", "log_layers": True}
    whole = trained(2, "whole", training=changes, strategy="fsdp")
    half = trained(2, "half", training=changes | {"max_steps": 3}, strategy="fsdp")
    same_training(whole, trained(2, half.name, True, training=changes, strategy="fsdp"))


def test_another_number_of_ranks_continues_with_the_same_data(trained, state, tmp_path, capfd):
    trained(2, "exp", training={"max_steps": 3, "schedule": "none"})
    before = state(tmp_path / "exp")["progress"]
    trained(1, "exp", True, training={"max_steps": 4, "accumulate_grad_batches": 1, "schedule": "none"})
    assert "1 ranks continue where 2 stopped: the same data in the same order, other dropout" in capfd.readouterr().err
    after = state(tmp_path / "exp")["progress"]
    assert after["step"] == 4 and after["seconds"] > before["seconds"]


def test_an_error_of_the_first_rank_ends_all_ranks(tmp_path, tiny_config, on_ranks, capfd):
    config = tiny_config(data={"train": str(tmp_path / "none.jsonl.gz")})
    with pytest.raises(AsrtoolError):
        on_ranks(2, train, config, tmp_path / "exp", False, "cpu")


@pytest.mark.parametrize(
    "strategy, skips_layers, message",
    [
        ("none", False, "2 processes; use ddp, bmuf or fsdp"),
        ("fsdp", True, "use ddp or bmuf, or set model.layer_drop=0"),
    ],
)
def test_impossible_strategies_are_refused(tiny_config, strategy, skips_layers, message):
    with pytest.raises(UserError, match=message):
        create_strategy(tiny_config(parallel={"strategy": strategy}).parallel, Ranks(world_size=2), skips_layers)


@pytest.mark.parametrize("strategy", ["none", "ddp", "bmuf", "fsdp"])
def test_with_one_process_every_strategy_is_single_process(tiny_config, strategy):
    parallel = tiny_config(parallel={"strategy": strategy}).parallel
    assert type(create_strategy(parallel, SINGLE_PROCESS, skips_layers=False)) is Strategy


@pytest.mark.slow
def test_training_continues_after_torchrun_restarts_a_killed_rank(tmp_path):
    config = kill_and_resume.write_config(tmp_path, workers=0, steps=12)
    assert kill_and_resume.start(config, tmp_path / "whole", 2) == 0
    assert kill_and_resume.start(config, tmp_path / "killed", 2, "forward", 8, 1, restarts=1) == 0
    assert "resumed from" in (tmp_path / "killed.log").read_text(encoding="utf-8")
    assert kill_and_resume.compare(tmp_path / "whole", tmp_path / "killed") == []
    for rank, log in ((0, tmp_path / "whole.log"), (1, tmp_path / "whole/logs/rank-1.log")):
        assert log.read_text(encoding="utf-8").count("step 12: dev loss") == 1, rank


@pytest.mark.slow
@pytest.mark.parametrize("ranks, kills", [(1, 4), (2, 2)])
def test_killed_and_resumed_trainings_give_the_same_bits(tmp_path, ranks, kills):
    """A short version of what `python tests/training/kill_and_resume.py` does at length."""
    config = kill_and_resume.write_config(tmp_path, steps=20)
    assert kill_and_resume.kill_and_resume(config, tmp_path, ranks, kills) == []


def pinned_cores(given):
    """The cores and the number of threads of this rank, started with the cores `given`, before and after pinning."""
    with process_group(this_rank(), torch.device("cpu"), 60.0):
        before = os.sched_getaffinity(0)
        if given == "different" and this_rank().is_first and len(before) > 1:
            os.sched_setaffinity(0, {min(before)})
        before = sorted(os.sched_getaffinity(0))
        torch.set_num_threads(2)
        pin_local_ranks(this_rank(), torch.device("cpu"))
        return before, sorted(os.sched_getaffinity(0)), torch.get_num_threads()


@pytest.mark.parametrize("given", ["the same", "different"])
def test_ranks_of_a_machine_have_cores_of_their_own_unless_they_were_given_different_ones(on_ranks, given):
    results = on_ranks(2, pinned_cores, given)
    cores = results[0][0]
    is_shared = results[0][0] == results[1][0] and len(cores) > 1
    for rank, (before, after, threads) in enumerate(results):
        assert after == (sorted(share_of_cores(cores, rank, 2)) if is_shared else before)
        assert threads == (min(2, len(after)) if is_shared else 2)


def test_every_model_has_several_buckets_of_gradients_within_limits():
    assert bucket_megabytes(16 * 2**20) == 2.0
    assert bucket_megabytes(4 * 2**20) == 1.0
    assert bucket_megabytes(2**30) == 25.0
