"""Trackers: what they record, that a resume continues their runs, and that none of them can stop a training."""

import json
import socket
import sys
import threading
from unittest.mock import MagicMock

import pytest

from asrtool.errors import UserError
from asrtool.training import trackers as module
from asrtool.training.log import TrainingLog
from asrtool.training.trackers import BackgroundTracker, RunFacts, describe, flat_numbers, open_trackers
from asrtool.training.train import dry_run, train


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Trackers find neither accounts nor servers, and every connection to another machine is an error."""
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        assert host in ("localhost", "127.0.0.1", "::1"), f"a connection to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


class Recorder:
    """A tracker that keeps what it gets, or fails with `error`."""

    def __init__(self, error=None):
        self.rows, self.error, self.closed = [], error, False

    def log(self, values, step):
        if self.error:
            raise self.error
        self.rows.append((step, dict(values)))

    def close(self):
        self.closed = True


def test_numbers_of_events_have_names_with_their_kind_and_texts_are_left_out():
    values = {"loss": 2, "losses": {"clean": 1.5, "noisy": 2.5}, "device": "CPU", "dirty": True, "averaged": [3]}
    assert flat_numbers("dev", values) == {"dev/loss": 2, "dev/losses/clean": 1.5, "dev/losses/noisy": 2.5}


def test_a_tracker_in_the_background_records_everything_before_it_closes():
    recorder = Recorder()
    tracker = BackgroundTracker("some", lambda: recorder)
    for step in range(100):
        tracker.log({"train/loss": step}, step)
    tracker.close()
    assert recorder.closed and recorder.rows == [(step, {"train/loss": step}) for step in range(100)]


def test_an_error_of_a_tracker_is_one_warning_without_passwords_and_keys(capfd):
    error = ConnectionError(f"https://me:swordfish@host/api: refused, key {'f' * 40}\nand more")
    tracker = BackgroundTracker("some", lambda: Recorder(error))
    for step in range(5):
        tracker.log({"train/loss": 1.0}, step)
    tracker._thread.join()
    tracker.log({"train/loss": 1.0}, 6)
    tracker.close()
    shown = capfd.readouterr().err
    assert shown.count("some stopped recording, the training goes on: ConnectionError: https://***host/api") == 1
    assert "swordfish" not in shown and "fff" not in shown and "and more" not in shown


def test_a_server_that_never_answers_neither_delays_a_step_nor_the_end_of_a_training(capfd):
    answer = threading.Event()
    tracker = BackgroundTracker("some", lambda: answer.wait() and Recorder(), max_waiting=3)
    for step in range(3):
        tracker.log({"train/loss": 1.0}, step)
    tracker.close(seconds=0.05)
    answer.set()
    assert "not everything was recorded within 0.05 s" in capfd.readouterr().err


def test_a_queue_that_is_full_ends_recording_with_a_warning(capfd):
    answer = threading.Event()
    tracker = BackgroundTracker("some", lambda: answer.wait() and Recorder(), max_waiting=3)
    for step in range(9):
        tracker.log({"train/loss": 1.0}, step)
    answer.set()
    assert capfd.readouterr().err.count("3 events wait for it") == 1


def test_a_missing_package_is_refused_before_the_training(monkeypatch, tmp_path, tiny_config):
    monkeypatch.setitem(module.MODULES, "wandb", "no_such_package_of_wandb")
    with pytest.raises(UserError, match=r"training.trackers has wandb, .*pip install 'asrtool\[wandb\]'"):
        train(tiny_config(training={"trackers": ["wandb"]}), tmp_path / "exp", device="cpu")
    assert not (tmp_path / "exp" / "config.yaml").exists()


def test_only_the_rank_that_writes_files_has_trackers(tmp_path, monkeypatch):
    monkeypatch.setattr("asrtool.training.log.open_trackers", lambda *_: pytest.fail("a tracker on another rank"))
    with TrainingLog(tmp_path, 0, 10, writes_files=False, trackers=("mlflow",)) as log:
        log.event("train", 1, None, loss=1.0)


def test_a_tracker_that_cannot_start_does_not_stop_a_training(tmp_path, tiny_config, monkeypatch, rows, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://me:swordfish@nowhere")
    pytest.importorskip("mlflow")
    train(tiny_config(training={"trackers": ["mlflow"], "max_steps": 4}), tmp_path / "exp", device="cpu")
    shown = capfd.readouterr().err
    assert shown.count("mlflow stopped recording") == 1 and "swordfish" not in shown
    assert len(rows(tmp_path / "exp", "train")) == 2 and not (tmp_path / "exp" / "tensorboard").exists()


def test_mlflow_records_values_and_settings_and_a_resume_continues_its_run(tmp_path, tiny_config, monkeypatch, rows):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    for resume, steps in ((False, 4), (True, 8)):
        train(tiny_config(training={"trackers": ["mlflow"], "max_steps": steps}), tmp_path / "exp", resume, "cpu")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("asrtool")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == f"{tmp_path.name}/exp"
    assert (tmp_path / "exp" / "trackers" / "mlflow").read_text().strip() == run.info.run_id
    assert run.data.params["model.dim"] == "16" and run.data.params["training.max_steps"] == "4"
    for event in ("train", "dev"):
        history = client.get_metric_history(run.info.run_id, f"{event}/loss")
        logged = [(row["step"], pytest.approx(row["loss"])) for row in rows(tmp_path / "exp", event)]
        assert [(point.step, point.value) for point in history] == logged


def test_mlflow_records_corpora_whatever_their_files_are_called(tmp_path, monkeypatch, capfd):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    (tracker,) = open_trackers(["mlflow"], RunFacts(tmp_path / "exp"))
    tracker.log({"corpora/share/a/train#2": 0.5, "corpora/share/größe (1)": 0.25}, 3)
    tracker.close()
    assert "stopped recording" not in capfd.readouterr().err
    run = mlflow.MlflowClient().get_run((tmp_path / "exp" / "trackers" / "mlflow").read_text().strip())
    assert run.data.metrics == {"corpora/share/a/train_2": 0.5, "corpora/share/größe _1_": 0.25}


@pytest.mark.slow  # MLflow creates some thirty tables
def test_mlflow_without_a_server_records_in_a_database_beside_the_experiments(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    (tracker,) = open_trackers(["mlflow"], RunFacts(tmp_path / "exp" / "one"))
    tracker.log({"train/loss": 1.5}, 3)
    tracker.close(seconds=120)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/exp/mlflow.db")
    run = client.get_run((tmp_path / "exp" / "one" / "trackers" / "mlflow").read_text().strip())
    assert run.data.metrics == {"train/loss": 1.5}


def test_wandb_records_offline_when_nobody_is_logged_in_and_keeps_the_id_of_its_run(tmp_path, tiny_config):
    wandb = pytest.importorskip("wandb")
    for resume, steps in ((False, 4), (True, 8)):
        train(tiny_config(training={"trackers": ["wandb"], "max_steps": steps}), tmp_path / "exp", resume, "cpu")
    wandb.teardown()  # its process has written all files then
    run = (tmp_path / "exp" / "trackers" / "wandb").read_text().strip()
    written = list((tmp_path / "exp" / "wandb").glob(f"offline-run-*-{run}/run-{run}.wandb"))
    assert written and all(b"train/loss" in path.read_bytes() for path in written)
    about_the_machine = [path.name for path in (tmp_path / "exp" / "wandb").rglob("*") if "metadata" in path.name]
    assert not about_the_machine


def test_wandb_records_offline_when_no_server_answers(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    from asrtool.training.remote_trackers import WandbTracker

    library, modes = MagicMock(), []

    class NoAnswer(Exception):
        pass

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            raise NoAnswer("https://me:swordfish@host does not answer")
        return MagicMock()

    library.init, library.Error = init, NoAnswer
    monkeypatch.setitem(sys.modules, "wandb", library)
    WandbTracker(RunFacts(tmp_path))
    shown = capfd.readouterr().err
    assert modes == ["online", "offline"]
    assert "wandb does not reach its server" in shown and "wandb sync" in shown and "swordfish" not in shown


def test_a_dry_run_is_not_recorded(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr("asrtool.training.trackers.BackgroundTracker", lambda *_: pytest.fail("recorded"))
    dry_run(tiny_config(training={"trackers": ["mlflow"]}), tmp_path / "exp", "cpu")


def test_trackers_may_change_when_a_training_is_resumed(tmp_path, tiny_config):
    train(tiny_config(training={"max_steps": 4, "trackers": []}), tmp_path / "exp", device="cpu")
    assert not (tmp_path / "exp" / "tensorboard").exists()
    train(tiny_config(training={"max_steps": 8}), tmp_path / "exp", True, "cpu")
    assert (tmp_path / "exp" / "tensorboard").is_dir()
    assert json.loads((tmp_path / "exp" / "log.jsonl").read_text().splitlines()[-1])["step"] == 8


def test_an_error_without_text_has_its_type():
    assert describe(TimeoutError()) == "TimeoutError: "
