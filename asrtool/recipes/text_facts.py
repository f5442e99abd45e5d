"""What the transcripts of a corpus are like, after normalisation: words, characters, script and language."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

ENGLISH = frozenset(["the", "and", "of", "to", "a", "in", "is", "it", "that", "he", "was", "i", "you", "for"])
ENGLISH_SHARE = 0.12  # of all words; they are a fifth to a quarter of English prose, and below 5 % of other languages
WORD_LENGTH_WITHOUT_SPACES = 12.0  # mean characters of a "word" above which a text is written without spaces


@dataclass(frozen=True)
class TextFacts:
    """Counts of normalised transcripts."""

    words: Counter[str]
    characters: Counter[str]
    sentences: int

    @property
    def tokens(self) -> int:
        """Number of running words."""
        return self.words.total()

    @property
    def rarest_word(self) -> int:
        """How often the rarest word occurs."""
        return min(self.words.values(), default=0)

    @property
    def is_english(self) -> bool:
        """Returns True if the most frequent English words are as frequent as in English."""
        common = sum(count for word, count in self.words.items() if word.lower() in ENGLISH)
        return bool(self.tokens) and common / self.tokens >= ENGLISH_SHARE

    @property
    def has_spaces(self) -> bool:
        """Returns False for text that is written without spaces between words, as in Chinese or Thai."""
        return self.characters.total() < WORD_LENGTH_WITHOUT_SPACES * self.tokens

    def coverage(self, lexicon: Iterable[str]) -> float:
        """Returns the share of running words that are in a lexicon."""
        known = set(lexicon)
        return sum(count for word, count in self.words.items() if word in known) / max(1, self.tokens)


def describe_texts(texts: Iterable[str]) -> TextFacts:
    """Returns the counts of transcripts."""
    words: Counter[str] = Counter()
    sentences = set()
    for text in texts:
        words.update(text.split())
        sentences.add(text)
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    return TextFacts(words, characters, len(sentences))
