"""`asrtool plan`: its figures follow from the configuration and agree with `asrtool info` and with a training."""

import importlib.util
import json
import time
from pathlib import Path

import pytest
import torch
from lhotse import CutSet

from asrtool.data.batch_cost import UtteranceCost
from asrtool.device import torch_threads
from asrtool.errors import UserError
from asrtool.models.cost import attention_seconds
from asrtool.models.info import UTTERANCE_SECONDS, model_info
from asrtool.planning import measurement
from asrtool.planning.batch_fill import PADDING, fill
from asrtool.planning.devices import DEVICES, Device, find_device
from asrtool.planning.measurement import measure_this_machine
from asrtool.planning.memory import USABLE_MEMORY
from asrtool.planning.plan import BACKWARD, LOADED_PER_WORKER, PlanOptions, make_plan, training_flops
from asrtool.planning.text import assumptions, plan_lines, plan_values
from asrtool.planning.training_data import read_training_data
from asrtool.training.train import train
from tests.tiny import log_rows

ROOT = Path(__file__).parents[2]
PEAK = 1e12
ROUND = Device(
    "round", "a device with round figures", PEAK, 4 * PEAK, 0.5, 0.25, 10e9, 500, 100e9, 4, "a test", is_measured=True
)
UNITS = 7


@pytest.fixture(autouse=True)
def figures(request, monkeypatch, info):
    """Takes the model's figures from `info`, which takes seconds, but for tests that are marked `real`."""

    def pretend(config, num_units, utterance_seconds=15.0):
        seconds = config.data.batch_seconds
        return info._replace(batch_seconds=seconds, activations=info.activations * seconds / info.batch_seconds)

    if "real" not in request.fixturenames:
        monkeypatch.setattr("asrtool.planning.plan.model_info", pretend)
        monkeypatch.setattr("asrtool.planning.measurement.model_info", pretend)


@pytest.fixture(scope="module")
def info(tiny_config):
    """The figures of the tiny model."""
    return model_info(tiny_config(), UNITS)


@pytest.fixture
def real():
    """Asks for the figures of the model of the test's configuration."""


