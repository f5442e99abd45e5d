"""What a planned training reads and writes, and what its failures cost: arithmetic, units and monotony."""

import math
import os
from functools import partial

import numpy as np
import pytest

from asrtool.config import Config
from asrtool.data.batch_cost import UtteranceCost
from asrtool.errors import AsrtoolError, UserError
from asrtool.models.cost import attention_seconds
from asrtool.models.info import ModelInfo
from asrtool.planning import plan as plan_module
from asrtool.planning.batch_fill import fill, utterances_in_batch
from asrtool.planning.devices import Device
from asrtool.planning.operation import (
    FLAC_BYTES,
    RESTART_SECONDS,
    Operation,
    OperationOptions,
    bytes_per_second,
    plan_operation,
)
from asrtool.planning.operation_text import operation_lines, operation_values
from asrtool.planning.plan import LOADED_PER_WORKER, PlanOptions, make_plan
from asrtool.planning.processes import speed_of_processes
from asrtool.planning.training_data import TrainingData

PARAMETERS = 80_000_000
GPU = Device("gpu", "a GPU", 1e13, 1e14, 0.5, 0.2, 80e9, 500, 100e9, 8, "a test", is_measured=True)
CPU = Device("cpu", "a core", 1e11, None, 0.5, 0.5, 4e9, 5, 1e9, 2, "a test", is_gpu=False, is_measured=True)


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """A model of PARAMETERS weights, which is not built; {length of utterances: batch_seconds} that were asked for."""
    asked = {}

    def info(config, num_units, utterance_seconds=15.0):
        batch_seconds = config.data.batch_seconds
        asked[utterance_seconds] = batch_seconds
        return ModelInfo(
            parameters={"encoder": PARAMETERS},
            outputs=num_units,
            factor=4,
            flops=6e9,
            optimizer_values=2 * PARAMETERS,
            activations=1e7 * batch_seconds,
            batch_seconds=batch_seconds,
            left=0,
            right=0,
            chunk=0,
            can_stream=False,
        )

    monkeypatch.setattr(plan_module, "model_info", info)
    return asked


def planned(device=GPU, hours=65_000.0, devices=64, epochs=1.0, known=None, **sections):
    config = Config.model_validate({"data": {"batch_seconds": 400}} | sections)
    options = PlanOptions(hours, devices, epochs=epochs, data=known)
    return make_plan(config, 5000, device, options), config


def operation(mtbf=50_000.0, disk=1e9, **changes) -> Operation:
    return plan_operation(*planned(**changes), OperationOptions(mtbf, disk))


@pytest.mark.parametrize(("hours", "utterances"), [(1.0, 100), (65_000.0, 6_500_000)])
def test_other_hours_than_those_of_the_manifest_have_utterances_of_the_same_length(hours, utterances):
    data = TrainingData(utterances=100, hours=1.0, longest=50.0)
    result = operation(hours=hours, known=data)
    assert result.utterances == utterances and result.manifest_bytes == 115.0 * utterances


@pytest.mark.parametrize(
    ("sections", "copies"),
    [
        ({}, 3),
        ({"training": {"ema_decay": 0.999}}, 4),
        ({"parallel": {"strategy": "bmuf"}}, 5),
    ],
)
def test_a_checkpoint_has_the_weights_and_the_state_of_the_training(sections, copies):
    result = operation(disk=2e9, **sections)
    assert result.checkpoint_bytes == copies * 4 * PARAMETERS
    assert result.checkpoint_seconds == pytest.approx(0.08 + copies * 4 * PARAMETERS / 2e9)
    assert result.disk_bytes == 6 * result.checkpoint_bytes  # the best five and the last one


def test_a_failure_costs_half_an_interval_and_the_time_until_training_goes_on():
    sections = {"training": {"save_minutes": 20, "validate_every": 10**9}, "parallel": {"timeout": 100}}
    result = operation(**sections)
    assert result.checkpoint_interval == 1200
    assert result.failure_seconds == pytest.approx(600 + 100 + RESTART_SECONDS + result.resume_seconds)
    alone = operation(devices=1, hours=1000.0, **sections)  # nobody waits for it
    assert alone.failure_seconds == pytest.approx(600 + alone.resume_seconds)


def test_the_time_with_failures_is_the_time_without_and_what_they_cost():
    plan, config = planned()
    result = plan_operation(plan, config, OperationOptions(mtbf_hours=640.0))  # one in 10 hours on 64 devices
    assert result.failures == pytest.approx(result.hours / 10)
    assert result.hours == pytest.approx(plan.hours + result.lost_hours)
    assert result.hours == pytest.approx(plan.hours / (1 - result.failure_seconds / 36_000))


def test_more_devices_fail_more_often_and_rarer_checkpoints_lose_more():
    never = {"training": {"validate_every": 10**9, "save_minutes": 10}}
    few, many = (operation(devices=devices, mtbf=5000.0, **never) for devices in (8, 64))
    assert many.failures / many.hours == pytest.approx(8 * few.failures / few.hours)
    rare = operation(mtbf=5000.0, training={"validate_every": 10**9, "save_minutes": 60})
    assert rare.lost_hours > many.lost_hours and rare.checkpoint_share < many.checkpoint_share
    slow = operation(mtbf=5000.0, disk=1e7, **never)
    assert slow.checkpoint_seconds > many.checkpoint_seconds and slow.resume_seconds > many.resume_seconds
    assert operation(mtbf=500.0, **never).hours > many.hours > operation(mtbf=1e9, **never).hours


