"""`asrtool split` and `asrtool subset`."""

import click

from asrtool.cli.options import PATH, POSITIVE, SEED, refuse_options
from asrtool.cli.speaker_options import speaker_list_option, speaker_options
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out_folder", type=PATH)
@click.option(
    "--dev-size",
    default="0.1",
    metavar="SIZE",
    help="Size of the dev set: a share of the audio, or a time such as 2h or 30m; 0 for none.",
)
@click.option(
    "--test-size",
    default="0.1",
    metavar="SIZE",
    help="Size of the test set: a share of the audio, or a time such as 2h or 30m; 0 for none.",
)
@click.option(
    "--by",
    type=click.Choice(["auto", "speaker", "recording", "utterance"]),
    default="auto",
    help="What is not divided between sets; auto is speaker where enough are known.",
)
@speaker_list_option("--dev-speakers", "chosen", "Speakers of the dev set")
@speaker_list_option("--test-speakers", "chosen", "Speakers of the test set")
@click.option("--seed", default=0, type=SEED, help="Seed of the random numbers.")
def split(cuts, out_folder, dev_size, test_size, by, dev_speakers, test_speakers, seed) -> None:
    """Split a manifest into train, dev and test sets.

    They are OUT_FOLDER/train.jsonl.gz, dev.jsonl.gz and test.jsonl.gz. No speaker is in two of them where speakers are
    known; otherwise equal sentences stay in one set if most sentences are different. The same data gives the same sets,
    and added data leaves almost all utterances where they were. The command prints what the sets have in common. A set
    in OUT_FOLDER that has some of these utterances, and that the command would not write now, is refused.

    \b
    asrtool split data/all.jsonl.gz data
    asrtool split data/all.jsonl.gz data --dev-size 30m --test-size 1h --seed 1
    asrtool split data/all.jsonl.gz data --test-speakers anna,ben --dev-size 0.05
    asrtool split data/official_train.jsonl.gz data --test-size 0
    """
    from asrtool.data.corpora import speaker_names
    from asrtool.data.splitting import SplitOptions, split_manifest

    if dev_speakers:
        refuse_options(("dev_size",), "sets without --dev-speakers")
    if test_speakers:
        refuse_options(("test_size",), "sets without --test-speakers")
    if (dev_speakers or test_speakers) and by != "speaker":
        refuse_options(("by",), "sets without named speakers, which are whole speakers")
    options = SplitOptions(dev_size, test_size, by, speaker_names(dev_speakers), speaker_names(test_speakers), seed)
    for line in split_manifest(cuts, out_folder, options):
        print_text(line)


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@speaker_options
@click.option(
    "--exclude-ids",
    type=PATH,
    show_default="none",
    help="Exclusion list: ids to leave out, one a line, as of `asrtool doctor data --exclude`.",
)
@click.option(
    "--max-hours", type=POSITIVE, show_default="all", help="Largest size in hours; utterances are chosen at random."
)
@click.option("--seed", default=0, type=SEED, help="Seed of the random numbers.")
def subset(cuts, out, speakers, exclude_speakers, exclude_ids, max_hours, seed) -> None:
    """Write a part of a manifest: of some speakers, without some utterances, or of a size.

    \b
    asrtool subset data/all.jsonl.gz data/adults.jsonl.gz --exclude-speakers children.txt
    asrtool subset data/train.jsonl.gz data/train_10h.jsonl.gz --max-hours 10
    """
    from asrtool.data.corpora import speaker_names
    from asrtool.data.splitting import SubsetOptions, write_subset

    options = SubsetOptions(
        speaker_names(speakers),
        speaker_names(exclude_speakers) or frozenset(),
        exclude_ids,
        max_hours,
        seed,
    )
    print_text(write_subset(cuts, out, options))
