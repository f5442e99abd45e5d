"""`asrtool plan`."""

import click

from asrtool.cli.info import read_model_config, vocab_size_option
from asrtool.cli.json_output import json_option, print_json
from asrtool.cli.options import EPOCHS, PATH, Number, threads_option
from asrtool.cli.text_output import print_text
from asrtool.cli.train import OVERRIDE

AMOUNT = Number(1e-6, 1e9)  # of hours, speeds and prices: beyond, products of several of them overflow
DEVICES = click.IntRange(1, 1_000_000)
STEPS = click.IntRange(1, 10**12)


@click.command()
@click.argument("config", type=PATH)
@click.option("--hours", type=AMOUNT, show_default="as in data.train", help="Hours of audio in the training set.")
@click.option("--devices", type=DEVICES, default=1, help="Number of devices: GPUs, or processes on CPUs.")
@click.option(
    "--device",
    "device_name",
    default="this",
    metavar="NAME",
    help="Device: this (measured for some seconds), h100, h200, b200, a100, v100, l4, l40s, cpu or cpu-amx.",
)
@click.option("--steps", type=STEPS, show_default="training.max_steps", help="Number of training steps.")
@click.option("--epochs", type=EPOCHS, show_default="as many as the steps are", help="Number of passes over the data.")
@click.option("--network", type=AMOUNT, default=100.0, help="Speed of the network between machines in Gbit/s.")
@click.option(
    "--utilisation",
    type=Number(1e-6, 1),
    show_default="the device's",
    help="Share of the device's peak speed that training reaches.",
)
@click.option(
    "--mtbf",
    type=AMOUNT,
    show_default="50700, as of a published training",
    help="Mean time between failures in hours of one device.",
)
@click.option(
    "--disk", type=AMOUNT, show_default="0.83, measured", help="Speed of the disk of the checkpoints in GB/s."
)
@click.option("--price", type=AMOUNT, show_default="as listed", help="Price of an hour of one device in USD.")
@vocab_size_option
@threads_option(default_text="as many as a training uses")
@OVERRIDE
@json_option
def plan(
    config, hours, devices, device_name, steps, epochs, network, utilisation, mtbf, disk, price, vocab_size, threads,
    overrides, as_json,
) -> None:  # fmt: skip
    """Predict steps, memory, time, communication, reading, failures and cost of a training.

    CONFIG is a configuration file or an experiment folder. Hours and lengths of utterances come from the manifests
    data.train if they exist; otherwise --hours is needed, and utterances are taken to be 15 s long. `asrtool info`
    prints the size and operations of the model for 15 s. --threads is for the measurement of this machine's CPU. All
    assumptions are printed; docs/planning.md compares plans with trainings.

    \b
    asrtool plan conf/transformer_24l.yaml --vocab-size 5000 --hours 960 --devices 8 --device h100 --epochs 40
    asrtool plan conf/transformer_24l.yaml --vocab-size 5000 --hours 65000 --devices 64 --device a100 --network 25 \\
        --set parallel.strategy=bmuf --price 1.5
    asrtool plan conf/mine.yaml --hours 5
    """
    if steps and epochs:
        raise click.UsageError("--steps and --epochs both set the length of the training; give one of them")
    from asrtool.planning.devices import find_device
    from asrtool.planning.operation import DISK_BYTES_PER_SECOND, MTBF_HOURS, OperationOptions, plan_operation
    from asrtool.planning.operation_text import operation_assumptions, operation_lines, operation_values
    from asrtool.planning.plan import PlanOptions, make_plan, utterance_seconds
    from asrtool.planning.text import assumptions, plan_lines, plan_values
    from asrtool.planning.training_data import read_training_data

    loaded, num_outputs = read_model_config(config, overrides, vocab_size)
    data = read_training_data(loaded)
    hours = hours or (data.hours if data else None)
    if not hours:
        names = ", ".join(map(str, loaded.data.train_manifests))
        raise click.UsageError(f"the training set is not there ({names}): give its size as --hours")
    options = PlanOptions(hours, devices, steps, epochs, network * 1e9 / 8, utilisation, price, data)
    if device_name.lower() == "this":
        from asrtool.planning.measurement import measure_this_machine

        device = measure_this_machine(loaded, num_outputs, devices, threads, utterance_seconds(options))
    else:
        device = find_device(device_name)
    planned = make_plan(loaded, num_outputs, device, options)
    operation_options = OperationOptions(mtbf or MTBF_HOURS, disk * 1e9 if disk else DISK_BYTES_PER_SECOND)
    operation = plan_operation(planned, loaded, operation_options)
    if as_json:
        print_json(plan_values(planned, loaded) | {"operation": operation_values(operation)})
        return
    lines = plan_lines(planned, loaded) | operation_lines(operation, loaded, operation_options)
    for name, value in lines.items():
        print_text(f"{name:16} {value}")
    for line in assumptions(planned, loaded) + operation_assumptions(operation_options):
        print_text(f"assumed          {line}")
