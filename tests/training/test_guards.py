"""Bad steps are left out and logged; many of them roll back or stop the training."""

import json
import math
from itertools import count, islice
from types import SimpleNamespace

import pytest
import torch
from lhotse import CutSet

from asrtool.config import GuardsConfig
from asrtool.config_file import load_config
from asrtool.data.batch_cost import UtteranceCost
from asrtool.data.sampling import TrainingSampler
from asrtool.errors import UserError
from asrtool.models.cost import attention_seconds
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training import step as module
from asrtool.training.guards import MIN_GOOD_STEPS, LossGuard
from asrtool.training.session import Session
from asrtool.training.train import train


@pytest.fixture
def run(tmp_path, tiny_config):
    """run("exp", training={...}) -> the experiment folder, trained"""

    def run(name="exp", **changes):
        train(tiny_config(**changes), tmp_path / name, device="cpu")
        return tmp_path / name

    return run


@pytest.fixture
def spoil(monkeypatch):
    """spoil({3: nan, ...}) or spoil(function of the call): the losses of these training batches times so much."""

    def arrange(factors):
        real, calls = module.batch_loss, []

        def spoilt(model, batch, *rest):
            if not model.training:
                return real(model, batch, *rest)
            calls.append(batch.ids)
            factor = factors(len(calls)) if callable(factors) else factors.get(len(calls), 1)
            return real(model, batch, *rest) * factor

        monkeypatch.setattr(module, "batch_loss", spoilt)
        return calls

    return arrange


def settled(mean=1.0, deviation=0.1) -> LossGuard:
    """A guard after many losses that lie evenly on both sides of the mean."""
    guard = LossGuard()
    for number in range(5 * MIN_GOOD_STEPS):
        assert guard.problem(GuardsConfig(), mean + deviation * (-1) ** number, 1.0) is None
    return guard


def test_a_loss_is_a_spike_beyond_loss_spike_std_deviations_above_the_mean():
    guard = settled()
    assert guard.mean == pytest.approx(1.0, abs=0.01) and math.sqrt(guard.variance) == pytest.approx(0.1, rel=0.02)
    assert guard.problem(GuardsConfig(loss_spike_std=5), 1.45, 1.0) is None
    assert "5 standard deviations above its running mean" in settled().problem(
        GuardsConfig(loss_spike_std=5), 1.55, 1.0
    )


def test_a_bad_loss_does_not_change_mean_and_variance():
    guard = settled()
    before = guard.mean, guard.variance
    for bad in (math.nan, math.inf, 50.0):
        assert guard.problem(GuardsConfig(), bad, 1.0)
    assert (guard.mean, guard.variance) == before
    assert (guard.bad_steps, guard.bad_in_a_row) == (3, 3)
    assert guard.problem(GuardsConfig(), 1.0, math.inf) == "gradient norm inf"
    assert guard.problem(GuardsConfig(), 1.0, 1.0) is None and guard.bad_in_a_row == 0


def test_a_falling_loss_is_never_a_spike():
    guard = LossGuard()
    assert all(guard.problem(GuardsConfig(loss_spike_std=3), 50 * 0.99**step, 1.0) is None for step in range(1000))


