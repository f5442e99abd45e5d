"""`asrtool report`."""

import logging
from pathlib import Path

import click

from asrtool.cli.options import PATH, checkpoint_option, device_option, refuse_options, threads_option
from asrtool.cli.text_output import print_text

logger = logging.getLogger(__name__)


@click.command()
@click.argument("exps", metavar="EXP ...", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, default="-", help="Markdown file to write; - prints the section.")
@click.option("--title", default="Systems", help="Title of the section; a file may have several sections.")
@click.option("--html", type=PATH, show_default="none", help="HTML page to write, about the errors of one experiment.")
@click.option(
    "--cuts",
    type=PATH,
    multiple=True,
    show_default="the manifests that were decoded",
    help="Manifest of cuts with the audio of the results, for --html; repeatable.",
)
@click.option(
    "--spk2gender",
    type=PATH,
    show_default="the genders in the manifests",
    help="File with the gender of each speaker, as in Kaldi: `SPEAKER m` or `SPEAKER f` a line.",
)
@click.option(
    "--worst", type=click.IntRange(0, 1000), default=20, help="Number of worst utterances of each set in the page."
)
@click.option("--audio/--no-audio", default=True, help="Include recordings, spectrograms and the SNR in the page.")
@checkpoint_option()
@device_option()
@threads_option(2)
def report(exps, out, title, html, cuts, spk2gender, worst, audio, checkpoint, device, threads) -> None:
    """Compare scored experiments in a Markdown file, or analyse the errors of one in an HTML page.

    Without --html the command writes a section. Its tables show the size and the training of each system with the
    revision of asrtool, the error rates of each set and method with 95 % intervals, real-time factors, the measurements
    of `asrtool stream`, and all commands. Values that were not measured are shown as "-". A section of the same title
    in the file is replaced, a new one is added at the end; all other text stays as it is.

    With --html it writes a page about the errors of one experiment EXP, or of some of its results, which are given by
    their folders. An experiment stands for all its sets: the summary lists the error rates of all methods, and the
    other sections are about the method with the lowest error rate of each set. They show error rates by speaker,
    length, speaking rate and SNR, the worst utterances with audio and spectrogram, confusions, words, confidence, and
    the curves of the training.
    The page is one file that loads nothing from elsewhere. It holds recordings unless --no-audio is given.

    \b
    asrtool report exp/transformer exp/blstm
    asrtool report exp/* --out RESULTS.md --title "mini LibriSpeech, 5 hours"
    asrtool report exp/transformer --html report.html
    asrtool report exp/transformer/decode/test/greedy --html report.html
    """
    if html:
        if out != Path("-"):
            raise click.UsageError("--out writes Markdown and --html a page; give one of them")
        refuse_options(("title",), "Markdown, without --html")
        _write_page(exps, html, cuts, spk2gender, worst, audio, checkpoint, device, threads)
        return
    refuse_options(("cuts", "spk2gender", "worst", "audio", "checkpoint"), "the page of --html")
    from asrtool.scoring.results import results_section, write_section
    from asrtool.scoring.systems import read_systems

    text = results_section(read_systems(exps), title)
    if out == Path("-"):
        print_text(text)
    else:
        write_section(out, title, text)
        logger.info(f"wrote the section '{title}' into {out}")


def _write_page(exps, html, cuts, spk2gender, worst, audio, checkpoint, device, threads) -> None:
    from asrtool.pages.report import ReportSettings, write_report

    settings = ReportSettings(
        manifests=cuts,
        spk2gender=spk2gender,
        audio=audio,
        worst=worst,
        checkpoint=checkpoint,
        device=device,
        threads=threads,
    )
    print_text(write_report(exps, html, settings))
