"""Which words are wrong: confusions with examples, and the errors of words by how often the training has them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asrtool.data.shards import entries_with_dicts
from asrtool.data.speeds import speed_copy
from asrtool.pages.elements import Element, bar, bars, column, counted, table, text
from asrtool.pages.groups import bootstrap_interval
from asrtool.pages.results import DecodedUtterance
from asrtool.scoring.wer import GAP, Alignment

MAX_CONFUSIONS = 60  # of each kind; one beyond that occurs once or twice
MAX_EXAMPLES = 2  # of a confusion
CONTEXT = 3  # words before and after, in an example
MAX_WORDS = 200  # in the table of words
FREQUENCIES = ((0, 0), (1, 1), (2, 5), (6, 20), (21, 100), (101, 1000), (1001, None))  # in the training, from and to


@dataclass
class Confusion:
    """A reference word (GAP: an insertion) and what was recognised instead (GAP: a deletion)."""

    ref: str
    hyp: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


def confusions(utterances: Iterable[DecodedUtterance]) -> list[Confusion]:
    """Returns all confusions, the most frequent first, with examples from different utterances."""
    known: dict[tuple[str, str], Confusion] = {}
    for utterance in utterances:
        seen = set()
        for place, pair in enumerate(utterance.pairs):
            if pair[0] == pair[1]:
                continue
            confusion = known.setdefault(pair, Confusion(*pair))
            confusion.count += 1
            if len(confusion.examples) < MAX_EXAMPLES and pair not in seen:
                confusion.examples.append(f"{example_text(utterance.pairs, place)} ({utterance.id})")
            seen.add(pair)
    return sorted(known.values(), key=lambda one: (-one.count, one.ref, one.hyp))


def example_text(pairs: Alignment, place: int) -> str:
    """Returns an error within the words around it: "the cat [sat > sad] down"."""
    ref, hyp = pairs[place]
    before = [word for word, _ in pairs[:place] if word != GAP][-CONTEXT:]
    after = [word for word, _ in pairs[place + 1 :] if word != GAP][:CONTEXT]
    return " ".join([*before, f"[{ref or '-'} > {hyp or '-'}]", *after])


def confusion_elements(utterances: Sequence[DecodedUtterance], token_type: str) -> list[Element]:
    """Returns tables of substitutions, deletions and insertions with examples."""
    everything = confusions(utterances)
    kinds = (
        ("Substitutions", [c for c in everything if c.ref != GAP and c.hyp != GAP]),
        ("Deletions", [c for c in everything if c.hyp == GAP]),
        ("Insertions", [c for c in everything if c.ref == GAP]),
    )
    return [element for title, some in kinds for element in _confusion_table(title, some, token_type)]


def _confusion_table(title: str, some: list[Confusion], token_type: str) -> list[Element]:
    if not some:
        return [text(f"{title}: none.")]
    pair = [column("reference"), column("recognised")]
    columns = {"Substitutions": pair, "Deletions": pair[:1], "Insertions": pair[1:]}[title]
    total = sum(one.count for one in some)
    caption = f"{title}: {total:,} {token_type}, {len(some):,} different"
    heads = [*columns, column("count", "number"), column("examples")]
    rows = [[*filter(None, (c.ref, c.hyp)), c.count, " \u00b7 ".join(c.examples)] for c in some[:MAX_CONFUSIONS]]
    return [table(caption, heads, rows, shown=10)]


def training_words(manifests: Iterable[Path]) -> Counter[str]:
    """Returns the counts of the words in the transcripts of manifests; copies at other speeds count once.

    Raises UserError for a manifest that cannot be read.
    """
    words: Counter[str] = Counter()
    for path in manifests:
        seen = set()
        for _, cut_dict in entries_with_dicts(path):
            name = speed_copy(cut_dict).utterance
            if name in seen:
                continue
            seen.add(name)
            for supervision in cut_dict.get("supervisions") or ():
                words.update((supervision.get("text") or "").split())
    return words


@dataclass
class WordErrors:
    """How a word of the references was recognised."""

    count: int = 0
    wrong: int = 0  # substituted or deleted
    instead: Counter[str] = field(default_factory=Counter)


def word_errors(utterances: Iterable[DecodedUtterance]) -> dict[str, WordErrors]:
    """Returns the errors of each word of the references; insertions belong to no word of them."""
    words: defaultdict[str, WordErrors] = defaultdict(WordErrors)
    for utterance in utterances:
        for ref, hyp in utterance.pairs:
            if ref == GAP:
                continue
            word = words[ref]
            word.count += 1
            if ref != hyp:
                word.wrong += 1
                word.instead[hyp or "(deleted)"] += 1
    return dict(words)


def word_elements(
    utterances: Sequence[DecodedUtterance], training: Counter[str] | None, token_type: str = "words"
) -> list[Element]:
    """Returns the errors of words by their frequency in the training transcripts, which are None where not known.

    Phones have no frequency there: the transcripts are words.
    """
    words = word_errors(utterances)
    if training is None or token_type != "words":
        return [_word_table(words, None, token_type)]
    total = sum(word.count for word in words.values())
    unseen = [word for name, word in words.items() if not training[name]]
    oov = sum(word.count for word in unseen)
    wrong = sum(word.wrong for word in unseen)
    line = f"{oov:,} of {total:,} words ({100 * oov / total:.2f} %) do not occur in the training transcripts"
    line += f"; {100 * wrong / oov:.1f} % of them are wrong." if oov else "."
    return [text(line), _frequency_bars(utterances, training), _word_table(words, training)]


def _frequency_bars(utterances: Sequence[DecodedUtterance], training: Counter[str]) -> Element:
    items = []
    for low, high in FREQUENCIES:
        counts = np.array([_counts_of_words(u, training, low, high) for u in utterances])  # (N, 2): words, wrong
        total, wrong = counts.sum(axis=0)
        if not total:
            continue
        rate = 100 * wrong / total
        used = counts[counts[:, 0] > 0]
        interval = bootstrap_interval(used[:, 1], used[:, 0])
        items.append(bar(_range_name(low, high), float(rate), interval, counted(total, "word")))
    return bars("Words by their count in the training transcripts", "% wrong, with 95 % interval", items)


def _counts_of_words(
    utterance: DecodedUtterance, training: Counter[str], low: int, high: int | None
) -> tuple[int, int]:
    """Returns how many words of the reference are in a range of frequencies, and how many of these are wrong."""
    chosen = [
        ref != hyp
        for ref, hyp in utterance.pairs
        if ref != GAP and low <= training[ref] and (high is None or training[ref] <= high)
    ]
    return len(chosen), sum(chosen)


def _range_name(low: int, high: int | None) -> str:
    if high == 0:
        return "never (out of vocabulary)"
    if high is None:
        return f"more than {low - 1:,} times"
    return f"{low:,} to {high:,} times" if low != high else "once"


def _word_table(words: dict[str, WordErrors], training: Counter[str] | None, token_type: str = "words") -> Element:
    ranked = sorted(words.items(), key=lambda item: (-item[1].wrong, -item[1].count, item[0]))[:MAX_WORDS]
    columns = [
        column(token_type.removesuffix("s")),
        column("count", "number"),
        column("wrong", "number"),
        column("% wrong", "number", 1),
    ]
    columns += [column("in training", "number")] if training is not None else []
    columns.append(column("recognised instead"))
    rows = []
    for name, word in ranked:
        instead = ", ".join(f"{hyp} {count}" for hyp, count in word.instead.most_common(4))
        count = [training[name]] if training is not None else []
        rows.append([name, word.count, word.wrong, 100 * word.wrong / word.count, *count, instead])
    return table(f"{token_type.capitalize()} with the most errors", columns, rows)
