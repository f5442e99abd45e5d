"""Numbers that are not finite never pass for a result: dev losses, trainings that learn nothing, broken weights."""

import json
import math

import pytest
import torch

from asrtool.errors import DataError, UserError
from asrtool.training import step, validation
from asrtool.training import train as module
from asrtool.training.state import TrainingProgress
from asrtool.training.train import train


@pytest.fixture
def run(tmp_path, tiny_config):
    def run(name="exp", **changes):
        train(tiny_config(**changes), tmp_path / name, device="cpu")
        return tmp_path / name

    return run


@pytest.fixture
def losses(monkeypatch):
    """losses(function): training and validation use the losses that function(model, batch, losses) returns."""

    def change(function):
        real = step.batch_loss

        def changed(model, batch, *rest):
            return function(model, batch, real(model, batch, *rest))

        for module_with_loss in (step, validation):
            monkeypatch.setattr(module_with_loss, "batch_loss", changed)

    return change


def bad_dev_cuts(*bad):
    """Losses that are not finite for dev cuts whose names end with one of `bad`."""

    def function(model, batch, losses):
        if model.training:
            return losses
        spoilt = [math.nan if name.endswith(bad) else 1.0 for name in batch.ids]
        return losses * torch.tensor(spoilt)

    return function


def test_a_dev_cut_without_a_finite_loss_is_logged_and_left_out_of_the_mean(run, rows, losses, capfd):
    losses(bad_dev_cuts("-07"))
    experiment = run()
    stderr = capfd.readouterr().err
    assert "step 4, 1 cuts of" in stderr and "they are left out of the dev loss: b-07" in stderr
    dev_losses = [row["loss"] for row in rows(experiment, "dev")]
    assert len(dev_losses) == 2 and all(math.isfinite(loss) for loss in dev_losses)
    assert all(math.isfinite(row["loss"]) for row in rows(experiment, "finished"))


def test_the_dev_loss_equals_the_loss_of_the_set_without_the_bad_cut(run, rows, losses, monkeypatch):
    losses(bad_dev_cuts("-07"))
    with_it = [row["loss"] for row in rows(run("with"), "dev")]
    sampler = validation.OrderedSampler
    monkeypatch.setattr(
        validation,
        "OrderedSampler",
        lambda path, seconds, dropped, ranks: sampler(path, seconds, dropped | {"b-07"}, ranks),
    )
    assert [row["loss"] for row in rows(run("without"), "dev")] == pytest.approx(with_it, rel=1e-5)


def test_a_dev_set_without_any_finite_loss_stops_training_and_names_its_cuts(run, losses):
    losses(bad_dev_cuts(*map(str, range(10))))
    with pytest.raises(DataError, match="at step 4, 24 cuts of .* and no others are left") as caught:
        run()
    assert "b-07" in caught.value.problems


def test_a_training_with_only_bad_steps_is_an_error(run, losses, tmp_path):
    losses(lambda model, batch, real: real * math.nan if model.training else real)
    with pytest.raises(
        UserError, match=r"the model learned nothing: all 8 steps were bad .*bad_steps\.jsonl, above all [abc]-"
    ):
        run()
    assert not (tmp_path / "exp/checkpoints/averaged.pt").exists()


def test_bad_steps_and_the_log_are_valid_json(run, losses):
    calls = []

    def spoil(model, batch, real):
        calls.append(model.training)
        return real * math.nan if model.training and sum(calls) == 3 else real

    losses(spoil)
    experiment = run(training={"log_every": 1})

    def refuse(name):
        raise AssertionError(name)

    for name in ("bad_steps.jsonl", "log.jsonl"):
        lines = (experiment / name).read_text(encoding="utf-8").splitlines()
        assert lines and all(json.loads(line, parse_constant=refuse) for line in lines)
    (row,) = map(json.loads, (experiment / "bad_steps.jsonl").read_text().splitlines())
    assert set(row["losses"].values()) == {None} and row["problem"] == "loss nan"


def test_weights_that_are_not_finite_are_not_saved_but_rolled_back(run, rows, monkeypatch, state):
    """A learning rate that is far too high can leave such weights after a step with a good loss."""
    real, calls = module.training_step, []

    def changed_step(session, batches):
        values = real(session, batches)
        calls.append(session.progress.step)
        if len(calls) == 8:
            session.model.output.bias.data.fill_(math.inf)
        return values

    monkeypatch.setattr(module, "training_step", changed_step)
    experiment = run()
    (back,) = rows(experiment, "rollback")
    assert (back["step"], back["to"]) == (8, 4)
    assert all(weight.isfinite().all() for weight in state(experiment)["model"].values())


def test_weights_that_are_not_finite_stop_a_training_without_a_checkpoint(run, monkeypatch):
    real = module.training_step

    def changed_step(session, batches):
        values = real(session, batches)
        session.model.output.bias.data.fill_(math.nan)
        return values

    monkeypatch.setattr(module, "training_step", changed_step)
    with pytest.raises(UserError, match="weights that are not finite after step 1; lower training.lr"):
        run(training={"validate_every": 1})


def test_patience_counts_from_the_best_finite_loss():
    progress = TrainingProgress(dev_losses={1: math.nan, 2: 3.0, 3: math.nan, 4: 4.0})
    assert progress.patience_is_over(2) and not progress.patience_is_over(3)
    assert not TrainingProgress(dev_losses={1: math.nan}).patience_is_over(1)


def test_a_cut_dropped_from_dev_stays_in_train(run, corpus, tmp_path):
    """Ids may be the same in both sets, since they default to file names."""
    from lhotse import CutSet

    cuts = list(CutSet.from_file(corpus))
    train_cuts = [cut for cut in cuts if 0.7 < cut.duration < 2.0]
    too_short = train_cuts[0].truncate(duration=0.05, preserve_id=True)
    CutSet.from_cuts(train_cuts).to_file(tmp_path / "train.jsonl.gz")
    CutSet.from_cuts([too_short, *train_cuts[1:4]]).to_file(tmp_path / "dev.jsonl.gz")
    seen = set()
    real = module.training_step

    def changed_step(session, batches):
        seen.update(name for batch in batches for name in batch.ids)
        return real(session, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "training_step", changed_step)
        experiment = run(data={"train": str(tmp_path / "train.jsonl.gz"), "dev": str(tmp_path / "dev.jsonl.gz")})
    assert train_cuts[0].id in seen
    (line,) = (experiment / "dropped.txt").read_text().splitlines()
    assert line.startswith(f"dev {train_cuts[0].id}: ")
