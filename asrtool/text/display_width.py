"""The width of a text on a terminal and in a subtitle, in columns, and the places where it may be cut."""

import unicodedata
from collections.abc import Iterator

WITHOUT_WIDTH = ("Mn", "Me", "Cf")  # categories: marks over, under and around a letter; characters that are not shown


def character_width(character: str) -> int:
    """Returns the columns of a character: two for wide East Asian ones, none for marks without a width, else one."""
    if unicodedata.category(character) in WITHOUT_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def display_width(text: str) -> int:
    """Returns the columns of a text."""
    return sum(map(character_width, text))


def letters(text: str) -> Iterator[str]:
    """Yields the characters of a text, each with the marks that follow it: the text may be cut between these."""
    begin = 0
    for index, character in enumerate(text):
        category = unicodedata.category(character)
        if index > begin and not category.startswith("M") and category != "Cf":
            yield text[begin:index]
            begin = index
    if text:
        yield text[begin:]


def last_columns(text: str, width: int) -> str:
    """Returns the longest end of a text that has at most `width` columns and begins with a whole letter."""
    begin = len(text)
    for letter in reversed(list(letters(text))):
        width -= display_width(letter)
        if width < 0:
            break
        begin -= len(letter)
    return text[begin:]