def scaling():
    """tools/scaling.py, which has a model of its own of what strategies send."""
    import sys

    spec = importlib.util.spec_from_file_location("scaling", ROOT / "tools" / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_a_step_takes_its_operations_at_the_share_of_the_peak(tiny_config, real):
    config = tiny_config(data={"batch_seconds": 100}, training={"accumulate_grad_batches": 3})
    plan = make_plan(config, UNITS, ROUND, PlanOptions(hours=1))
    audio = 100 * 3 * (1 - 7.5 / 100)  # half an utterance of 15 s is missing in each batch
    assert plan.step_flops == pytest.approx(model_info(config, UNITS).flops * (1 + BACKWARD) * audio)
    assert plan.compute_seconds == pytest.approx(plan.step_flops / (0.5 * PEAK))
    assert plan.step_audio == pytest.approx(audio * (1 - PADDING))
    assert plan.info.lines() == model_info(config, UNITS).lines()


def test_bf16_is_used_where_the_device_has_it(tiny_config):
    for precision, device, expected in (
        ("bf16", ROUND, ("bf16", 4 * PEAK * 0.25)),
        ("auto", ROUND, ("bf16", 4 * PEAK * 0.25)),
        ("fp32", ROUND, ("fp32", PEAK * 0.5)),
        ("bf16", find_device("v100"), ("fp32", 15.7e12 * 0.35)),
    ):
        plan = make_plan(tiny_config(training={"precision": precision}), UNITS, device, PlanOptions(1))
        assert (plan.precision, plan.step_flops / plan.compute_seconds) == (expected[0], pytest.approx(expected[1]))


def test_steps_are_those_of_the_configuration_or_as_asked(tiny_config):
    config = tiny_config(data={"batch_seconds": 36}, training={"max_steps": 50})
    by_config, by_steps = (make_plan(config, UNITS, ROUND, PlanOptions(2, steps=steps)) for steps in (None, 70))
    assert (by_config.steps, by_steps.steps) == (50, 70)
    by_epochs = make_plan(config, UNITS, ROUND, PlanOptions(2, devices=2, epochs=5))
    assert by_epochs.audio_hours == pytest.approx(10, abs=by_epochs.step_audio / 3600)
    assert by_epochs.epochs == pytest.approx(5, rel=0.01)


def test_a_batch_of_the_largest_size_fits_and_a_larger_one_does_not(tiny_config):
    largest = make_plan(tiny_config(), UNITS, ROUND, PlanOptions(1)).largest_batch
    for factor, fits in ((0.99, True), (1.01, False)):
        config = tiny_config(data={"batch_seconds": factor * largest})
        plan = make_plan(config, UNITS, ROUND, PlanOptions(1))
        assert plan.fits == fits and ("MORE THAN" in plan_lines(plan, config)["memory"]) != fits
        assert plan.memory.total == pytest.approx(factor * USABLE_MEMORY * 10e9, rel=0.02)


def test_a_model_that_fits_no_device_has_no_largest_batch(tiny_config):
    small = Device(**(vars(ROUND) | {"memory": 1e8}))
    lines = plan_lines(make_plan(tiny_config(), UNITS, small, PlanOptions(1)), tiny_config())
    assert lines["largest batch"].startswith("none fits")


@pytest.mark.parametrize("devices", [3, 10**6])
def test_a_worker_of_bmuf_has_no_more_ranks_than_there_are(tiny_config, devices):
    config = tiny_config(parallel={"strategy": "bmuf", "ranks_per_worker": 10**9})
    plan = make_plan(config, UNITS, ROUND, PlanOptions(1, devices=devices))
    ddp = make_plan(tiny_config(), UNITS, ROUND, PlanOptions(1, devices=devices))
    assert plan.sent_bytes == pytest.approx(ddp.sent_bytes)  # one worker of all ranks: ddp


def test_memory_of_the_strategies(tiny_config):
    def weights(strategy, **training):
        config = tiny_config(parallel={"strategy": strategy}, training=training)
        plan = make_plan(config, UNITS, ROUND, PlanOptions(1, devices=8))
        return (plan.memory.weights + plan.memory.strategy) / sum(plan.info.parameters.values())

    assert weights("ddp") == 16  # weights, gradients and two moments in float32
    assert weights("ddp", ema_decay=0.999) == 20
    assert weights("bmuf") == 16 + 20
    assert weights("fsdp") == pytest.approx(16 / 8 + 8 / 2)  # two of the two blocks are whole


@pytest.mark.parametrize(
    ("scheme", "parallel"),
    [
        ("ddp", {}),
        ("ddp fp16", {"gradient_compression": "fp16"}),
        ("bmuf 8", {"strategy": "bmuf", "block_steps": 8, "ranks_per_worker": 1}),
    ],
)
def test_what_is_sent_is_what_the_model_of_scaling_says(tiny_config, scheme, parallel):
    module = scaling()
    plan = make_plan(tiny_config(parallel=parallel), UNITS, ROUND, PlanOptions(1, devices=16))
    parameters = sum(plan.info.parameters.values())
    assert plan.sent_bytes == pytest.approx(module.traffic(module.Scheme.parse(scheme), 16, parameters)[0])


@pytest.mark.parametrize(("strategy", "sharing_ranks"), [("ddp", 16), ("bmuf", 4), ("fsdp", 1)])
def test_ranks_that_share_the_updates_of_muon_send_them(tiny_config, info, monkeypatch, strategy, sharing_ranks):
    def sent(num_matrix_weights):
        with_muon = info._replace(optimizer_values=2 * sum(info.parameters.values()) - num_matrix_weights)
        monkeypatch.setattr("asrtool.planning.plan.model_info", lambda *arguments: with_muon)
        config = tiny_config(parallel={"strategy": strategy, "ranks_per_worker": 4})
        return make_plan(config, UNITS, ROUND, PlanOptions(1, devices=16)).sent_bytes

    bytes_of_a_weight = 2  # ROUND is a GPU
    assert sent(1000) - sent(0) == pytest.approx((sharing_ranks - 1) / sharing_ranks * 1000 * bytes_of_a_weight)


def test_the_slowest_link_counts_and_computation_hides_a_part(tiny_config):
    config = tiny_config()

    def plan(devices, network):
        return make_plan(config, UNITS, ROUND, PlanOptions(1, devices=devices, network=network))

    assert plan(4, 1.0).sending_seconds == 0  # a machine has four devices: the network is not used
    slow = plan(8, 1000.0)
    assert slow.sending_seconds == pytest.approx(slow.sent_bytes / 1000 - 0.6 * slow.compute_seconds)
    assert slow.hours > plan(8, 1e9).hours


def test_a_step_waits_for_a_slow_loader(tiny_config):
    config = tiny_config(data={"workers": 1})
    fast = Device(**(vars(ROUND) | {"fp32": 1e18}))
    plan = make_plan(config, UNITS, fast, PlanOptions(1))
    assert (
        plan.step_seconds
        == plan.loading_seconds
        == pytest.approx(fill(config.data.batch_seconds, UTTERANCE_SECONDS) * config.data.batch_seconds / 1000)
    )
    assert "WAITS FOR THE LOADER" in plan_lines(plan, config)["step"]
    more = make_plan(tiny_config(data={"workers": 4}), UNITS, fast, PlanOptions(1))
    assert more.step_seconds == pytest.approx(plan.step_seconds / 4)


def test_cost_is_of_the_price_that_is_given_or_listed(tiny_config):
    config = tiny_config()
    listed = make_plan(config, UNITS, find_device("h100"), PlanOptions(1, devices=2))
    assert plan_values(listed, config)["usd"] == pytest.approx(listed.device_hours * 3.99)
    assert "read on 2026-09-20" in plan_lines(listed, config)["cost"]
    given = make_plan(config, UNITS, find_device("h100"), PlanOptions(1, devices=2, price=10))
    assert plan_values(given, config)["usd"] == pytest.approx(given.device_hours * 10)
    assert "give --price" in plan_lines(make_plan(config, UNITS, ROUND, PlanOptions(1)), config)["cost"]


def test_every_listed_device_has_a_source_and_every_price_a_date():
    for device in DEVICES.values():
        assert device.source and 0 < device.fp32_utilisation <= 1 and 0 < device.bf16_utilisation <= 1
        assert device.rate is None or (device.rate.source and device.rate.date.startswith("20"))


def test_assumptions_say_what_was_not_measured(tiny_config):
    config = tiny_config(objective={"kind": "mmi"})
    text = "\n".join(assumptions(make_plan(config, UNITS, find_device("a100"), PlanOptions(1, devices=16)), config))
    assert "35% (not measured) of 19.5 TFLOP/s" in text and "100 Gbit/s between machines" in text and "MMI" in text
    given = make_plan(config, UNITS, find_device("a100"), PlanOptions(1, utilisation=0.5))
    assert "50% (as given)" in assumptions(given, config)[0]


def test_unknown_devices_and_one_process_on_many_are_refused(tiny_config):
    with pytest.raises(UserError, match="did you mean 'h100'"):
        find_device("h1000")
    with pytest.raises(UserError, match="parallel.strategy none trains on one device"):
        make_plan(tiny_config(parallel={"strategy": "none"}), UNITS, ROUND, PlanOptions(1, devices=2))


def test_this_machine_is_measured_by_training_steps(tiny_config, monkeypatch):
    monkeypatch.setattr(measurement, "MEASURED_SECONDS", 0.1)
    config = tiny_config()
    threads = torch.get_num_threads()
    device = measure_this_machine(config, UNITS, devices=1)
    assert torch.get_num_threads() == threads  # later trainings of this process are not slower
    plan = make_plan(config, UNITS, device, PlanOptions(1))
    assert 0 < device.fp32_utilisation < 1.5 and device.memory > 1e8
    audio = fill(config.data.batch_seconds, UTTERANCE_SECONDS) * config.data.batch_seconds
    speed = device.fp32 * device.fp32_utilisation
    loading = audio / LOADED_PER_WORKER["on_the_fly"] if device.keeps_all_cores_busy(1) else 0.0
    assert plan.compute_seconds == pytest.approx(training_flops(config, plan.info) * audio / speed + loading)


@pytest.mark.parametrize(("changes", "free", "message"), [
    ({"dim": 16_384, "ff_dim": 131_072, "layers": 100}, 1e15, "weights; at most 10,000,000,000 are supported"),
    ({"dim": 512, "ff_dim": 2048, "layers": 24}, 0.6e9, "each process has 0.5 GB on this machine; give --device"),
])  # fmt: skip
def test_a_model_that_does_not_fit_into_this_machine_is_refused_before_it_is_built(
    tiny_config, monkeypatch, real, changes, free, message
):
    monkeypatch.setattr(measurement, "usable_cores", lambda: 1)
    monkeypatch.setattr(measurement, "free_memory", lambda: free)
    monkeypatch.setattr(measurement, "_training_speed", lambda *_: pytest.fail("it is measured"))
    with torch_threads(1), pytest.raises(UserError, match=message):
        measure_this_machine(tiny_config(model=changes), UNITS, devices=1)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_while_this_machine_is_measured_is_one_line(tiny_config, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(measurement, "_training_speed", fail)
    with pytest.raises(UserError, match="too little memory for a training step of the model; give --device NAME"):
        measure_this_machine(tiny_config(), UNITS, devices=1)


def test_this_machine_is_measured_with_as_many_threads_as_a_training_has(tiny_config, monkeypatch):
    monkeypatch.setattr(measurement, "usable_cores", lambda: 4)
    monkeypatch.setattr(measurement, "_measure", lambda *_: torch.get_num_threads())
    for of_torch, devices, given, expected in ((1, 1, None, 1), (3, 1, None, 3), (3, 2, None, 2), (1, 2, 3, 3)):
        with torch_threads(of_torch):
            assert measure_this_machine(tiny_config(), UNITS, devices, given) == expected


def test_lengths_and_hours_are_those_of_the_training_set(tiny_config, corpus, real):
    lengths = [cut.duration for cut in CutSet.from_file(corpus)]
    config = tiny_config(data={"train": str(corpus), "batch_seconds": 100, "min_seconds": 0.1})
    data = read_training_data(config)
    assert (data.utterances, data.longest) == (len(lengths), max(lengths))
    assert data.mean == pytest.approx(sum(lengths) / len(lengths))
    plan = make_plan(config, UNITS, ROUND, PlanOptions(hours=1, data=data))
    cost = UtteranceCost(attention_seconds(config, UNITS))
    batch_seconds = 100 * data.mean / cost(data.mean)
    assert plan.step_audio == pytest.approx((batch_seconds - data.mean / 2) * (1 - PADDING))
    assert f"longest {max(lengths):.1f} s" in plan_lines(plan, config)["utterances"]
    gone = tiny_config(data={"train": "gone.jsonl.gz"})
    assert read_training_data(gone) is None
    assert "15 s (assumed" in plan_lines(make_plan(gone, UNITS, ROUND, PlanOptions(1)), gone)["utterances"]


def test_the_parts_of_the_memory_are_those_of_info_and_more(tiny_config):
    config = tiny_config(data={"batch_seconds": 60})
    plan = make_plan(config, UNITS, ROUND, PlanOptions(1))
    assert plan.memory.activations >= plan.info.activations and plan.memory.outputs > 0
    assert (
        "outputs" in plan_lines(plan, config)["memory"]
        and "for a batch of utterances" in plan_lines(plan, config)["memory"]
    )


def test_activation_checkpointing_repeats_the_forward_pass(tiny_config):
    plain, again = tiny_config(), tiny_config(model={"activation_checkpointing": True})
    plans = [make_plan(config, UNITS, ROUND, PlanOptions(1)) for config in (plain, again)]
    assert plans[1].step_flops == pytest.approx(plans[0].step_flops * 4 / 3)
    assert "3x the operations" in plan_lines(plans[0], plain)["step"]
    assert "4x the operations" in plan_lines(plans[1], again)["step"]


def test_an_assumed_utilisation_has_a_range_of_times(tiny_config):
    config = tiny_config()
    slow = Device(**(vars(find_device("a100")) | {"fp32": 1e9, "bf16": 1e9}))  # it never waits for the loader
    assumed = make_plan(config, UNITS, slow, PlanOptions(1))
    low, high = assumed.hours_range
    assert low < assumed.hours < high and high == pytest.approx(2 * assumed.hours)
    assert "at twice and at half the utilisation" in plan_lines(assumed, config)["time"]
    for device, utilisation in (("a100", 0.3), ("cpu", None)):  # given, and measured
        plan = make_plan(config, UNITS, find_device(device), PlanOptions(1, utilisation=utilisation))
        assert "half" not in plan_lines(plan, config)["time"]


def test_a_slow_machine_is_measured_by_one_step():
    calls = []
    speed = measurement._times_a_second(lambda: calls.append(time.sleep(0.02)), torch.device("cpu"), 0.01)
    assert len(calls) == 1 and 0 < speed <= 50


def test_the_steps_and_the_audio_of_a_plan_are_about_those_of_a_training(tmp_path, tiny_config):
    config = tiny_config(data={"batch_seconds": 2}, training={"max_steps": 8})
    data = read_training_data(config)
    plan = make_plan(config, UNITS, find_device("cpu"), PlanOptions(hours=data.hours, data=data))
    train(config, tmp_path / "exp", device="cpu")
    (finished,) = log_rows(tmp_path / "exp", "finished")
    assert finished["step"] == plan.steps
    reports = log_rows(tmp_path / "exp", "train")
    padding = sum(row["padding"] for row in reports) / len(reports)  # far more than in a corpus of hours
    expected = plan.audio_hours * (1 - padding) / (1 - PADDING)
    assert finished["hours"] == pytest.approx(expected, rel=0.5)


def test_the_command_prints_the_lines_of_info_and_json(asr, tmp_path, tiny_config, real):
    from asrtool.config_file import save_config

    path = tmp_path / "config.yaml"
    save_config(tiny_config(), path)
    absent = "data.train=gone.jsonl.gz"
    question = [
        str(path),
        "--set",
        absent,
        "--vocab-size",
        "50",
        "--set",
        "model.dim=32",
        "--set",
        "data.batch_seconds=60",
    ]
    _, info, _ = asr("info", *question)
    status, plan, _ = asr("plan", *question, "--hours", "5", "--devices", "8", "--device", "H100", "--epochs", "3")
    shared = [line for line in info.splitlines() if line.split(" ")[0] in ("operations", "training")]
    assert status == 0 and len(shared) == 2 and set(shared) <= set(plan.splitlines())
    values = json.loads(asr("plan", *question, "--hours", "5", "--device", "l4", "--steps", "9", "--json")[1])
    assert values["steps"] == 9 and values["device"] == "NVIDIA L4" and values["assumptions"]
    assert values["operation"]["failures"] > 0
    assert "\nfailures  " in plan and "at one in 50,700 device hours" in plan
    often = asr("plan", *question, "--hours", "5", "--device", "l4", "--mtbf", "2", "--disk", "0.01")[1]
    assert "at one in 2 device hours" in often and "written and read at 0.01 GB/s" in often


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hours", "5", "--device", "h1000"], "did you mean 'h100'"),
        (["--device", "h100", "--set", "data.train=gone.jsonl.gz"], "(gone.jsonl.gz): give its size as --hours"),
        (["--hours", "0", "--device", "h100"], "0 is not at least"),
        (["--hours", "5", "--device", "h100", "--steps", "3", "--epochs", "2"], "give one of them"),
    ],
)
def test_wrong_questions_are_one_line(asr, tmp_path, tiny_config, options, message):
    from asrtool.config_file import save_config

    save_config(tiny_config(), tmp_path / "config.yaml")
    status, _, err = asr("plan", str(tmp_path / "config.yaml"), "--vocab-size", "50", *options)
    assert status == 2 and message in err and len(err.splitlines()) == 1
