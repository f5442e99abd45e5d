"""Shell commands of a generated recipe."""

import re
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path

LINE_LENGTH = 120
PLAIN = re.compile(r"[A-Za-z0-9_./:=,+-]+")


def shell_word(word: str, corpus: Path | None = None) -> str:
    """Returns a word quoted for bash; a path at or below `corpus` begins with the variable $corpus."""
    if corpus is not None:
        if word == str(corpus):
            return '"$corpus"'
        if word.startswith(f"{corpus}/"):
            rest = word[len(str(corpus)) :]
            return f'"$corpus{rest}"' if PLAIN.fullmatch(rest) else f'"$corpus"{shlex.quote(rest)}'
    return shlex.quote(word)


def printable(text: str) -> str:
    """Returns a text on one line, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def comment(text: str) -> str:
    """Returns a text as comment lines; nothing in it can end the comment, whatever the corpus is called."""
    return textwrap.fill(
        printable(text), LINE_LENGTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False
    )


def command_line(words: Iterable[str], corpus: Path | None = None, verbatim: Iterable[str] = ()) -> str:
    """Returns a command of bash, continued over several lines where it is long; words of `verbatim` are not quoted."""
    unquoted = set(verbatim)
    lines = [""]
    for word in words:
        text = word if word in unquoted else shell_word(word, corpus)
        if lines[-1] and len(lines[-1]) + len(text) + 3 > LINE_LENGTH:
            lines.append("   ")
        lines[-1] += f" {text}" if lines[-1] else text
    return " \\\n".join(lines)
