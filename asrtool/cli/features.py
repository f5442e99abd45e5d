"""`asrtool features`."""

import re

import click

from asrtool.cli.options import PATH


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option("--num-bins", default=80, type=click.IntRange(min=1), help="Mel bins.")
@click.option("--speeds", default="1.0", help="Comma-separated; each cut is stored at every one of them.")
@click.option("--jobs", default=2, type=click.IntRange(min=1), help="Processes.")
@click.option("--shard", metavar="I/N", help="Do only the I-th of N shares, and do not write OUT.")
def features(cuts, out, num_bins, speeds, jobs, shard) -> None:
    """Store log-mel features with lilcom (training can also compute them on the fly).

    An interrupted run continues where it was.

    \b
    asrtool features data/train.jsonl.gz data/train_fbank.jsonl.gz --speeds 0.9,1.0,1.1 --jobs 8

    Several machines that see the same folders share the work with --shard, each started when it likes, and again when
    it was killed. The same command without --shard then stores what is still missing and writes OUT:

    \b
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard 3/20                # one of them

    \b
    sbatch --wait --array=1-20 --wrap \\
        'asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard $SLURM_ARRAY_TASK_ID/20'
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz

    \b
    for i in 1 2 3; do
        ssh node$i "cd $PWD && asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard $i/3" &
    done
    wait
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz
    """
    options = {"num_bins": num_bins, "speeds": _speeds(speeds), "jobs": jobs}
    share = _share(shard) if shard is not None else None
    from asrtool.data.features import store, store_share

    if share is None:
        click.echo(f"{out}: {store(cuts, out, **options)}")
        return
    there, total = store_share(cuts, out, share, **options)
    hint = "run without --shard to write it" if there == total else "the rest is for the other shares"
    click.echo(f"{out}: {there} of {total} shards are stored; {hint}")


def _share(text: str) -> tuple[int, int]:
    share = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not share or not 1 <= int(share[1]) <= int(share[2]):
        raise click.BadParameter(f"'{text}' is not I/N with I from 1 to N, such as 3/20", param_hint="--shard")
    return int(share[1]), int(share[2])


def _speeds(text: str) -> tuple[float, ...]:
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is not a comma-separated list of numbers", param_hint="--speeds") from error
    if not all(0.3 < speed < 3 for speed in speeds):
        raise click.BadParameter(f"'{text}' has a speed outside 0.3 to 3", param_hint="--speeds")
    return speeds
