"""The pages of the documentation, and the commands in their blocks."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]  # whose commands run
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "egs").glob("*/README.md"))]  # are only read
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
ENDS = {";", "&", "&&", "||", "|", ">", ">>", "<", "done", ")", "}"}  # words at which a command ends


class Block(NamedTuple):
    """A block of shell commands or of Python; `not_run` is the reason why it cannot be run in a test."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None


def blocks(page: Path, languages: tuple[str, ...] = ("bash",)) -> Iterator[Block]:
    """The blocks of a page in these languages, in their order."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match[2] in languages:
            before = text[: match.start()]
            mark = NOT_RUN.search(before)
            yield Block(page.name, before.count("\n") + 1, match[2], match[3], mark[1] if mark else None)


def prose_commands(page: Path) -> Iterator[str]:
    """The commands in backquotes within the text of a page."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    yield from (match[1] for match in INLINE.finditer(text) if match[1].startswith("asrtool "))


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each call of asrtool in shell commands, without redirections and what follows in a pipe."""
    for line in text.replace("\\\n", " ").splitlines():
        for words in split_quoted(line):
            for index, word in enumerate(words):
                program = word == "asrtool" and (index == 0 or words[index - 1] in {*ENDS, "do", "-m"})
                if program:
                    yield until_end(words[index + 1 :])


def split_quoted(line: str) -> Iterator[list[str]]:
    """The words of a line and, where one of them holds a command of its own (`ssh host "..."`), the words of that."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation over several lines
        words = line.replace('"', " ").split()
    yield words
    for word in words:
        if " " in word and "asrtool" in word:
            yield from split_quoted(word)


def until_end(words: list[str]) -> list[str]:
    """The words before the first one that ends a command."""
    end = next((index for index, word in enumerate(words) if word in ENDS), len(words))
    return words[:end]


def recipe_options(text: str) -> Iterator[tuple[Path, str]]:
    """The script and the name of each option of a recipe that is called in shell commands."""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#")[0].split()
        scripts = [word for word in words if re.fullmatch(r"egs/\w+/\w+\.sh", word)]
        if scripts and words[0] == "bash" or scripts and "bash" in words:
            outside = re.sub(r'"[^"]*"', '""', line.split("#")[0])
            yield from ((ROOT / scripts[0], option) for option in re.findall(r"(?<=\s)--[\w-]+", outside))
