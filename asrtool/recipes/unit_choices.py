"""The output units of a new recipe, its lexicon, and its language model."""

from dataclasses import dataclass
from pathlib import Path

from asrtool.recipes.choices import Choice
from asrtool.recipes.text_facts import TextFacts

MAX_WORD_UNITS = 100  # words: digits, commands, yes and no
MIN_WORD_COUNT = 20  # occurrences of the rarest word: a unit is learned from some tens of examples
BPE_FROM_HOURS = 20.0  # with less audio, single characters are learned better than pieces
BPE_SIZES = ((100.0, 500), (500.0, 1000), (3000.0, 2000), (float("inf"), 5000))  # up to hours -> units
MAX_BPE_CHARACTERS = 300  # different characters: pieces are for alphabets, not for syllables or ideographs
MIN_CMUDICT_COVERAGE = 0.85  # of running words
LARGE_LM_WORDS = 64000  # words of a language model with more text, and its pruning: as in egs/librispeech
LARGE_LM_PRUNING = "1e-7"


@dataclass(frozen=True)
class UnitChoices:
    """Units, lexicon and language model, as options of the recipe."""

    units: Choice[str]
    vocab_size: int  # of BPE
    lexicon: str  # "cmudict", or the path of a file; used for phones
    lm_order: Choice[int]  # 0: no word language model
    lm_words: int  # 0: all
    lm_prune: str
    rescore_order: int  # 0: no second language model
    decode: Choice[str]


@dataclass(frozen=True)
class UserText:
    """What the user gives besides the corpus."""

    lexicon: Path | None = None
    lm_text: Path | None = None
    language: str | None = None  # code such as "en"


def choose_units(text: TextFacts, hours: float, user: UserText, cmudict_coverage: float = 0.0) -> UnitChoices:
    """Returns the units for `hours` of training audio; `cmudict_coverage` is its share of the running words."""
    units, vocab_size = _choose_type(text, hours, user, cmudict_coverage)
    has_words = text.has_spaces or units.value in ("word", "phone")
    return UnitChoices(
        units=units,
        vocab_size=vocab_size,
        lexicon=str(user.lexicon) if user.lexicon else "cmudict",
        lm_order=_choose_order(text, has_words),
        lm_words=LARGE_LM_WORDS if user.lm_text else 0,
        lm_prune=LARGE_LM_PRUNING if user.lm_text else "",
        rescore_order=4 if user.lm_text and has_words else 0,
        decode=_choose_methods(units.value, has_words, user),
    )


def is_english(text: TextFacts, user: UserText) -> bool:
    """Returns True if the language is English, as the user says or as the words show."""
    if user.language:
        return user.language.lower().split("-")[0].split("_")[0] in ("en", "eng", "english")
    return text.is_english


def _choose_type(text: TextFacts, hours: float, user: UserText, coverage: float) -> tuple[Choice[str], int]:
    characters = len(text.characters)
    if user.lexicon:
        return Choice("phone", f"the lexicon {user.lexicon.name} has pronunciations"), 0
    if len(text.words) <= MAX_WORD_UNITS and text.rarest_word >= MIN_WORD_COUNT:
        return Choice("word", f"{len(text.words)} different words, the rarest {text.rarest_word} times"), 0
    if hours < BPE_FROM_HOURS and coverage >= MIN_CMUDICT_COVERAGE:
        return Choice("phone", f"English, {100 * coverage:.0f} % of the words are in CMUdict, less than 20 h"), 0
    if characters > MAX_BPE_CHARACTERS:
        return Choice("char", f"{characters} different characters: each is nearly a word or a syllable"), 0
    if hours >= BPE_FROM_HOURS:
        size = next(size for limit, size in BPE_SIZES if hours <= limit)
        return Choice("bpe", f"{hours:.0f} h are enough for {size} pieces of words"), size
    return Choice("char", f"{characters} characters, for less than {BPE_FROM_HOURS:g} h and no lexicon"), 0


def _choose_order(text: TextFacts, has_words: bool) -> Choice[int]:
    if not has_words:
        return Choice(0, "the text has no spaces between words")
    if len(text.words) <= MAX_WORD_UNITS:
        return Choice(2, f"a bigram of {len(text.words)} words")
    return Choice(3, f"a 3-gram of the {text.tokens:,} words of the transcripts")


def _choose_methods(units: str, has_words: bool, user: UserText) -> Choice[str]:
    if not has_words:
        return Choice("greedy prefix", "a word graph needs words")
    if user.lm_text:
        return Choice("greedy graph rescored", "a 3-gram in the graph, and a 4-gram of more text for its lattices")
    if units == "phone":
        return Choice("greedy graph", "the graph makes words of phones; greedy search shows the phones themselves")
    return Choice("greedy graph", "without and with a language model")
