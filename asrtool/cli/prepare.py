"""`asrtool prepare`: from a corpus to a checked manifest."""

from pathlib import Path

import click

from asrtool.cli.options import PATH


@click.group()
def prepare() -> None:
    """Turn a corpus into a checked manifest (*.jsonl.gz).

    Every audio file is opened and its end read; whatever is wrong is listed, and nothing is written unless --skip-bad.
    """


def _common(command):
    """The options that every layout shares."""
    options = [
        click.option("--sampling-rate", default=16000, type=click.IntRange(min=1), help="Hz that all audio must have."),
        click.option("--resample", is_flag=True, help="Resample audio at another rate while reading it."),
        click.option("--case", type=click.Choice(["keep", "upper", "lower"]), default="keep", help="Of the text."),
        click.option("--skip-bad", is_flag=True, help="List bad utterances and leave them out."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _write(utterances, out: Path, jobs: int = 4, **options) -> None:
    from asrtool.data.manifest import write_manifest

    click.echo(f"{out}: {write_manifest(utterances, out, jobs=jobs, **options)}")


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", "parts", multiple=True, required=True, help="A folder of the corpus; may be repeated.")
@click.option("--speakers", help="Only these: comma-separated, or a file with one a line.")
@click.option("--exclude-speakers", help="All but these.")
@_common
def librispeech(corpus, out, parts, speakers, exclude_speakers, **options) -> None:
    """A tree in LibriSpeech's layout: PART/SPEAKER/CHAPTER/*.trans.txt and audio.

    \b
    asrtool prepare librispeech /corpora/LibriSpeech data/train.jsonl.gz --part train-clean-100 --part train-clean-360
    asrtool prepare librispeech /corpora/LibriSpeech data/dev.jsonl.gz --part train-clean-5 --speakers 1737,2136
    """
    from asrtool.data.corpora import choose_speakers
    from asrtool.data.corpora import librispeech as read

    _write(choose_speakers(read(corpus, list(parts)), speakers, exclude_speakers), out, **options)


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", type=click.Choice(["train", "test"]), required=True, help="Which 30 of the 60 recordings.")
@_common
def yesno(corpus, out, part, **options) -> None:
    """The yesno corpus (OpenSLR 1), 8 kHz: file names are the transcripts.

    \b
    asrtool prepare yesno download/waves_yesno data/train.jsonl.gz --part train --sampling-rate 8000
    """
    from asrtool.data.corpora import yesno as read

    _write(read(corpus, part), out, **options)


@prepare.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@_common
def kaldi(folder, out, **options) -> None:
    """A Kaldi data folder: wav.scp and text, and segments and utt2spk where they are.

    \b
    asrtool prepare kaldi /corpora/mine/data/train data/train.jsonl.gz
    """
    from asrtool.data.corpora import kaldi as read

    _write(read(folder), out, **options)


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@_common
def table(file, out, **options) -> None:
    """A .csv or .tsv with a header: audio and text; optionally id, speaker, start, end.

    \b
    asrtool prepare table mine.tsv data/train.jsonl.gz --case upper
    """
    from asrtool.data.corpora import table as read

    _write(read(file), out, **options)


@prepare.command()
@click.argument("out", type=PATH)
@click.option("--cuts", type=PATH, help="A CutSet.")
@click.option("--recordings", type=PATH, help="A RecordingSet, with --supervisions.")
@click.option("--supervisions", type=PATH, help="A SupervisionSet, with --recordings.")
@_common
def lhotse(out, cuts, recordings, supervisions, **options) -> None:
    """Manifests of lhotse, read lazily.

    \b
    asrtool prepare lhotse data/train.jsonl.gz --cuts fbank/train_cuts.jsonl.gz
    asrtool prepare lhotse data/train.jsonl.gz --recordings rec.jsonl.gz --supervisions sup.jsonl.gz
    """
    from asrtool.data.manifest import copy_manifest, read_lhotse

    click.echo(f"{out}: {copy_manifest(read_lhotse(cuts, recordings, supervisions), out, **options)}")
