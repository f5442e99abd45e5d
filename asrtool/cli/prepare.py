"""`asrtool prepare`: from a corpus to a checked manifest."""

from pathlib import Path

import click

from asrtool.cli.options import NOT_NEGATIVE, PATH, add_options, allow_commands, case_option

RATE = click.IntRange(1000, 384_000)  # Hz: the sampling rates that asrtool/data/audio.py accepts
CHANNEL = click.IntRange(0, 1023)
SUFFIXES = (".jsonl.gz", ".jsonl")


@click.group()
def prepare() -> None:
    """Turn a corpus into a checked manifest (*.jsonl.gz).

    Every audio file is opened and its end is read. All problems are listed, and nothing is written unless --skip-bad
    is given.
    """


# The options of every layout.
common_options = add_options(
    click.option("--sampling-rate", default=16000, type=RATE, help="Sampling rate of all audio in Hz."),
    click.option("--resample", is_flag=True, help="Resample audio at another rate while it is read."),
    click.option(
        "--channel",
        type=CHANNEL,
        show_default="the only channel",
        help="Channel to use of audio that has several, counted from 0.",
    ),
    case_option("Case of the transcripts."),
    click.option("--unlabelled", is_flag=True, help="Accept utterances without a transcript."),
    click.option(
        "--end-tolerance",
        default=0.1,
        type=NOT_NEGATIVE,
        help="Seconds that an utterance may end after its recording; it is then cut off at the end of the recording.",
    ),
    click.option("--skip-bad", is_flag=True, help="List bad utterances and leave them out."),
)


def _write(utterances, out: Path, **settings) -> None:
    from asrtool.data.manifest import write_manifest

    click.echo(f"{out}: {write_manifest(utterances, out, **settings)}")


def _require_output(out: Path, *inputs: Path | None) -> None:
    from asrtool.files import require_output

    require_output(out, SUFFIXES, filter(None, inputs))


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", "parts", multiple=True, required=True, help="Folder of the corpus to read; may be repeated.")
@click.option(
    "--speakers",
    show_default="all speakers",
    help="Speakers to take: comma-separated names, or a file with one a line.",
)
@click.option(
    "--exclude-speakers", show_default="none", help="Speakers to leave out: comma-separated names, or a file."
)
@common_options
def librispeech(corpus, out, parts, speakers, exclude_speakers, **settings) -> None:
    """Read a folder in LibriSpeech's layout.

    The layout is PART/SPEAKER/CHAPTER/*.trans.txt with the audio files next to it.

    \b
    asrtool prepare librispeech /corpora/LibriSpeech data/train.jsonl.gz --part train-clean-100 --part train-clean-360
    asrtool prepare librispeech /corpora/LibriSpeech data/dev.jsonl.gz --part train-clean-5 --speakers 1737,2136
    """
    from asrtool.data.corpora import choose_speakers, read_librispeech

    _require_output(out)
    utterances = choose_speakers(read_librispeech(corpus, list(parts)), speakers, exclude_speakers)
    _write(utterances, out, **settings)


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", type=click.Choice(["train", "test"]), required=True, help="Half of the 60 recordings to take.")
@common_options
def yesno(corpus, out, part, **settings) -> None:
    """Read the yesno corpus (OpenSLR 1), 8 kHz.

    The file names are the transcripts.

    \b
    asrtool prepare yesno download/waves_yesno data/train.jsonl.gz --part train --sampling-rate 8000
    """
    from asrtool.data.corpora import read_yesno

    _require_output(out)
    _write(read_yesno(corpus, part), out, **settings)


@prepare.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--audio-root", type=PATH, show_default="current folder", help="Folder where relative paths of wav.scp start."
)
@allow_commands
@common_options
def kaldi(folder, out, audio_root, unlabelled, **settings) -> None:
    """Read a Kaldi data folder.

    It needs wav.scp and text; segments and utt2spk are read if they exist.

    \b
    asrtool prepare kaldi /corpora/mine/data/train data/train.jsonl.gz
    """
    from asrtool.data.kaldi_folder import read_kaldi

    _require_output(out, *(folder.iterdir() if folder.is_dir() else ()))
    _write(read_kaldi(folder, audio_root, unlabelled), out, unlabelled=unlabelled, **settings)


def _columns(_context, _option, pairs: tuple[str, ...]) -> dict[str, str]:
    """Returns {"text": "sentence"} for --column text=sentence."""
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
    """Returns the character of --delimiter, which may be given by its name, such as tab."""
    from asrtool.data.tables import DELIMITERS

    if value is None:
        return None
    if value == "\\t":
        return "\t"
    delimiter = DELIMITERS.get(value, value)
    if delimiter not in DELIMITERS.values():
        raise click.BadParameter(f"{value!r} is none of {', '.join(DELIMITERS)}, nor one of these characters")
    return delimiter


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--column",
    "columns",
    multiple=True,
    callback=_columns,
    metavar="COLUMN=NAME",
    help="Column of asrtool and its name in the header, such as text=sentence; may be repeated.",
)
@click.option(
    "--header",
    callback=_header,
    metavar="NAMES",
    show_default="the first line",
    help="Comma-separated names of the columns of a table without a header, such as audio,text.",
)
@click.option(
    "--delimiter",
    callback=_delimiter,
    show_default="recognised by the header",
    help="Delimiter of the fields: comma, semicolon, tab or bar.",
)
@click.option(
    "--audio-root", type=PATH, show_default="the table's folder", help="Folder where relative audio paths start."
)
@common_options
def table(file, out, columns, header, delimiter, audio_root, unlabelled, **settings) -> None:
    """Read a table with a header.

    Its columns are audio and text, and optionally id, speaker, start, end (in seconds) and channel (from 0). Common
    column names of other tools, such as path and sentence, are recognised. Comma- and semicolon-separated fields may
    be quoted; tab- and bar-separated fields are read without quotes.

    \b
    asrtool prepare table mine.tsv data/train.jsonl.gz --case upper
    asrtool prepare table cv/train.tsv data/train.jsonl.gz --audio-root cv/clips --resample
    asrtool prepare table metadata.csv data/train.jsonl.gz --header audio,text --delimiter bar --audio-root wavs
    """
    from asrtool.data.tables import TableLayout, read_table

    _require_output(out, file)
    layout = TableLayout(
        columns=columns, header=header, delimiter=delimiter, audio_root=audio_root, unlabelled=unlabelled
    )
    _write(read_table(file, layout), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("out", type=PATH)
@click.option("--cuts", type=PATH, help="Manifest of lhotse's cuts.")
@click.option("--recordings", type=PATH, help="Manifest of lhotse's recordings; needs --supervisions.")
@click.option("--supervisions", type=PATH, help="Manifest of lhotse's supervisions; needs --recordings.")
@allow_commands
@common_options
def lhotse(out, cuts, recordings, supervisions, **settings) -> None:
    """Read manifests of lhotse (*.jsonl.gz or *.jsonl).

    They are read line by line.

    \b
    asrtool prepare lhotse data/train.jsonl.gz --cuts fbank/train_cuts.jsonl.gz
    asrtool prepare lhotse data/train.jsonl.gz --recordings rec.jsonl.gz --supervisions sup.jsonl.gz
    """
    from asrtool.data.manifest import copy_manifest, read_lhotse

    _require_output(out, cuts, recordings, supervisions)
    click.echo(f"{out}: {copy_manifest(read_lhotse(cuts, recordings, supervisions), out, **settings)}")
