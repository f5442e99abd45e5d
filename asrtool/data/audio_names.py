"""File names that hold the transcript, the speaker or the id of an audio file, as in `{text}_{speaker}_{index}`."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from asrtool.data.audio_index import stem
from asrtool.errors import UserError

FIELD = re.compile(r"\{(\w*)\}")
USED_FIELDS = ("text", "speaker", "id")
SEPARATORS = re.compile(r"[_\-\s]+")
MIN_FILES = 10  # below which names say too little to recognise transcripts in them
MAX_VOCABULARY = 30  # words, of a corpus whose names are transcripts: digits, letters, commands
MIN_REPETITIONS = 3  # files in which each word must occur
MIN_OVERLAP = 0.5  # of the words, that occur at a place within the name
MIN_WORDS = 1.5  # of a name on average: names of one word each may as well be numbers of files
MAX_SHOWN = 4  # values of a part of the names in a message


class NamePattern:
    """A pattern of file names without their suffix, or of the ends of paths where it has a slash.

    A field but `text` matches up to the separator next to it, and no slash; `text` takes what is left.
    """

    def __init__(self, pattern: str):
        self.pattern = pattern
        self.fields = FIELD.findall(pattern)
        self._expression = re.compile(_expression(pattern, self.fields))

    def match(self, path: Path, root: Path) -> dict[str, str] | None:
        """Returns the fields of an audio file below `root`; None if its name does not fit."""
        folder = f"{path.relative_to(root).parent.as_posix()}/" if "/" in self.pattern else ""
        found = self._expression.fullmatch(folder + stem(path))
        if found is None:
            return None
        fields = found.groupdict()
        if "text" in fields:
            fields["text"] = self._spaced(fields["text"])
        return fields

    def _spaced(self, text: str) -> str:
        """Returns the text with spaces between words: an underscore is one; so is a hyphen where nothing else is."""
        if "_" not in text and " " not in text and self.pattern == "{text}":
            text = text.replace("-", " ")
        return " ".join(text.replace("_", " ").split())


def _expression(pattern: str, fields: Sequence[str]) -> str:
    example = "such as '{text}_{speaker}_{index}'"
    if not fields or "" in fields or re.search(r"[{}]", FIELD.sub("", pattern)):
        raise UserError(f"--name-pattern {pattern}: needs names of fields in braces, {example}")
    if len(set(fields)) < len(fields) or re.search(r"\}\{", pattern):
        raise UserError(f"--name-pattern {pattern}: needs different fields with a separator between them, {example}")
    if any(field[0].isdigit() for field in fields):
        raise UserError(f"--name-pattern {pattern}: the name of a field begins with a digit; {example}")
    if not set(fields) & set(USED_FIELDS):
        raise UserError(f"--name-pattern {pattern}: needs at least one of the fields text, speaker and id")
    parts = FIELD.split(pattern)  # text between fields, and the fields, in turn
    expression = ("(?:.*/)?" if "/" in pattern else "") + re.escape(parts[0])
    for number in range(1, len(parts), 2):
        around = {"/", *parts[number - 1][-1:], *parts[number + 1][:1]}
        excluded = "/" if parts[number] == "text" else "".join(map(re.escape, sorted(around)))
        expression += f"(?P<{parts[number]}>[^{excluded}]+){re.escape(parts[number + 1])}"
    return expression


def are_transcripts(paths: Sequence[Path]) -> bool:
    """Returns True if the names of files are clearly transcripts: a few words, which occur at all places of a name.

    The names 0_1_1_0.wav, 1_1_0_1.wav, ... are transcripts. 7_jackson_32.wav, ... are not: each place has own words.
    """
    names = [SEPARATORS.split(stem(path)) for path in paths]
    files_of_word = Counter(word for name in names for word in set(name))
    if len(names) < MIN_FILES or not all(files_of_word) or len(files_of_word) > MAX_VOCABULARY:
        return False
    if min(files_of_word.values()) < MIN_REPETITIONS or sum(map(len, names)) < MIN_WORDS * len(names):
        return False
    longest = max(map(len, names))
    places = [{name[place] for name in names if len(name) > place} for place in range(longest)]
    counts = [sum(len(name) > place for name in names) for place in range(longest)]
    return all(
        len(words) >= MIN_OVERLAP * len(files_of_word)
        for words, count in zip(places, counts, strict=True)
        if count >= MIN_FILES
    )


def describe_names(paths: Sequence[Path]) -> str:
    """Returns what the parts of file names are, for a message, such as "part 1 has 10 values (0, 1, 2, 3, ...)"."""
    names = [SEPARATORS.split(stem(path)) for path in paths]
    length, _ = Counter(map(len, names)).most_common(1)[0]
    alike = [name for name in names if len(name) == length]
    parts = []
    for place in range(min(length, 6)):
        values = sorted({name[place] for name in alike})
        shown = ", ".join(values[:MAX_SHOWN]) + (", ..." if len(values) > MAX_SHOWN else "")
        parts.append(f"part {place + 1} has {len(values)} values ({shown})")
    example = next(stem(path) for path, name in zip(paths, names, strict=True) if len(name) == length)
    return f"of names like {example}, {'; '.join(parts)}"[:600]
