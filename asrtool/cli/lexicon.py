"""`asrtool lexicon`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from asrtool.cli.options import PATH, case_option

UNKNOWN = click.Choice(["drop", "g2p", "characters"])


@click.command()
@click.argument("texts", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option(
    "--source", "sources", multiple=True, help="cmudict, or a lexicon file; repeatable, the first one counts."
)
@click.option("--unknown", type=UNKNOWN, default="drop", help="What becomes of words that no source has.")
@click.option("--top", type=click.IntRange(min=1), help="Only so many words of texts and lists, the most frequent.")
@click.option(
    "--min-count", default=1, type=click.IntRange(min=1), help="Of texts and lists, only words that occur so often."
)
@case_option("Case that the words of texts and sources are changed to.")
@click.option(
    "--stress", type=click.Choice(["keep", "drop"]), default="keep", help="Stress of vowels: AH0 and AH1, or AH."
)
@click.option("--phones", type=PATH, help="A file of the phones that the sources may have; any by default.")
def lexicon(texts, out, sources, unknown, top, min_count, case, stress, phones) -> None:
    """Make the lexicon of the words in manifests, text files and word lists (.gz too).

    Words of manifests are all in it, for training needs them.

    OUT, a text file, gets a line a pronunciation, WORD PH PH ... One that is there already is replaced if it is a
    lexicon of the same phones. Sources may be of this form, of CMUdict's, or of Kaldi's with
    probabilities; cmudict is the one in the package pocketsphinx: American English, lower case, no stress.

    \b
    asrtool lexicon data/train.jsonl.gz data/lang/lexicon.txt --source cmudict --case upper --unknown g2p
    asrtool lexicon data/train.jsonl.gz lm-text.txt.gz data/lang/lexicon.txt --source mine.txt --source cmudict \\
        --case upper --top 64000
    asrtool lexicon data/train.jsonl.gz data/lang/lexicon.txt --unknown characters     # no dictionary at all

    g2p learns from the sources with Phonetisaurus (pip install phonetisaurus), in some four minutes from CMUdict. Of
    words of CMUdict that were kept from it, it has about 7 % of the phones wrong; having seen 20,000 words only, 10 %.
    """
    from asrtool.data.texts import is_manifest
    from asrtool.readers import read_lines
    from asrtool.text.lexicon import require_lexicon_output, write_lexicon
    from asrtool.text.pronounce import CMUDICT, pronounce, read_source
    from asrtool.text.words import composed, count_words, most_frequent

    allowed = {phone for line in read_lines(phones) for phone in composed(line).split()} if phones else None
    opened = {name: read_source(name, stress, case, allowed) for name in sources}
    said = count_words(_lines(path for path in texts if is_manifest(path)), case)
    counts = said + count_words(_lines(path for path in texts if not is_manifest(path)), case)
    written = {symbol for source in opened.values() for symbol in source.symbols}
    written |= set("".join(counts)) if unknown == "characters" else set()
    inputs = [*texts, *(name for name in sources if name != CMUDICT), *([phones] if phones else [])]
    require_lexicon_output(out, inputs, written)
    found = pronounce(most_frequent(counts, top, min_count) | said, opened, unknown)
    write_lexicon(found.lexicon, out)
    click.echo(f"{out}: {found}")


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    """The transcripts of manifests, and the lines of text files."""
    from asrtool.data.texts import read_sentences
    from asrtool.progress import progress

    for path in paths:
        yield from progress(read_sentences(path), f"reading {path.name}", units="lines")
