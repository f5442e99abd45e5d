"""`asrtool prepare`: from a corpus to a checked manifest."""

from pathlib import Path

import click

from asrtool.cli.options import NOT_NEGATIVE, PATH, allow_commands

RATE = click.IntRange(1000, 384_000)  # Hz: what asrtool/data/audio.py takes for the rate of audio
CHANNEL = click.IntRange(0, 1023)
SUFFIXES = (".jsonl.gz", ".jsonl")


@click.group()
def prepare() -> None:
    """Turn a corpus into a checked manifest (*.jsonl.gz).

    Every audio file is opened and its end read; whatever is wrong is listed, and nothing is written unless --skip-bad.
    """


def _common(command):
    """The options that every layout shares."""
    options = [
        click.option("--sampling-rate", default=16000, type=RATE, help="Sampling rate of all audio, in Hz."),
        click.option("--resample", is_flag=True, help="Resample audio at another rate while reading it."),
        click.option("--channel", type=CHANNEL, help="Channel to use of audio that has several, counted from 0."),
        click.option(
            "--case", type=click.Choice(["keep", "upper", "lower"]), default="keep", help="Case of the transcripts."
        ),
        click.option("--unlabelled", is_flag=True, help="Take utterances without a transcript, too."),
        click.option(
            "--end-tolerance",
            default=0.1,
            type=NOT_NEGATIVE,
            help="Seconds that an utterance may end after its recording; its end is then that of the recording.",
        ),
        click.option("--skip-bad", is_flag=True, help="List bad utterances and leave them out."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _write(utterances, out: Path, **settings) -> None:
    from asrtool.data.manifest import write_manifest

    click.echo(f"{out}: {write_manifest(utterances, out, **settings)}")


def _require_output(out: Path, *inputs: Path | None) -> None:
    from asrtool.files import require_output

    require_output(out, SUFFIXES, filter(None, inputs))


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", "parts", multiple=True, required=True, help="A folder of the corpus; may be repeated.")
@click.option("--speakers", help="Only these speakers: comma-separated, or a file with one a line.")
@click.option("--exclude-speakers", help="All speakers but these.")
@_common
def librispeech(corpus, out, parts, speakers, exclude_speakers, **settings) -> None:
    """A tree in LibriSpeech's layout: PART/SPEAKER/CHAPTER/*.trans.txt and audio.

    \b
    asrtool prepare librispeech /corpora/LibriSpeech data/train.jsonl.gz --part train-clean-100 --part train-clean-360
    asrtool prepare librispeech /corpora/LibriSpeech data/dev.jsonl.gz --part train-clean-5 --speakers 1737,2136
    """
    from asrtool.data.corpora import choose_speakers
    from asrtool.data.corpora import read_librispeech as read

    _require_output(out)
    _write(choose_speakers(read(corpus, list(parts)), speakers, exclude_speakers), out, **settings)


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", type=click.Choice(["train", "test"]), required=True, help="Which 30 of the 60 recordings.")
@_common
def yesno(corpus, out, part, **settings) -> None:
    """The yesno corpus (OpenSLR 1), 8 kHz: file names are the transcripts.

    \b
    asrtool prepare yesno download/waves_yesno data/train.jsonl.gz --part train --sampling-rate 8000
    """
    from asrtool.data.corpora import read_yesno as read

    _require_output(out)
    _write(read(corpus, part), out, **settings)


@prepare.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option("--audio-root", type=PATH, help="Folder of the relative paths in wav.scp; by default the current one.")
@allow_commands
@_common
def kaldi(folder, out, audio_root, unlabelled, **settings) -> None:
    """A Kaldi data folder: wav.scp and text, and segments and utt2spk where they are.

    \b
    asrtool prepare kaldi /corpora/mine/data/train data/train.jsonl.gz
    """
    from asrtool.data.corpora import read_kaldi as read

    _require_output(out, *(folder.iterdir() if folder.is_dir() else ()))
    _write(read(folder, audio_root, unlabelled), out, unlabelled=unlabelled, **settings)


def _columns(_context, _option, pairs: tuple[str, ...]) -> dict[str, str]:
    """{"text": "sentence"} of --column text=sentence."""
    from asrtool.data.tables import COLUMNS
    from asrtool.errors import did_you_mean

    columns = {}
    for pair in pairs:
        column, sign, name = pair.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{pair!r} is not COLUMN=NAME, such as text=sentence")
        if column not in COLUMNS:
            raise click.BadParameter(f"no column {column!r}; {did_you_mean(column, COLUMNS)}")
        columns[column] = name
    return columns


def _header(_context, _option, names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None


def _delimiter(_context, _option, value: str | None) -> str | None:
    """The character of --delimiter, which may be given by its name."""
    from asrtool.data.tables import DELIMITERS

    sign = DELIMITERS.get(value, {"\\t": "\t"}.get(value, value))
    if sign is not None and sign not in DELIMITERS.values():
        raise click.BadParameter(f"{value!r} is none of {', '.join(DELIMITERS)}, nor one of these characters")
    return sign


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--column",
    "columns",
    multiple=True,
    callback=_columns,
    metavar="COLUMN=NAME",
    help="The header's name of a column, such as text=sentence; may be repeated.",
)
@click.option("--header", callback=_header, help="Names of the columns of a table without a header: audio,text.")
@click.option(
    "--delimiter",
    callback=_delimiter,
    help="Delimiter of the fields: comma, semicolon, tab or bar. By default it is recognised by the header.",
)
@click.option("--audio-root", type=PATH, help="Folder of the relative audio paths; by default the table's.")
@_common
def table(file, out, columns, header, delimiter, audio_root, unlabelled, **settings) -> None:
    """A table with a header: audio and text; optionally id, speaker, start, end (seconds) and channel (from 0).

    Usual names of other tools, such as path and sentence, are recognised. Comma- and semicolon-separated fields may be
    quoted; tab- and bar-separated ones are taken as they are.

    \b
    asrtool prepare table mine.tsv data/train.jsonl.gz --case upper
    asrtool prepare table cv/train.tsv data/train.jsonl.gz --audio-root cv/clips --resample
    asrtool prepare table metadata.csv data/train.jsonl.gz --header audio,text --delimiter bar --audio-root wavs
    """
    from asrtool.data.tables import TableLayout
    from asrtool.data.tables import read_table as read

    _require_output(out, file)
    layout = TableLayout(columns, header, delimiter, audio_root, unlabelled)
    _write(read(file, layout), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("out", type=PATH)
@click.option("--cuts", type=PATH, help="A manifest of lhotse's cuts.")
@click.option("--recordings", type=PATH, help="A manifest of lhotse's recordings, with --supervisions.")
@click.option("--supervisions", type=PATH, help="A manifest of lhotse's supervisions, with --recordings.")
@allow_commands
@_common
def lhotse(out, cuts, recordings, supervisions, **settings) -> None:
    """Manifests of lhotse (*.jsonl.gz or *.jsonl), read line by line.

    \b
    asrtool prepare lhotse data/train.jsonl.gz --cuts fbank/train_cuts.jsonl.gz
    asrtool prepare lhotse data/train.jsonl.gz --recordings rec.jsonl.gz --supervisions sup.jsonl.gz
    """
    from asrtool.data.manifest import copy_manifest, read_lhotse

    _require_output(out, cuts, recordings, supervisions)
    click.echo(f"{out}: {copy_manifest(read_lhotse(cuts, recordings, supervisions), out, **settings)}")
