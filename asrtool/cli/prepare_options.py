"""Options that the commands of `asrtool prepare` share."""

from collections.abc import Mapping
from typing import Any

import click

from asrtool.cli.options import NOT_NEGATIVE, PATH, Channel, add_options, case_option

RATE = click.IntRange(1000, 384_000)  # Hz: the sampling rates that asrtool/data/audio.py accepts


# The options of every layout.
common_options = add_options(
    click.option("--sampling-rate", default=16000, type=RATE, help="Sampling rate of all audio in Hz."),
    click.option("--resample", is_flag=True, help="Resample audio at another rate while it is read."),
    click.option(
        "--channel",
        type=Channel(),
        show_default="the only channel",
        help="Channel of recordings that have several, counted from 0.",
    ),
    case_option(),
    click.option("--unlabelled", is_flag=True, help="Accept utterances without a transcript."),
    click.option(
        "--end-tolerance",
        default=0.1,
        type=NOT_NEGATIVE,
        help="Seconds that an utterance may end after its recording; it is then cut off at the end of the recording.",
    ),
    click.option("--skip-bad", is_flag=True, help="List bad utterances and leave them out."),
)


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
    from asrtool.data.table_rows import DELIMITERS

    if value is None:
        return None
    if value == "\\t":
        return "\t"
    delimiter = DELIMITERS.get(value, value)
    if delimiter not in DELIMITERS.values():
        raise click.BadParameter(f"{value!r} is none of {', '.join(DELIMITERS)}, nor one of these characters")
    return delimiter


# Names of the columns of a table.
column_options = add_options(
    click.option(
        "--audio-column", metavar="NAME", show_default="recognised by its name", help="Column of the audio files."
    ),
    click.option(
        "--text-column", metavar="NAME", show_default="recognised by its name", help="Column of the transcripts."
    ),
    click.option(
        "--speaker-column", metavar="NAME", show_default="recognised by its name", help="Column of the speakers."
    ),
    click.option(
        "--column",
        "columns",
        multiple=True,
        callback=_columns,
        metavar="COLUMN=NAME",
        help="Column of asrtool and its name in the header, such as start=begin; may be repeated.",
    ),
)

audio_root_option = click.option(
    "--audio-root",
    type=PATH,
    show_default="the table's folder, for Kaldi the current folder",
    help="Folder where relative audio paths start.",
)

# How the columns of a table without a header are called, and what separates them.
header_options = add_options(
    click.option(
        "--header",
        callback=_header,
        metavar="NAMES",
        show_default="the first line",
        help="Comma-separated names of the columns of a table without a header, such as audio,text.",
    ),
    click.option(
        "--delimiter",
        callback=_delimiter,
        show_default="recognised by the header",
        help="Delimiter of the fields: comma, semicolon, tab or bar.",
    ),
)

# Where the transcripts and speakers of a folder of audio files are.
folder_options = add_options(
    click.option(
        "--metadata",
        type=PATH,
        show_default="recognised",
        help="Table of the transcripts, or a file of lines NAME TEXT; a relative path starts in FOLDER.",
    ),
    click.option(
        "--text-suffix", show_default="recognised", help="Suffix of the text files with the transcripts, such as .lab."
    ),
    click.option(
        "--audio-suffix", show_default="those of all formats", help="Suffix of the audio files, such as .wav."
    ),
    click.option(
        "--name-pattern",
        metavar="PATTERN",
        show_default="none",
        help="Pattern of the file names, such as {text}_{speaker}_{index}; the fields text, speaker and id are used.",
    ),
    click.option(
        "--speaker-from",
        type=click.Choice(["folder"]),
        show_default="no speakers",
        help="Speaker of an audio file that has no other: the name of its folder.",
    ),
)


def named_columns(options: dict[str, Any]) -> Mapping[str, str]:
    """Takes the column options out of `options`; returns the columns that they name."""
    columns = dict(options.pop("columns"))
    for column in ("audio", "text", "speaker"):
        if name := options.pop(f"{column}_column"):
            columns[column] = name
    return columns