def test_the_first_losses_are_never_spikes():
    guard = LossGuard()
    assert all(guard.problem(GuardsConfig(), float(loss), 1.0) is None for loss in (1, 1, 1, 1000))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_step_is_left_out_and_logged_with_its_cuts(run, rows, state, spoil, capfd, bad):
    calls = spoil({3: bad})
    experiment = run()
    (row,) = map(json.loads, (experiment / "bad_steps.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["step"] == 3 and sorted(row["not_finite"]) == sorted(row["losses"]) == sorted(calls[2])
    stderr = capfd.readouterr().err
    assert "step 3 left out: loss" in stderr and calls[2][0] in stderr
    assert rows(experiment, "train")[-1]["bad_steps"] == 1 and rows(experiment, "train")[-1]["step"] == 8
    assert all(weight.isfinite().all() for weight in state(experiment)["model"].values())


def test_a_bad_step_changes_no_weight(run, state, spoil):
    spoil({2: math.nan})
    experiment = run(
        training={"max_steps": 2, "validate_every": 1, "warmup_steps": 1, "keep_best": 9, "schedule": "none"}
    )
    one, two = (state(experiment, f"step-0000000{step}") for step in (1, 2))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert two["progress"]["step"] == 2 and two["progress"]["seconds"] > one["progress"]["seconds"]


def test_many_bad_steps_roll_back_to_the_last_checkpoint_and_continue_with_the_next_data(run, rows, spoil):
    calls = spoil({6: math.nan, 7: math.nan})
    experiment = run(guards={"max_bad_steps": 2}, training={"log_every": 1, "schedule": "none", "max_steps": 8})
    (back,) = rows(experiment, "rollback")
    assert (back["step"], back["to"]) == (7, 4)
    rates = [(row["step"], row["lr"]) for row in rows(experiment, "train")]
    assert rates[-4:] == [(step, pytest.approx(1.5e-3)) for step in (5, 6, 7, 8)]  # half of 3e-3
    config = load_config(experiment / "config.yaml")
    cost = UtteranceCost(attention_seconds(config, load_tokenizer(config.data.tokenizer).size))
    stream = islice(TrainingSampler(config.data, config.seed, cost=cost), 7 + 4)
    assert [set(ids) for ids in calls] == [{entry.id for entry in item.entries} for item in stream]


def test_device_hours_count_the_time_of_steps_that_were_rolled_back(run, spoil, monkeypatch):
    ticks = count()  # a second passes from one look at the clock to the next
    monkeypatch.setattr("asrtool.training.clock.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    spoil({6: math.nan, 7: math.nan})
    experiment = run(guards={"max_bad_steps": 2}, training={"schedule": "none"})
    events = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events} > {"rollback", "finished"}
    assert 3600 * events[-1]["device_hours"] == pytest.approx(next(ticks) - 1)


def test_a_step_without_units_is_left_out(run, monkeypatch, capfd):
    """The scan drops such cuts, but not in the rest of very long manifests."""
    real = Session.step_batches

    def step_batches(session):
        for number, batches in enumerate(real(session), 1):
            if number == 3:
                for batch in batches:
                    batch.target_lens.zero_()
            yield batches

    monkeypatch.setattr(Session, "step_batches", step_batches)
    experiment = run(training={"max_steps": 4})
    (row,) = [json.loads(line) for line in (experiment / "bad_steps.jsonl").read_text().splitlines()]
    assert (row["step"], row["problem"]) == (3, "no cut has units")
    assert "step 3 left out: no cut has units" in capfd.readouterr().err


def test_training_stops_after_max_rollbacks(run, rows, spoil, tmp_path):
    spoil(lambda call: math.nan if call > 5 else 1)
    with pytest.raises(UserError, match=r"stopped after 2 rollbacks: 2 bad steps in a row .* lower training\.lr"):
        run(guards={"max_bad_steps": 2, "max_rollbacks": 2}, training={"max_steps": 40})
    assert [row["rollbacks"] for row in rows(tmp_path / "exp", "stopped")] == [2]


def test_many_bad_steps_stop_a_training_without_a_checkpoint(run, spoil):
    spoil(lambda call: math.inf)
    with pytest.raises(UserError, match="stopped with no checkpoint to roll back to: 10 bad steps in a row"):
        run(training={"max_steps": 40, "validate_every": 40})


class NoRoom(torch.autograd.Function):
    """Fails on the way back."""

    @staticmethod
    def forward(ctx, x, error):
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ctx.error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
@pytest.mark.parametrize("backward", [False, True])
def test_a_batch_that_runs_out_of_memory_is_split_in_two(run, state, monkeypatch, capfd, error, backward):
    """The update equals that of the whole batch, with the gradients of the other batches of the step."""
    settings = {"max_steps": 2, "validate_every": 2, "accumulate_grad_batches": 2, "warmup_steps": 1}
    expected = state(run("whole", training=settings))["model"]
    real, sizes = module.batch_loss, []

    def tight(model, batch, *rest):
        sizes.append(len(batch.ids))
        losses = real(model, batch, *rest)
        if len(sizes) != 2:
            return losses
        if backward:
            return NoRoom.apply(losses, error)
        raise error

    monkeypatch.setattr(module, "batch_loss", tight)
    weights = state(run("halved", training=settings))["model"]
    assert f"out of memory with {sizes[1]} utterances" in capfd.readouterr().err
    assert sizes[:5] == [sizes[0], sizes[1], sizes[0], -(-sizes[1] // 2), sizes[1] // 2]
    for name, tensor in expected.items():
        if not name.endswith("qkv.bias"):  # of keys: no gradient but rounding
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_unusable_cuts_behind_the_scanned_part_of_a_manifest_are_logged_in_training(
    run, rows, corpus, tmp_path, monkeypatch, capfd
):
    """Only the beginning of a long manifest is scanned before training starts."""
    monkeypatch.setattr("asrtool.data.inspection.MAX_CUTS", 3)
    cuts = list(CutSet.from_file(corpus))
    for cut, text in zip(cuts[3:6], ["", "five", "one two " * 500], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(tmp_path / "train.jsonl.gz")
    experiment = run(data={"train": str(tmp_path / "train.jsonl.gz")})
    message = "".join(line for line in capfd.readouterr().err.splitlines() if "not used: " in line)
    assert all(cut.id in message for cut in cuts[3:6]) and not any(cut.id in message for cut in cuts[:3] + cuts[6:])
    assert all(math.isfinite(row["loss"]) for row in rows(experiment, "train"))
    assert rows(experiment, "train")[-1]["bad_steps"] == 0


def test_one_utterance_that_runs_out_of_memory_is_an_error(run, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "batch_loss", full)
    with pytest.raises(torch.OutOfMemoryError):
        run()
