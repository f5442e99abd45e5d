"""`asrtool features`."""

import re

import click

from asrtool.cli.options import JOBS, PATH, allow_commands, max_minutes, num_bins_option
from asrtool.cli.text_output import print_text

MAX_SHARES = 100_000


def _parse_share(_context, _option, text: str | None) -> tuple[int, int] | None:
    """Returns (3, 20) for "3/20"."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"'{text}' is not I/N with I from 1 to N, such as 3/20")
    if int(match[2]) > MAX_SHARES:
        raise click.BadParameter(f"'{text}' has more than {MAX_SHARES:,} shares")
    return int(match[1]), int(match[2])


def _parse_speeds(_context, _option, text: str) -> tuple[float, ...]:
    """Returns (0.9, 1.0) for "0.9,1.0"."""
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is not a comma-separated list of numbers") from error
    if not all(0.3 < speed < 3 for speed in speeds):  # NaN and infinity are outside, too
        raise click.BadParameter(f"'{text}' has a speed outside 0.3 to 3")
    if len(set(speeds)) < len(speeds):
        raise click.BadParameter(f"'{text}' has a speed twice")
    return speeds


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@num_bins_option
@click.option(
    "--speeds",
    default="1.0",
    callback=_parse_speeds,
    metavar="NUMBERS",
    help="Comma-separated speeds; the features of each cut are stored at all of them.",
)
@click.option("--jobs", default=2, type=JOBS, help="Number of processes.")
@click.option(
    "--shard",
    "share",
    callback=_parse_share,
    metavar="I/N",
    show_default="all shares",
    help="Number of the share to store and number of all shares; OUT is not written.",
)
@max_minutes(60.0)
@allow_commands
def features(cuts, out, num_bins, speeds, jobs, share, max_minutes) -> None:
    """Store log-mel features on disk, compressed with lilcom.

    This is optional: training computes features that are not stored on the fly.

    An interrupted run continues where it stopped. OUT is the manifest (.jsonl.gz); the features are in the folder
    feats/NAME next to it, where NAME is OUT without its suffix. A repeated run computes the features of audio files
    that were changed since (by size or time), and with another input or other settings all of them. It deletes the
    features of the OUT that it replaces, and nothing else, once the new OUT is complete.

    \b
    asrtool features data/train.jsonl.gz data/train_fbank.jsonl.gz --speeds 0.9,1.0,1.1 --jobs 8

    Several machines with access to the same folders can share the work with --shard; they can start at any time, and
    again if they were killed. The same command without --shard then stores what is still missing and writes OUT:

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
    from asrtool.data.feature_store import store_feature_share, store_features

    options = {"num_bins": num_bins, "speeds": speeds, "jobs": jobs, "max_seconds": 60 * max_minutes}
    if share is None:
        print_text(f"{out}: {store_features(cuts, out, **options)}")
        return
    stored, total = store_feature_share(cuts, out, share, **options)
    hint = "run without --shard to write it" if stored == total else "the rest is for the other shares"
    print_text(f"{out}: {stored} of {total} shards are stored; {hint}")