def test_validations_write_checkpoints_too():
    plan, config = planned(training={"validate_every": 100, "save_minutes": None})
    result = plan_operation(plan, config, OperationOptions())
    assert result.checkpoint_interval == pytest.approx(100 * plan.step_seconds)


def test_the_best_interval_loses_least():
    result = operation(mtbf=1000.0)
    between = 3600 * 1000 / 64

    def loss(interval):
        return result.checkpoint_seconds / interval + interval / 2 / between

    assert all(loss(result.best_interval) < loss(factor * result.best_interval) for factor in (0.8, 1.25))


def test_a_training_that_fails_faster_than_it_recovers_is_refused():
    with pytest.raises(UserError, match="so that the training never ends"):
        operation(mtbf=1.0)


def test_all_audio_of_an_epoch_is_read_in_its_time():
    plan, config = planned()
    result = plan_operation(plan, config, OperationOptions())
    seconds = plan.steps * plan.step_seconds
    assert result.read_rate * seconds == pytest.approx(result.data_bytes, rel=1e-3)
    assert result.data_bytes == 65_000 * 3600 * FLAC_BYTES
    assert result.opened_rate * seconds == pytest.approx(result.utterances, rel=1e-3)
    assert result.utterances == 65_000 * 3600 / 15 and result.manifest_files == result.utterances / 10_000
    needed = result.audio_rate / 64 / LOADED_PER_WORKER["on_the_fly"]
    assert result.loaders == math.ceil(needed)


def test_bytes_of_a_second_of_audio():
    def of(**features):
        return bytes_per_second(Config.model_validate({"features": features}))

    assert of() == FLAC_BYTES and of(sampling_rate=8000) == FLAC_BYTES / 2
    assert of(source="stored", num_bins=80) == pytest.approx(1.16 * 80 * 100)


def test_memory_is_that_of_the_longest_or_of_short_utterances(model):
    data = TrainingData(utterances=100, hours=1.0, longest=27.0)
    plan, config = planned(known=data, devices=1)
    cost = UtteranceCost(attention_seconds(config, 5000))
    assert model == {36.0: 400, 27.0: cost.capacity(400, 27) * 27}  # the mean for the operations
    assert plan.memory.activations == pytest.approx(1e7 * 400 * 18 / cost(18))  # more audio at the same cost
    assert plan.memory_utterance == 18
    needed = plan.largest_batch / 400 * plan.memory.of_batch + plan.memory.weights + plan.memory.runtime
    assert needed == pytest.approx(0.9 * GPU.memory)
    model.clear()
    planned(known=data, devices=1, data={"batch_seconds": 20, "augment": {"speeds": [0.9, 1.0]}})
    assert model == {36.0: 20, 30.0: 30.0}  # slowed down, and alone in a batch that is too small for it
    model.clear()
    planned(devices=1)
    assert 15.0 in model and 30.0 in model  # data.max_seconds, where nothing is known


def test_a_batch_of_short_utterances_has_more_audio():
    short, usual = (planned(known=TrainingData(3600, hours=hours, longest=15.0), devices=1)[0] for hours in (5.0, 15.0))
    assert short.step_audio > usual.step_audio == pytest.approx((400 - 7.5) * 0.92)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("batches", [1, 4])
def test_the_fullest_batches_are_waited_for(devices, batches):
    """Each batch lacks up to an utterance; simulated."""
    pairs = (devices + 1) // 2  # of devices, whose batches are alike
    drawn = 1 - np.random.default_rng(1).random((20_000, pairs, batches)) * 10 / 100
    fullest = drawn.mean(2).max(1).mean()
    tolerance = 1e-3 if batches == 1 else 5e-3  # the sum of several is not evenly distributed
    assert fill(100, 10, devices, batches) == pytest.approx(fullest, abs=tolerance)


def test_a_batch_has_at_least_one_utterance():
    assert [utterances_in_batch(60, seconds) for seconds in (15, 100)] == [4, 1]
    assert fill(10, 100) == 0.5


def test_a_loader_takes_time_from_a_training_that_uses_all_cores():
    busy, spare = (planned(CPU, devices=devices, parallel={"strategy": "ddp"})[0] for devices in (2, 3))
    audio = busy.step_flops / (3 * 6e9)
    assert busy.compute_seconds == pytest.approx(busy.step_flops / 5e10 + audio / LOADED_PER_WORKER["on_the_fly"])
    assert spare.compute_seconds == pytest.approx(spare.step_flops / 5e10)


def test_a_cpu_hides_nothing_that_it_sends():
    plan, _ = planned(CPU, devices=2)
    assert plan.sent_bytes > 0 and plan.sending_seconds == pytest.approx(plan.sent_bytes / CPU.link)


def test_processes_are_measured_at_once_with_what_they_send():
    result = speed_of_processes(2, 1, 4000, partial(float, 3))
    assert result.speed == 3.0 and 0 < result.link < math.inf


def test_a_process_that_is_gone_is_one_line():
    with pytest.raises(AsrtoolError, match="a process that measured the speed is gone"):
        speed_of_processes(2, 1, 4000, partial(os._exit, 3))


def test_lines_and_values_have_all_figures():
    plan, config = planned()
    result = plan_operation(plan, config, OperationOptions())
    lines = operation_lines(result, config, OperationOptions())
    assert lines.keys() == {"reading", "files", "checkpoints", "resume", "failures"}
    assert "960.00 MB in 1.24 s" in lines["checkpoints"] and "one in 50,700 device hours" in lines["failures"]
    assert "15,600,000 utterances of 4.07 TB" in lines["files"]
    values = operation_values(result)
    assert values["lost_hours"] == result.lost_hours and values["failures"] == result.failures
