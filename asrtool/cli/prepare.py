"""`asrtool prepare`: from a corpus to a checked manifest."""

from pathlib import Path

import click

from asrtool.cli.options import PATH, allow_commands, refuse_options
from asrtool.cli.prepare_options import (
    audio_root_option,
    column_options,
    common_options,
    folder_options,
    header_options,
    named_columns,
)
from asrtool.cli.speaker_options import speaker_options
from asrtool.cli.text_output import print_text

SUFFIXES = (".jsonl.gz", ".jsonl")


@click.group()
def prepare() -> None:
    """Turn a corpus into a checked manifest (*.jsonl.gz).

    Every audio file is opened and its end is read. All problems are listed, and nothing is written unless --skip-bad
    is given.
    """


def _write(utterances, out: Path, **settings) -> None:
    from asrtool.data.manifest import write_manifest

    print_text(f"{out}: {write_manifest(utterances, out, **settings)}")


def _require_output(out: Path, *inputs: Path | None) -> None:
    from asrtool.files import require_output

    require_output(out, SUFFIXES, filter(None, inputs))


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", "parts", multiple=True, required=True, help="Folder of the corpus to read; may be repeated.")
@speaker_options
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
@audio_root_option
@click.option(
    "--kaldi-alignments",
    type=PATH,
    help="Folder of Kaldi's alignments of the utterances. It has ali.*.gz and final.mdl, as of steps/align_fmllr.sh; "
    "the pdf of each frame becomes a target of objective ce.",
)
@allow_commands
@common_options
def kaldi(folder, out, audio_root, kaldi_alignments, unlabelled, **settings) -> None:
    """Read a Kaldi data folder.

    It needs wav.scp and, without --unlabelled, text; segments and utt2spk are read if they exist. With
    --kaldi-alignments, an utterance that Kaldi failed to align is a bad one, which --skip-bad leaves out.

    \b
    asrtool prepare kaldi /corpora/mine/data/train data/train.jsonl.gz
    asrtool prepare kaldi data/train train.jsonl.gz --kaldi-alignments exp/tri3b_ali --skip-bad
    """
    from asrtool.data.kaldi_folder import read_kaldi

    _require_output(out, *(folder.iterdir() if folder.is_dir() else ()))
    if kaldi_alignments:
        from asrtool.data.kaldi_alignments import read_kaldi_alignments

        settings["complete"] = read_kaldi_alignments(kaldi_alignments).add_to
    _write(read_kaldi(folder, audio_root, unlabelled), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@column_options
@header_options
@audio_root_option
@common_options
def table(file, out, header, delimiter, audio_root, unlabelled, **settings) -> None:
    """Read a table with a header, or JSON objects, one a line.

    Its columns are audio and text, and optionally id, speaker, start, end and duration (in seconds) and channel (from
    0). Common column names of other tools, such as path and sentence, are recognised. Comma- and semicolon-separated
    fields may be quoted; tab- and bar-separated fields are read without quotes. Files *.jsonl have an object on each
    line, whose keys are the columns.

    \b
    asrtool prepare table mine.tsv data/train.jsonl.gz --case upper
    asrtool prepare table cv/train.tsv data/train.jsonl.gz --audio-root cv/clips --resample
    asrtool prepare table mine.csv data/train.jsonl.gz --audio-column Datei --text-column Satz
    asrtool prepare table metadata.csv data/train.jsonl.gz --header audio,text --delimiter bar --audio-root wavs
    """
    from asrtool.data.table_rows import JSON_SUFFIXES
    from asrtool.data.tables import TableLayout, read_table

    if file.suffix in JSON_SUFFIXES:
        refuse_options(("header", "delimiter"), f"tables of fields, and {file} has JSON objects")
    _require_output(out, file)
    columns = named_columns(settings)
    layout = TableLayout(
        columns=columns, header=header, delimiter=delimiter, audio_root=audio_root, unlabelled=unlabelled
    )
    _write(read_table(file, layout), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@audio_root_option
@common_options
def nemo(file, out, audio_root, unlabelled, **settings) -> None:
    """Read a manifest of NeMo: JSON objects, one a line.

    They have audio_filepath and text, and optionally offset and duration (in seconds) and speaker.

    \b
    asrtool prepare nemo train_manifest.json data/train.jsonl.gz
    """
    from asrtool.data.tables import TableLayout, read_table

    _require_output(out, file)
    layout = TableLayout(audio_root=audio_root, unlabelled=unlabelled, is_json=True)
    _write(read_table(file, layout), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@column_options
@header_options
@folder_options
@common_options
def folder(
    folder, out, metadata, header, delimiter, text_suffix, audio_suffix, name_pattern, speaker_from, unlabelled,
    **settings,
) -> None:  # fmt: skip
    """Read a folder of audio files, at any depth.

    The transcripts are in a text file of the same name for each audio file (x.wav, x.txt), in one table (metadata.csv
    and others, also the layout audiofolder of Hugging Face, and tables without a header), in files of lines NAME TEXT
    (transcripts.txt, LibriSpeech's *.trans.txt), or in the file names. Which it is is recognised, or an error names the
    options that say it. With --unlabelled, audio without a transcript is taken, e.g. noise.

    \b
    asrtool prepare folder recordings data/train.jsonl.gz
    asrtool prepare folder recordings data/train.jsonl.gz --text-suffix .lab --speaker-from folder
    asrtool prepare folder digits data/train.jsonl.gz --name-pattern "{text}_{speaker}_{index}" --sampling-rate 8000
    asrtool prepare folder noise data/noise.jsonl.gz --unlabelled --resample
    """
    from asrtool.data.audio_folder import read_plan
    from asrtool.data.folder_plan import FolderLayout, plan_folder
    from asrtool.data.tables import TableLayout

    table_layout = TableLayout(columns=named_columns(settings), header=header, delimiter=delimiter)
    layout = FolderLayout(
        metadata, table_layout, text_suffix, audio_suffix, name_pattern, speaker_from, unlabelled=unlabelled
    )
    _require_output(out)
    plan = plan_folder(folder, layout)
    _require_output(out, *plan.files)
    _write(read_plan(plan), out, unlabelled=unlabelled, **settings)


@prepare.command()
@click.argument("out", type=PATH)
@click.option("--cuts", type=PATH, help="Cut manifest of lhotse.")
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
    from asrtool.data.lhotse_manifest import copy_manifest
    from asrtool.data.lhotse_sets import read_lhotse

    _require_output(out, cuts, recordings, supervisions)
    print_text(f"{out}: {copy_manifest(read_lhotse(cuts, recordings, supervisions), out, **settings)}")
