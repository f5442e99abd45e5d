"""Warmup and main phase, beginning from another training, and trying one out."""

import shutil

import pytest
import torch

from asrtool.checkpoint import initial_checkpoint, load_checkpoint, save_checkpoint
from asrtool.config_file import save_config
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.packs.pack import PackSettings, write_pack
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training import train as module
from asrtool.training.resume import InitialWeights, save_session
from asrtool.training.start import start_session
from asrtool.training.train import dry_run, train
from tests.tiny import WORDS, equal

SECONDS = 40  # a bit more than the corpus has


@pytest.fixture
def warm(tmp_path, tiny_config):
    """A training that was ended by its warmup hours; the path of its warmup checkpoint."""
    config = tiny_config(training={"max_steps": 100, "validate_every": 50, "schedule": "none"})
    train(config, tmp_path / "warm", device="cpu", warmup_hours=SECONDS / 3600)
    return tmp_path / "warm/checkpoints/warmup.pt"


def test_a_warmup_ends_after_its_hours_of_audio(warm, rows, state):
    progress = state(warm.parents[1])["progress"]
    assert SECONDS <= progress["seconds"] < SECONDS + 10 and progress["step"] < 20
    assert rows(warm.parents[1], "dev")[-1]["step"] == progress["step"]
    assert torch.load(warm, weights_only=True)["progress"] == progress


