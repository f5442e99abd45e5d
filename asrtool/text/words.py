"""Text files and the words in them.

Two rules hold for every text, word list, lexicon and transcript:

- Words are separated by Unicode white space (`str.split`): the no-break space U+00A0 and the ideographic space U+3000
  separate words as well. Lines end with "\\n" or "\\r\\n" only; U+2028, form feeds and the like are white space, and
  a carriage return elsewhere is an error.
- Text is in Unicode's composed form (NFC), also after a change of case, which may undo it, and without invisible
  characters such as soft hyphens and zero-width spaces (`characters.without_invisible`): words with them look the
  same as words without.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

from asrtool.text.characters import without_invisible

MAX_SHOWN = 60  # characters of a word in a message
CASES: dict[str, Callable[[str], str]] = {"keep": str, "upper": str.upper, "lower": str.lower}
JOINED_LETTER = "\u0628"  # of a script with joiners; no mark composes with it
# Marks of language models and graphs. As words of a text they would be taken for the marks, so no unit stands for them.
SENTENCE_MARKS = frozenset(["<s>", "</s>"])
MARKS = SENTENCE_MARKS | {"<unk>", "<eps>", "<blank>", "<blk>"}


def composed(text: str) -> str:
    """Returns `text` in Unicode's composed form (NFC), without invisible characters."""
    return text if text.isascii() else unicodedata.normalize("NFC", without_invisible(text))


def composed_part(text: str) -> str:
    """Returns a part of a text, such as a unit, in the composed form (NFC), without invisible characters.

    It may begin or end with a joiner, which letters surround in the text.
    """
    return text if text.isascii() else composed(f"{JOINED_LETTER}{text}{JOINED_LETTER}")[1:-1]


def change_case(text: str, case: str) -> str:
    """Returns `text` in `case`: "keep", "upper" or "lower"; in the composed form (NFC)."""
    return composed(CASES[case](composed(text)))


def is_mark(word: str, marks: frozenset[str] = MARKS) -> bool:
    """Returns whether `word` is one of `marks` in any case, such as <UNK>."""
    return word.startswith("<") and word.lower() in marks


def has_control_characters(text: str) -> bool:
    """Returns whether `text` has control characters, or halves of surrogate pairs, which UTF-8 cannot encode."""
    return not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def shortened(text: str) -> str:
    """Returns the beginning of `text` for a message: a "word" may have megabytes where a file is of another kind."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def count_words(texts: Iterable[str], case: str = "keep") -> Counter[str]:
    """Returns how often each word occurs in `texts`, in `case` and in the composed form (NFC)."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(change_case(text, case).split())
    return counts


def most_frequent_words(counts: Counter[str], top: int | None = None, min_count: int = 1) -> dict[str, int]:
    """Returns the words with at least `min_count` occurrences, at most `top` of them, the most frequent first."""
    words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    return {word: counts[word] for word in words[:top]}
