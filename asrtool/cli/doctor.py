"""`asrtool doctor`: checks of the environment, of data, of a recipe and of a trained system."""

import click

from asrtool.cli.doctor_data import data
from asrtool.cli.doctor_output import show
from asrtool.cli.json_output import json_option
from asrtool.cli.options import PATH
from asrtool.cli.search_options import graph_option


@click.group()
def doctor() -> None:
    """Check the environment, data, a recipe or a system, and list all findings.

    Each finding has its cause and the command that fixes it. The exit status is 0 without findings, 1 if there are
    errors or warnings, and 2 for a usage error; notes do not change it.
    """


doctor.add_command(data)


@doctor.command()
@click.option("--work", type=PATH, default=".", help="Work folder, with data/ and exp/. Its disk is checked.")
@click.option(
    "--hosts",
    metavar="A,B,...",
    show_default="none",
    help="Names of other hosts to look up and to reach, with commas between.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=22, help="Port at which --hosts are tried.")
@click.option("--quick", is_flag=True, help="Leave out the speed figure and the communication of two processes.")
@json_option
def env(work, hosts, port, quick, as_json) -> None:
    """Check Python, packages, audio libraries, this machine, its speed, and the network.

    The check takes about 15 seconds, with --quick about 5. Under torchrun, all ranks compare their versions and
    exchange a tensor, as a training with the same command line will; the first rank prints the report.

    \b
    asrtool doctor env
    asrtool doctor env --hosts node1,node2
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint node1 -m asrtool doctor env
    """
    from asrtool.distributed import this_rank
    from asrtool.doctor.environment import check_environment

    names = [name.strip() for name in (hosts or "").split(",") if name.strip()]
    report = check_environment(work, names, port, quick)
    if this_rank().is_first:
        show([report], as_json)


@doctor.command()
@click.argument("paths", metavar="PATH...", type=PATH, nargs=-1, required=True)
@graph_option
@json_option
def system(paths, graph, as_json) -> None:
    """Check trained systems, packs or decoding graphs.

    PATH is a folder of `asrtool train`, `asrtool pack` or `asrtool graph`. Every checkpoint is read: its checksums,
    whether the weights are finite, and whether they fit the configuration and the units. The average, the calibration
    and the results must not be older than the weights they were made of; all files of a pack must have the sha256 that
    was packed. A decoding graph given by --graph must fit the units of all systems.

    \b
    asrtool doctor system exp/transformer
    asrtool doctor system exp/transformer --graph data/lang/graph
    asrtool doctor system packs/mine data/lang/graph
    """
    from asrtool.doctor.system import check_system

    show([check_system(path, graph) for path in paths], as_json)


@doctor.command(context_settings={"ignore_unknown_options": True})
@click.argument("recipe", type=PATH)
@click.argument("options", metavar="[OPTION...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--work", type=PATH, show_default="RECIPE", help="Work folder, with data/ and exp/.")
@json_option
def recipe(recipe, options, work, as_json) -> None:
    """Check a recipe, and what its stages have written.

    RECIPE is a folder such as egs/digits. OPTIONs are options of its run.sh, such as --units phone; by default the
    options of the last run. The check finds stages that failed or would run again, missing outputs, features, units
    and graphs of other input than there is now, a system of another configuration or of other data, and the findings
    of `asrtool doctor system`. It runs nothing but `run.sh --list true`.

    \b
    asrtool doctor recipe egs/digits
    asrtool doctor recipe egs/digits --work /data/digits
    asrtool doctor recipe egs/digits --units phone --objective mmi
    """
    from asrtool.doctor.recipe import check_recipe

    show([check_recipe(recipe, work, list(options) or None)], as_json)
