"""Weights & Biases and MLflow as trackers. Each runs in a thread of its own (asrtool/training/trackers.py).

They record the values of log.jsonl and the configuration: no audio, transcripts, checkpoints, source code, console
output, or facts about the machine and its user. A resumed training continues the same run.
"""

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from asrtool.config_file import flatten
from asrtool.training.trackers import RunFacts, Tracker, describe

logger = logging.getLogger(__name__)

PROJECT = "asrtool"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names another
MAX_PARAMETERS = 100  # of a call of MLflow
MAX_TEXT = 500  # characters of a parameter of MLflow
FORBIDDEN = re.compile(r"[^\w./ -]")  # in names of MLflow's metrics; names of corpora are those of files


class WandbTracker:
    """A run of Weights & Biases.

    WANDB_PROJECT, WANDB_ENTITY, WANDB_BASE_URL and WANDB_API_KEY are wandb's own variables. With WANDB_MODE=offline,
    when nobody is logged in, and when no server answers, the run is recorded in the experiment folder, and `wandb sync`
    sends it later.
    """

    def __init__(self, facts: RunFacts):
        import wandb

        run = facts.read_run("wandb") or secrets.token_hex(4)
        facts.write_run("wandb", run)
        facts.folder.mkdir(parents=True, exist_ok=True)
        mode = self._mode(wandb)
        try:
            self._run = self._start(wandb, facts, run, mode)
        except wandb.Error as error:
            if mode != "online":
                raise
            logger.warning(f"wandb does not reach its server: {describe(error)}")
            mode = "offline"
            self._run = self._start(wandb, facts, run, mode)
        self._run.define_metric("*", step_metric="step")  # steps that are taken again after a resume may come again
        if mode == "offline":
            logger.info(f"wandb records offline; wandb sync {facts.folder}/wandb/offline-run-* sends it")

    @staticmethod
    def _mode(wandb: Any) -> Any:
        """Returns the mode that WANDB_MODE names; otherwise online if somebody is logged in, without asking."""
        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")

    def _start(self, wandb: Any, facts: RunFacts, run: str, mode: Any) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=facts.name,
            id=run,
            resume="allow",
            mode=mode,
            dir=str(facts.folder),
            config=flatten(facts.config),
            settings=self._settings(wandb),
        )

    @staticmethod
    def _settings(wandb: Any) -> Any:
        return wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records values."""
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """Sends what is left, and ends the run."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow.

    MLFLOW_TRACKING_URI names the server or store; without it, the run is in `mlflow.db` in the folder above the
    experiment, so that several experiments are compared by `mlflow ui --backend-store-uri sqlite:///exp/mlflow.db`.
    """

    def __init__(self, facts: RunFacts):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        local = f"sqlite:///{facts.folder.absolute().parent / 'mlflow.db'}"
        self._client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        self._run = self._continue_run(facts) or self._start_run(facts)
        facts.write_run("mlflow", self._run)

    def _continue_run(self, facts: RunFacts) -> str | None:
        """Returns the run that the training has already, or None if the store does not have it."""
        from mlflow.exceptions import MlflowException

        run = facts.read_run("mlflow")
        if run is None:
            return None
        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run

    def _start_run(self, facts: RunFacts) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment(), run_name=facts.name).info.run_id
        settings = [Param(name, str(value)[:MAX_TEXT]) for name, value in flatten(facts.config).items()]
        for start in range(0, len(settings), MAX_PARAMETERS):
            self._client.log_batch(run, params=settings[start : start + MAX_PARAMETERS])
        return run

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records values."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(FORBIDDEN.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run)


REMOTE_TRACKERS: dict[str, Callable[[RunFacts], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
