"""`asrtool transcribe`."""

import click

from asrtool.cli.options import (
    JOBS,
    PATH,
    SECONDS,
    FormatList,
    batch_seconds_option,
    channels_option,
    checkpoint_option,
    device_option,
    joined_formats,
    precision_option,
    threads_option,
)
from asrtool.cli.search_options import (
    METHOD,
    graph_option,
    graph_search_options,
    hotwords_option,
    lattice_search_beam_option,
    lattice_search_options,
    nbest_option,
    no_rescore_option,
    prefix_search_options,
)
from asrtool.cli.text_output import print_text

VADS = click.Choice(["auto", "silero", "energy", "none"])
FORMATS = ("txt", "json", "srt", "vtt", "ctm", "textgrid", "tsv")  # the keys of asrtool.inference.outputs.FORMATS


@click.command()
@click.argument("model", type=PATH)
@click.argument("recordings", type=PATH, nargs=-1, metavar="[FILE|DIR|-]...")
@click.option(
    "--list",
    "list_file",
    type=PATH,
    help="Text file with further paths, one a line, as seen from here; # begins a comment line.",
)
@click.option(
    "--format",
    "formats",
    type=FormatList(FORMATS),
    multiple=True,
    show_default="txt",
    help="Formats of the output files, comma-separated; repeatable.",
)
@click.option(
    "--output-dir",
    type=PATH,
    show_default="beside each recording, or - without --format",
    help="Folder of the output files; - is standard output.",
)
@click.option("--keep-suffix", is_flag=True, help="Output names with the recording's suffix, such as talk.mp3.txt.")
@click.option(
    "--overwrite", is_flag=True, help="Replace existing outputs, also finished ones and files of other programs."
)
@channels_option
@click.option("--method", type=METHOD, show_default="the best that MODEL has the files for", help="Search method.")
@lattice_search_beam_option
@nbest_option
@prefix_search_options
@graph_option
@graph_search_options
@lattice_search_options
@no_rescore_option
@hotwords_option
@click.option("--jobs", default=1, type=JOBS, help="Number of processes. Graph search runs in them, beside the model.")
@click.option(
    "--max-seconds",
    type=SECONDS,
    show_default="the longest utterance of the training",
    help="Longest segment in seconds. Longer speech is cut at pauses.",
)
@click.option(
    "--vad",
    type=VADS,
    default="auto",
    help="Speech detector. Recordings are cut at its pauses: silero-vad, energy, none (everything is speech), or auto "
    "for silero-vad where it is installed.",
)
@checkpoint_option()
@batch_seconds_option(100.0)
@device_option()
@precision_option("fp32")
@threads_option()
def transcribe(
    model, recordings, list_file, formats, output_dir, keep_suffix, overwrite, channel, method, jobs, max_seconds,
    vad, checkpoint, batch_seconds, device, precision, threads, **options,
) -> None:  # fmt: skip
    """Write the text of recordings, with times and confidence.

    MODEL is an experiment folder or a pack. Recordings are audio or video of any length and sampling rate: files,
    folders with all audio below them, - for standard input. A file whose name begins with - is given as ./-NAME.

    The text goes to standard output, or to files with --format or --output-dir: beside each recording, or into the
    output folder with the sub-folders of DIR. A rerun skips what is done; outputs of other options, or of a recording
    that has changed, are written again. A recording that cannot be read is named, the others go on, and the exit status
    is 1.

    \b
    asrtool transcribe exp/mine talk.mp3
    asrtool transcribe exp/mine talk.mp3 --format srt,json
    asrtool transcribe exp/mine recordings --output-dir text --format txt --format ctm
    asrtool transcribe exp/mine call.wav --channel each --format tsv
    asrtool transcribe exp/mine --list recordings.txt --output-dir text --jobs 4
    sox talk.wav -t wav - trim 0 60 | asrtool transcribe exp/mine -
    asrtool transcribe exp/mine talk.mp3 --graph data/lang/graph --hotwords names.txt
    """
    import torch

    from asrtool.inference.model import load
    from asrtool.inference.output_plan import output_options
    from asrtool.inference.recordings import find_recordings
    from asrtool.inference.transcribe import system_settings, transcribe_to_files, transcribe_to_stdout

    given = {name: value for name, value in options.items() if value is not None}
    names = joined_formats(formats)
    found = find_recordings(recordings, list_file)
    outputs = output_options(found.recordings, names, output_dir, channel, keep_suffix, overwrite)
    if threads:
        torch.set_num_threads(threads)
    with load(
        model,
        device=device,
        method=method,
        jobs=jobs,
        vad=vad,
        checkpoint=checkpoint,
        batch_seconds=batch_seconds,
        precision=precision,
        max_seconds=max_seconds,
        **given,
    ) as system:
        if outputs.to_stdout:
            transcribe_to_stdout(system, found, outputs, lambda text: click.echo(text, nl=False))
        else:
            print_text(transcribe_to_files(system, found, outputs, system_settings(system)))
