"""`asrtool new`: a recipe for a corpus."""

from pathlib import Path

import click

from asrtool.cli.options import CASES, PATH, POSITIVE, refuse_options
from asrtool.cli.prepare_options import (
    audio_root_option,
    column_options,
    folder_options,
    header_options,
    named_columns,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=PATH,
    required=True,
    help="Corpus: a folder, a table, a manifest, or lhotse:NAME.",
)
@column_options
@header_options
@audio_root_option
@folder_options
@click.option("--language", metavar="CODE", show_default="English is recognised", help="Language, such as en or de.")
@click.option(
    "--case", type=CASES, show_default="lower, if the text has both", help="Case that the text is changed to."
)
@click.option(
    "--lexicon",
    type=PATH,
    help="Lexicon file, with a line WORD UNIT UNIT for each pronunciation. The units of the model are then its phones.",
)
@click.option(
    "--lm-text", type=PATH, show_default="none", help="Text file for the language model, one sentence a line."
)
@click.option(
    "--training-hours",
    type=POSITIVE,
    show_default="1.5 on a CPU, 24 on GPUs",
    help="Longest training in hours, as estimated for this machine.",
)
@click.option(
    "--download",
    type=PATH,
    show_default="none",
    help="For lhotse:NAME, folder of the corpus, or where to download it.",
)
@click.option(
    "--out",
    type=PATH,
    show_default="egs/ of the checkout",
    help="Folder in which the recipe NAME is created.",
)
def new(name, source, case, language, lexicon, lm_text, training_hours, download, out, **layout) -> None:
    """Create the recipe egs/NAME for a corpus, which runs as it is.

    The corpus may be a table (csv, tsv, jsonl), a folder of audio files with transcripts in text files, in a table or
    in the file names, a Kaldi data folder, manifests of lhotse or NeMo, the layout audiofolder of Hugging Face, or the
    name of one of lhotse's own recipes. It and this machine are measured, and units, model, batches, length of training
    and augmentation chosen by it; every file of the recipe says why. Dev and test sets are split off, by speaker where
    speakers are known, unless the corpus has its own.

    \b
    asrtool new mine --from /corpora/mine                     # the layout is recognised
    asrtool new mine --from mine.csv --audio-column file --text-column sentence
    asrtool new mine --from data/train --lexicon lexicon.txt --lm-text text.txt
    asrtool new digits8k --from recordings --name-pattern "{text}_{speaker}_{index}"
    asrtool new aishell --from lhotse:aishell --download /corpora/aishell
    bash egs/mine/run.sh                                      # then
    """
    from asrtool.data.corpus_detection import SourceOptions
    from asrtool.errors import require_file
    from asrtool.recipes.create import Request, create_recipe
    from asrtool.recipes.lhotse_corpora import PREFIX
    from asrtool.recipes.summary import recipe_lines
    from asrtool.recipes.unit_choices import UserText

    if not str(source).startswith(PREFIX):
        refuse_options(("download",), f"--from {PREFIX}NAME")
    files: dict[str, Path | None] = {"lexicon": lexicon, "lm_text": lm_text}
    for option, path in files.items():
        if path is not None:
            files[option] = require_file(path, f"--{option.replace('_', '-')}", "give an existing file").absolute()
    columns = named_columns(layout)
    recipe = create_recipe(
        Request(
            name=name,
            source=str(source),
            options=SourceOptions(columns=columns, **layout),
            user=UserText(files["lexicon"], files["lm_text"], language),
            case=case,
            out=out,
            training_hours=training_hours,
            download=download,
        )
    )
    print_text("\n".join(recipe_lines(recipe)))
