"""`asrtool lexicon`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from asrtool.cli.options import COUNT, PATH, case_option
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("texts", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="Dictionary: cmudict, or a lexicon file. May be repeated; the first with a word gives its pronunciations.",
)
@click.option(
    "--unknown",
    type=click.Choice(["drop", "g2p", "characters"]),
    default="drop",
    help="Treatment of words that no source has: leave them out, predict a pronunciation, or take their characters.",
)
@click.option(
    "--top",
    type=COUNT,
    show_default="all words",
    help="Number of words of texts and word lists to keep, the most frequent ones.",
)
@click.option(
    "--min-count",
    default=1,
    type=COUNT,
    help="Smallest number of occurrences of a word in texts and word lists.",
)
@case_option()
@click.option(
    "--stress",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    help="Stress digits of ARPAbet's vowels: keep AH0 and AH1 apart, or drop the digits.",
)
@click.option(
    "--aligned",
    type=PATH,
    show_default="the sources' probabilities",
    help="Manifest that asrtool align has written, whose pronunciations are counted, for their probabilities.",
)
@click.option(
    "--phones", type=PATH, show_default="any phone", help="File of the phones that the sources are allowed to have."
)
def lexicon(texts, out, sources, unknown, top, min_count, case, stress, aligned, phones) -> None:
    """Create a lexicon for the words of manifests and texts.

    TEXTS are manifests, text files and word lists (.gz too).

    It has all words of the manifests, whatever --top and --min-count are, since training needs them.

    OUT is a text file with a line for each pronunciation, WORD PH PH ..., or WORD PROBABILITY PH PH ... if sources have
    probabilities, or with --aligned. An existing OUT is replaced if it is a lexicon of the same phones. A source may
    have these formats or the format of CMUdict; cmudict is the dictionary in the package pocketsphinx: American
    English, lower case, no stress.

    \b
    asrtool lexicon data/train.jsonl.gz data/lang/lexicon.txt --source cmudict --case upper --unknown g2p
    asrtool lexicon data/train.jsonl.gz lm-text.txt.gz data/lang/lexicon.txt --source mine.txt --source cmudict \\
        --case upper --top 64000
    asrtool lexicon data/train.jsonl.gz data/lang/lexicon.txt --unknown characters     # no dictionary at all
    asrtool lexicon data/train.jsonl.gz lm-text.txt.gz data/lang/weighted_lexicon.txt --top 64000 \\
        --source data/lang/lexicon.txt --aligned data/train_aligned.jsonl.gz

    g2p learns from the sources with Phonetisaurus (pip install phonetisaurus), in about four minutes from CMUdict. On
    held-out words of CMUdict its phone error rate is about 7 %, and 10 % when it learns from 20,000 words only.
    """
    from asrtool.data.pronunciation_counts import count_pronunciations
    from asrtool.data.texts import is_manifest
    from asrtool.errors import require_file
    from asrtool.readers import read_lines
    from asrtool.text.lexicon import is_reserved, require_lexicon_output, write_lexicon
    from asrtool.text.lexicon_building import CMUDICT, build_lexicon, read_dictionary, with_probabilities
    from asrtool.text.words import composed, count_words, most_frequent_words

    listed = (phone for line in read_lines(phones) for phone in composed(line).split()) if phones else ()
    allowed = {phone for phone in listed if not is_reserved(phone)} if phones else None
    dictionaries = {name: read_dictionary(name, stress, case, allowed) for name in sources}
    transcript_counts = count_words(_lines(path for path in texts if is_manifest(path)), case)
    counts = transcript_counts + count_words(_lines(path for path in texts if not is_manifest(path)), case)
    symbols = {symbol for dictionary in dictionaries.values() for symbol in dictionary.symbols}
    if unknown == "characters":
        symbols |= set("".join(counts))
    files: list[str | Path] = [*texts, *(name for name in sources if name != CMUDICT), *filter(None, [phones, aligned])]
    require_lexicon_output(out, files, symbols)
    if aligned:  # before g2p takes its minutes
        require_file(aligned, "aligned manifest", "make it with `asrtool align`")
    words = {*most_frequent_words(counts, top, min_count), *transcript_counts}
    word_counts = Counter({word: counts[word] for word in words})
    report = build_lexicon(most_frequent_words(word_counts), dictionaries, unknown)
    if aligned:
        counted = count_pronunciations(aligned, report.lexicon, case)
        report = replace(report, lexicon=with_probabilities(report.lexicon, counted.counts))
    write_lexicon(report.lexicon, out)
    print_text(f"{out}: {report}")
    if aligned:
        print_text(f"{aligned}: {counted}")


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    """The transcripts of manifests, and the lines of text files."""
    from asrtool.data.texts import read_sentences
    from asrtool.progress import progress

    for path in paths:
        yield from progress(read_sentences(path), f"reading {path.name}", units="lines")