def test_an_interrupted_warmup_resumes_to_the_same_bits(tmp_path, tiny_config, warm, same_training):
    config = tiny_config(training={"max_steps": 100, "validate_every": 50, "schedule": "none"})
    train(config, tmp_path / "again", device="cpu", warmup_hours=SECONDS / 2 / 3600)
    train(config, tmp_path / "again", resume=True, device="cpu", warmup_hours=SECONDS / 3600)
    weights = [torch.load(e, weights_only=True)["model"] for e in (warm, tmp_path / "again/checkpoints/warmup.pt")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_longer_warmup_has_no_checkpoint_of_the_shorter_one(tmp_path, tiny_config, warm, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "finish", stop)
    config = tiny_config(training={"max_steps": 100, "validate_every": 50, "schedule": "none"})
    with pytest.raises(KeyboardInterrupt):
        train(config, warm.parents[1], resume=True, device="cpu", warmup_hours=1.5 * SECONDS / 3600)
    assert not warm.exists() and not (warm.parent / "averaged.pt").exists()


@pytest.mark.parametrize("limit", [{"max_steps": 3}, {"max_steps": 50, "validate_every": 1, "patience": 1, "lr": 1e-9}])
def test_a_warmup_that_ends_before_its_hours_says_so(tmp_path, tiny_config, capfd, limit):
    config = tiny_config(training={"validate_every": 3, "schedule": "none"} | limit)
    train(config, tmp_path, device="cpu", warmup_hours=1.0)
    stderr = capfd.readouterr().err
    assert "of 1 hours of warmup: raise training.max_steps or training.patience" in stderr
    assert (tmp_path / "checkpoints/warmup.pt").is_file()


def test_a_warmup_on_several_machines_is_refused(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "this_rank", lambda: Ranks(rank=0, world_size=4, local_rank=0, local_world_size=2))
    with pytest.raises(UserError, match="a warmup runs on one machine"):
        train(tiny_config(), tmp_path / "exp", device="cpu", warmup_hours=1.0)


def begin(tmp_path, tiny_config, warm, steps=1, resume=False, **options):
    config = tiny_config(training={"max_steps": steps, "validate_every": 1, "warmup_steps": 0, "schedule": "none"})
    train(config, tmp_path / "main", resume, "cpu", InitialWeights(warm, **options))
    return tmp_path / "main"


def test_the_main_phase_takes_only_the_weights_by_default(tmp_path, tiny_config, warm, state, capfd):
    experiment = begin(tmp_path, tiny_config, warm)
    assert "its weights, a new optimizer, the schedule from its start" in capfd.readouterr().err
    progress = state(experiment)["progress"]
    assert progress["step"] == 1 and progress["initialised_from"] == str(warm)
    old, new = torch.load(warm, weights_only=True), state(experiment)
    moved = (old["model"]["output.weight"] - new["model"]["output.weight"]).abs().max()
    assert 0 < moved < 0.01  # one step from there, not another model
    assert torch.equal(old["model"]["normalise.mean"], new["model"]["normalise.mean"])
    assert new["optimizer"]["state"][0]["step"] == 1


def test_each_training_of_a_sequence_has_data_in_an_order_of_its_own(tmp_path, tiny_config, warm, state):
    """Also when it is resumed, and from whichever checkpoint of the training before it begins."""
    config = tiny_config(training={"max_steps": 4, "validate_every": 2, "warmup_steps": 0, "schedule": "none"})

    def digest(name, before=None, config=config, resume=False):
        train(config, tmp_path / name, resume, "cpu", before and InitialWeights(before))
        return state(tmp_path / name)["ranks"][0]["digest"]

    first, again = digest("first"), digest("again")
    second = digest("second", tmp_path / "first/checkpoints/averaged.pt")
    third = digest("third", tmp_path / "second/checkpoints/averaged.pt")
    assert first == again and len({first, second, third}) == 3
    assert digest("from a step", tmp_path / "first/checkpoints/step-00000004.pt") == second
    half = tiny_config(training={"max_steps": 2, "validate_every": 2, "warmup_steps": 0, "schedule": "none"})
    assert digest("resumed", tmp_path / "first/checkpoints/averaged.pt", half) != second
    assert digest("resumed", config=config, resume=True) == second


def test_a_training_from_a_pack_has_an_order_of_its_own(tmp_path, tiny_config, warm, state):
    config = tiny_config(training={"max_steps": 2, "validate_every": 2, "warmup_steps": 0, "schedule": "none"})
    train(config, tmp_path / "second", device="cpu", initial=InitialWeights(warm))
    write_pack(open_experiment(tmp_path / "second", device="cpu"), tmp_path / "pack", {}, PackSettings())
    train(config, tmp_path / "third", device="cpu", initial=InitialWeights(initial_checkpoint(tmp_path / "pack")))
    assert [state(tmp_path / name)["progress"]["earlier_trainings"] for name in ("second", "third")] == [1, 2]


def test_the_main_phase_can_take_moments_and_schedule(tmp_path, tiny_config, warm, state, capfd):
    before = torch.load(warm, weights_only=True)
    step = before["progress"]["step"]
    experiment = begin(tmp_path, tiny_config, warm, steps=step + 1, with_optimizer=True, with_schedule=True)
    message = f"its weights, the moments of its optimizer, its schedule from step {step} on"
    assert message in capfd.readouterr().err
    after = state(experiment)
    assert after["progress"]["step"] == step + 1
    assert after["optimizer"]["state"][0]["step"] == before["optimizer"]["state"][0]["step"] + 1


def test_a_schedule_that_is_over_leaves_no_training(tmp_path, tiny_config, warm):
    step = torch.load(warm, weights_only=True)["progress"]["step"]
    for start in (train, dry_run):
        config = tiny_config(training={"max_steps": step, "warmup_steps": 0})
        with pytest.raises(UserError, match=f"is of step {step}, and training.max_steps={step} leaves no step"):
            start(config, tmp_path / "main", device="cpu", initial=InitialWeights(warm, with_schedule=True))


def test_a_dry_run_takes_two_steps_of_the_schedule_of_another_training(tmp_path, tiny_config, warm, capfd):
    step = torch.load(warm, weights_only=True)["progress"]["step"]
    config = tiny_config(training={"max_steps": step + 9})
    dry_run(config, tmp_path / "main", "cpu", InitialWeights(warm, with_schedule=True))
    stderr = capfd.readouterr().err
    assert f"step {step + 1} epoch" in stderr and f"step {step + 2}: dev loss" in stderr


def test_the_average_over_all_steps_begins_with_the_initial_weights(tmp_path, tiny_config, warm):
    config = tiny_config(training={"ema_decay": 0.5})
    session = start_session(config, tmp_path / "main", SINGLE_PROCESS, "cpu", initial=InitialWeights(warm))
    assert equal(list(session.model.parameters()), session.ema.weights)


def test_a_resumed_training_does_not_load_the_initial_weights_again(tmp_path, tiny_config, warm, state, capfd):
    begin(tmp_path, tiny_config, warm)
    capfd.readouterr()
    experiment = begin(tmp_path, tiny_config, warm, steps=2, resume=True)
    stderr = capfd.readouterr().err
    assert f"resumed from {experiment}" in stderr and f"it was initialised from {warm}" in stderr
    assert "its weights" not in stderr
    assert state(experiment)["progress"]["step"] == 2


@pytest.mark.parametrize("name", ["other.pt", "gone.pt"])
def test_initial_weights_are_not_used_by_a_training_that_is_resumed(tmp_path, tiny_config, warm, state, capfd, name):
    """The other experiment may have ended since, or be deleted; a warning says that its weights are not used."""
    begin(tmp_path, tiny_config, warm)
    if name == "other.pt":
        (warm.parent / name).write_bytes(warm.read_bytes())
    experiment = begin(tmp_path, tiny_config, warm.parent / name, steps=2, resume=True)
    assert f"{name} is not used: {experiment} is resumed from its checkpoint" in capfd.readouterr().err
    assert state(experiment)["progress"]["initialised_from"] == str(warm)


def test_the_same_command_is_resumed_when_the_experiment_it_started_from_has_ended(tmp_path, tiny_config, asr, warm):
    """`--init-from EXP` is its best checkpoint first, and then its average."""
    base = warm.parents[1]
    averaged = (warm.parent / "averaged.pt").rename(tmp_path / "averaged.pt")
    config = tiny_config(training={"max_steps": 1, "validate_every": 1, "warmup_steps": 0, "schedule": "none"})
    save_config(config, tmp_path / "c.yaml")
    command = ["train", tmp_path / "c.yaml", "--exp", tmp_path / "main", "--device", "cpu", "--init-from", base]
    assert asr(*command)[0] == 0
    averaged.rename(warm.parent / "averaged.pt")
    assert asr(*command, "--resume")[0] == 0
    shutil.rmtree(base)
    assert asr(*command, "--resume")[0] == 0


def test_a_checkpoint_with_only_weights_has_no_moments_to_load(tmp_path, tiny_config, warm):
    with pytest.raises(UserError, match="has only weights; leave --init-optimizer"):
        begin(tmp_path, tiny_config, warm.parent / "averaged.pt", with_optimizer=True)
    begin(tmp_path, tiny_config, warm.parent / "averaged.pt")


def test_weights_of_another_model_are_refused(tmp_path, tiny_config, warm):
    config = tiny_config(model={"dim": 24})
    with pytest.raises(UserError, match="does not fit the configuration"):
        train(config, tmp_path / "other", device="cpu", initial=InitialWeights(warm))


@pytest.fixture
def begun(tmp_path, tiny_config):
    """Writes the checkpoint of a training that has taken no step, whose configuration has the changes; returns it."""

    def write(**changes):
        session = start_session(tiny_config(**changes), tmp_path / "begun", SINGLE_PROCESS, "cpu")
        session.progress.step = 3
        return save_session(session)

    return write


@pytest.mark.parametrize(("trained", "wanted"), [("adamw", "muon"), ("muon", "adamw")])
def test_moments_of_another_optimizer_are_refused(tmp_path, tiny_config, begun, trained, wanted):
    checkpoint = begun(training={"optimizer": trained})
    config = tiny_config(training={"optimizer": wanted})
    both = InitialWeights(checkpoint, with_optimizer=True, with_schedule=True)
    message = f"has the moments of '{trained}', and training.optimizer is {wanted}; leave --init-optimizer out"
    with pytest.raises(UserError, match=message):
        start_session(config, tmp_path / "main", SINGLE_PROCESS, "cpu", initial=both)
    schedule = InitialWeights(checkpoint, with_schedule=True)
    session = start_session(config, tmp_path / "main", SINGLE_PROCESS, "cpu", initial=schedule)
    assert session.progress.step == 3


def test_a_new_output_layer_can_have_the_schedule_of_another_training(tmp_path, tiny_config, begun):
    tokenizer = tmp_path / "other.json"
    save_tokenizer(train_tokenizer("word", [*WORDS, "five"]), tokenizer)
    initial = InitialWeights(begun(), with_schedule=True, new_output=True)
    config = tiny_config(data={"tokenizer": str(tokenizer)})
    session = start_session(config, tmp_path / "main", SINGLE_PROCESS, "cpu", initial=initial)
    assert session.progress.step == 3 and len(session.model.output.bias) == 6


@pytest.mark.parametrize(
    ("trained", "wanted", "is_kept"),
    [("none", "global", False), ("global", "utterance", False), ("global", "global", True), ("global", "none", True)],
)
def test_statistics_of_another_normalisation_are_measured_again(tmp_path, tiny_config, begun, trained, wanted, is_kept):
    checkpoint = begun(model={"normalise": trained})
    state = load_checkpoint(checkpoint)
    state["model"]["normalise.mean"] = torch.full((20,), 7.0)
    save_checkpoint(checkpoint, state)
    initial = InitialWeights(checkpoint)
    config = tiny_config(model={"normalise": wanted})
    model = start_session(config, tmp_path / "main", SINGLE_PROCESS, "cpu", initial=initial).model
    assert bool((model.normalise.mean == 7.0).all()) == is_kept
    new = start_session(config, tmp_path / "new", SINGLE_PROCESS, "cpu").model
    # the order of the data differs, and so do the cuts in the first epoch
    assert is_kept or torch.allclose(model.normalise.inverse_deviation, new.normalise.inverse_deviation, rtol=0.2)


def test_a_dry_run_validates_and_leaves_no_files(tmp_path, tiny_config, capfd):
    dry_run(tiny_config(), tmp_path / "exp", "cpu")
    stderr = capfd.readouterr().err
    assert "step 2: dev loss" in stderr and stderr.rstrip().endswith("dry run: all is well")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reports_a_missing_manifest(tmp_path, tiny_config):
    with pytest.raises(UserError, match="manifest not found"):
        dry_run(tiny_config(data={"dev": tmp_path / "none.jsonl.gz"}), tmp_path / "exp", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_log_layers_logs_the_gradient_norm_of_each_layer(tmp_path, tiny_config, rows):
    train(tiny_config(training={"log_layers": True, "log_every": 1, "max_grad_norm": 1.0}), tmp_path, device="cpu")
    layers = rows(tmp_path, "layers")
    assert [row["step"] for row in layers] == list(range(1, 9))
    assert {"layer_001", "layer_002", "output", "subsampling"} <= layers[0].keys()
    for row, whole in zip(layers, rows(tmp_path, "train"), strict=True):
        norms = [value for name, value in row.items() if name not in ("event", "step")]
        assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(min(whole["gradient_norm"], 1.0), rel=1e-3)
