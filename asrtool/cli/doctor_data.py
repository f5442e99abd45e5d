"""`asrtool doctor data`."""

import click

from asrtool.cli.doctor_output import show
from asrtool.cli.json_output import json_option
from asrtool.cli.options import JOBS, PATH, allow_commands


@click.command()
@click.argument("cuts", nargs=-1, type=PATH)
@click.option("--dev-cuts", multiple=True, type=PATH, help="Manifest of a development set; may be repeated.")
@click.option("--test-cuts", multiple=True, type=PATH, help="Manifest of a test set; may be repeated.")
@click.option(
    "--config",
    type=PATH,
    help="Configuration file. Its sets, limits and tokenizer are used if none are given, and the utterances of its "
    "data.exclude are left out.",
)
@click.option("--tokenizer", type=PATH, help="Tokenizer file. The transcripts are checked against its units.")
@click.option(
    "--exclude",
    type=PATH,
    help="File to write: the utterances of CUTS to leave out, which data.exclude takes. It may exist if this command "
    "wrote it and nobody edited it.",
)
@click.option(
    "--ignore",
    multiple=True,
    help="Kind of fault that is neither reported nor excluded, such as clipped; may be repeated.",
)
@click.option("--jobs", type=JOBS, show_default="all cores", help="Number of processes.")
@json_option
@allow_commands
def data(cuts, dev_cuts, test_cuts, config, tokenizer, exclude, ignore, jobs, as_json) -> None:
    """Check the audio and the transcripts of manifests, and list all faults.

    CUTS are the manifests of training sets. Each audio file is decoded once, about 1,000 times as fast as real time on
    one core. Without --config, the sampling rate of most utterances and the default limits of length are expected.

    Faults are, for example: files that are missing, unreadable, truncated or other than the manifest says; audio that
    is silent, clipped, upsampled or a duplicate; transcripts that do not fit the audio or the units; and speakers,
    sentences or audio that training and test sets share. --json gives up to 100 examples of each kind.

    \b
    asrtool doctor data data/train.jsonl.gz
    asrtool doctor data data/train.jsonl.gz --dev-cuts data/dev.jsonl.gz --test-cuts data/test.jsonl.gz
    asrtool doctor data --config conf/transformer.yaml --exclude data/exclude.txt
    """
    from asrtool.doctor.data_command import check_data

    findings = check_data(cuts, dev_cuts, test_cuts, config, tokenizer, exclude, ignore, jobs)
    show(findings.reports, as_json)
