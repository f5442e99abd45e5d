"""`asrtool align`."""

import click

from asrtool.cli.options import PATH, Channel, FormatList, joined_formats, model_options, refuse_options
from asrtool.cli.text_output import print_text

FORMATS = ("textgrid", "ctm", "json")  # the keys of asrtool.inference.alignment_outputs.WRITERS
MANIFESTS = (".jsonl", ".jsonl.gz")


@click.command()
@click.argument("model", type=PATH)
@click.argument("cuts", metavar="CUTS|AUDIO", type=PATH)
@click.argument("out", metavar="OUT|TEXT", type=PATH)
@click.option("--ctm", type=PATH, help="CTM file to write the words to as well (of CUTS only).")
@click.option(
    "--format",
    "formats",
    type=FormatList(FORMATS),
    multiple=True,
    show_default=",".join(FORMATS),
    help="Formats of the output files of AUDIO, comma-separated; repeatable.",
)
@click.option("--output-dir", type=PATH, show_default="beside AUDIO", help="Folder of the output files of AUDIO.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing outputs of AUDIO, also edited ones.",
)
@click.option(
    "--channel",
    type=Channel("mix"),
    default="mix",
    help="Channel of AUDIO to align: mix (mean of all), or a number, counted from 0.",
)
@click.option(
    "--g2p/--no-g2p",
    default=True,
    help="Prediction of pronunciations for words that the lexicon of a phone system lacks (of CUTS only).",
)
@model_options
def align(
    model, cuts, out, ctm, formats, output_dir, overwrite, channel, g2p, checkpoint, max_minutes, batch_seconds,
    workers, device, precision, threads,
) -> None:  # fmt: skip
    """Find the times of each word of transcripts, or of a long recording with its text.

    A manifest CUTS (*.jsonl.gz) is aligned with its transcripts: OUT is the manifest with lhotse's alignments "word"
    and "unit", in seconds from the start of the cut. Of several pronunciations of a word, the one on the best path is
    aligned; words that the lexicon of a phone system lacks get predicted ones, and are named. Cuts that cannot be
    aligned are listed and left out. A CTM identifies a word's audio by the recording only, so each recording needs its
    own id, without white space.

    Any other file is a recording AUDIO, of any length, with its TEXT (plain UTF-8), which may be partly wrong: words
    that are not in the audio, and speech that is not in the text, are found and reported. Writes NAME.aligned.TextGrid,
    NAME.aligned.ctm and NAME.aligned.json, with a confidence for each word. Case and punctuation of the text are
    adapted to the model's units. A rerun does not align again what is done, and files that were edited since are kept.

    \b
    asrtool align exp/transformer data/train.jsonl.gz data/train_aligned.jsonl.gz
    asrtool align exp/transformer data/test.jsonl.gz data/test_aligned.jsonl.gz --ctm exp/transformer/test.ctm
    asrtool align exp/transformer talk.mp3 talk.txt
    """
    is_manifest = cuts.name.endswith(MANIFESTS) or cuts.is_dir()
    if is_manifest:
        refuse_options(("channel", "formats", "output_dir", "overwrite"), f"recordings, and {cuts} is a manifest")
    else:
        names = ("ctm", "g2p", "max_minutes", "batch_seconds", "workers")
        refuse_options(names, f"manifests, and {cuts} is a recording")
    import torch

    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(model, checkpoint, device, precision)
    if is_manifest:
        from asrtool.decoding.align import align as run

        print_text(f"{out}: {run(experiment, cuts, out, ctm, batch_seconds, workers, max_minutes, g2p)}")
        return
    from asrtool.inference.alignment_outputs import align_to_files

    chosen = joined_formats(formats) or FORMATS
    for line in align_to_files(experiment, cuts, out, chosen, output_dir, channel, overwrite):
        print_text(line)
