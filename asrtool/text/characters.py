"""Classes of characters that matter to transcripts: letters, digits, spoken symbols, punctuation, invisible ones."""

import re
import unicodedata
from functools import cache
from itertools import chain

APOSTROPHE = "'"
APOSTROPHES = "\u2018\u2019\u201a\u201b\u02bc\u2032\u00b4`\uff07"  # forms of ' in text, some of them mistyped
QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02"  # forms of "
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"  # forms of -
SPOKEN = frozenset("%‰&@#§+=±×÷°％＆＠＃＋＝℃℉№")  # symbols that are read aloud, as currencies are
ZWNJ = "\u200c"
JOINERS = "\u200c\u200d"  # part of the spelling behind letters of the scripts of these blocks, Arabic to Sinhala:
JOINING_SCRIPTS = ("\u0600", "\u0dff")
WORD_MARKS = "\u00b7\u05f3\u05f4"  # punctuation within words: the dot of Catalan l·l, Hebrew geresh and gershayim
SILENT_MARKS = "\u0640\u055b\u055c\u055e"  # within words, without a sound: Arabic tatweel; Armenian stress, ! and ?
VARIATION_SELECTORS = (("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef"))  # they choose the shape of what is before
UNIFIED_QUOTES = {**dict.fromkeys(APOSTROPHES, "'"), **dict.fromkeys(QUOTES, '"')}
UNIFIED_DASHES = dict.fromkeys(DASHES, "-")
CJK_NAMES = ("CJK ", "HIRAGANA ", "KATAKANA ", "HALFWIDTH KATAKANA ", "IDEOGRAPHIC ITERATION", "BOPOMOFO ")


@cache
def is_letter(character: str) -> bool:
    """Returns True for letters of all scripts and for the marks that combine with them."""
    category = unicodedata.category(character)
    return category[0] == "L" or category in ("Mn", "Mc")


@cache
def is_digit(character: str) -> bool:
    """Returns True for digits and other numbers of all scripts, such as ², ½ and Ⅳ."""
    return unicodedata.category(character)[0] == "N"


@cache
def is_symbol(character: str) -> bool:
    """Returns True for symbols that are read aloud, such as % and $."""
    return character in SPOKEN or unicodedata.category(character) == "Sc"


@cache
def is_punctuation(character: str) -> bool:
    """Returns True for punctuation, for symbols that are not read aloud, and for marks that enclose a character."""
    category = unicodedata.category(character)
    return (category[0] in "PS" or category == "Me") and not is_symbol(character)


@cache
def is_control(character: str) -> bool:
    """Returns True for control characters, halves of surrogate pairs and characters that Unicode does not assign."""
    return unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")


@cache
def _invisible_pattern() -> re.Pattern[str]:
    """Returns the pattern of the invisible characters: format characters, such as U+200B, and variation selectors.

    Joiners are part of the spelling behind a letter of JOINING_SCRIPTS, U+200C only between two of them: at the end of
    a word it changes nothing.
    """
    first, last = JOINING_SCRIPTS
    letters = "".join(character for character in map(chr, range(ord(first), ord(last) + 1)) if is_letter(character))
    code_points = chain(range(0x20000), range(0xE0000, 0xE0200))  # the planes that have any
    always = "".join(character for character in map(chr, code_points) if _is_format(character))
    return re.compile(f"[{always}]|(?<![{letters}])[{JOINERS}]|{ZWNJ}(?![{JOINERS}]*[{letters}])")


def _is_format(character: str) -> bool:
    is_selector = any(first <= character <= last for first, last in VARIATION_SELECTORS)
    return is_selector or unicodedata.category(character) == "Cf" and character not in JOINERS


def invisible_places(text: str) -> set[int]:
    """Returns the indices of the invisible characters of a text."""
    return set() if text.isascii() else {match.start() for match in _invisible_pattern().finditer(text)}


def invisible_characters(text: str) -> list[str]:
    """Returns the invisible characters of a text in turn."""
    return [] if text.isascii() else _invisible_pattern().findall(text)


def without_invisible(text: str) -> str:
    """Returns a text without invisible characters."""
    return text if text.isascii() else _invisible_pattern().sub("", text)


def is_joining(character: str) -> bool:
    """Returns True for a character of a script in which joiners are part of the spelling."""
    return JOINING_SCRIPTS[0] <= character <= JOINING_SCRIPTS[1]


@cache
def is_cjk(character: str) -> bool:
    """Returns True for Chinese characters and Japanese syllables, which are written without spaces between words."""
    return is_letter(character) and unicodedata.name(character, "").startswith(CJK_NAMES)


def character_name(character: str) -> str:
    """Returns code point and name of a character, after the character itself if it can be seen."""
    name = unicodedata.name(character, "control character" if is_control(character) else "")
    shown = f"{character} " if character.isprintable() and not character.isspace() else ""
    if shown and unicodedata.category(character)[0] == "M":
        shown = f"\u25cc{shown}"  # combining marks need a base
    return f"{shown}U+{ord(character):04X} {name}".rstrip()
