"""`asrtool segment`."""

import click

from asrtool.cli.options import (
    NUMBER,
    PATH,
    POSITIVE,
    SECONDS,
    Channel,
    checkpoint_option,
    device_option,
    precision_option,
    threads_option,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("model", type=PATH)
@click.argument("audio", type=PATH)
@click.argument("text", type=PATH)
@click.argument("out", type=PATH)
@click.option("--min-seconds", default=1.0, type=POSITIVE, help="Shortest utterance in seconds.")
@click.option("--max-seconds", default=20.0, type=SECONDS, help="Longest segment in seconds.")
@click.option(
    "--min-score",
    default=-1.5,
    type=NUMBER,
    help="Lowest score of an utterance: its log-probability compared with the best units, for each unit, at most 0.",
)
@click.option("--speaker", show_default="none", help="Speaker of the recording, for the manifest.")
@click.option(
    "--channel",
    type=Channel("mix"),
    default="mix",
    help="Channel to recognise: a number, counted from 0; mix is for recordings with one channel.",
)
@checkpoint_option()
@device_option()
@precision_option("fp32")
@threads_option()
def segment(
    model,
    audio,
    text,
    out,
    min_seconds,
    max_seconds,
    min_score,
    speaker,
    channel,
    checkpoint,
    device,
    precision,
    threads,
) -> None:
    """Cut a long recording with its text into utterances to train on.

    OUT is a manifest (*.jsonl.gz) of utterances, cut at pauses and ends of sentences or lines. Words of the TEXT (plain
    UTF-8) that are not in the AUDIO are left out of the transcripts, and speech that the text does not have is in no
    utterance. Each cut has the custom field alignment_score, and its words have times. What is too short or has a poor
    score is left out and listed.

    \b
    asrtool segment exp/transformer talk.wav talk.txt data/talk.jsonl.gz
    """
    import torch

    from asrtool.experiment import open_experiment
    from asrtool.inference.segmentation import SegmentOptions, segment_file
    from asrtool.inference.utterance_cuts import CutLimits

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(model, checkpoint, device, precision)
    options = SegmentOptions(CutLimits(min_seconds, max_seconds), min_score, speaker)
    for line in segment_file(experiment, audio, text, out, options, channel):
        print_text(line)
