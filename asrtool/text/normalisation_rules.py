"""The rules by which transcripts are normalised, as a YAML file that people read and edit.

asrtool/text/normalisation.py proposes rules for a corpus, asrtool/text/normaliser.py applies them. A key that a file
does not have changes nothing.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from asrtool.errors import UserError, did_you_mean
from asrtool.files import write_text
from asrtool.yaml_reader import read_yaml

HINT = "make one with `asrtool normalise CUTS --propose FILE`"
MAX_RULES_CHARACTERS = 50_000  # of `characters`: all characters of Unicode's Chinese basic block are 21,000


class NormalisationRules(BaseModel):
    """What is done with each transcript, in the order of the fields. The defaults change nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unicode: Literal["NFC", "NFKC"] = "NFC"
    replace: dict[str, str] = {}
    tags: Literal["keep", "remove", "drop", "refuse"] = "keep"
    quotes: Literal["keep", "unify"] = "keep"
    dashes: Literal["keep", "unify"] = "keep"
    digits: Literal["keep", "drop", "refuse"] = "keep"
    symbols: Literal["keep", "remove", "drop", "refuse"] = "keep"
    punctuation: Literal["keep", "remove"] = "keep"
    keep_in_words: str = ""
    keep: str = ""
    case: Literal["keep", "lower", "upper"] = "keep"
    separate_cjk: bool = False
    characters: str = ""
    other_characters: Literal["keep", "remove", "drop", "refuse"] = "keep"

    @field_validator("replace")
    @classmethod
    def _check_replacements(cls, pairs: dict[str, str]) -> dict[str, str]:
        if "" in pairs:
            raise ValueError("an empty text cannot be replaced")
        return pairs

    @field_validator("characters")
    @classmethod
    def _check_length(cls, characters: str) -> str:
        if len(characters) > MAX_RULES_CHARACTERS:
            raise ValueError(f"more than {MAX_RULES_CHARACTERS:,} characters")
        return characters


COMMENTS = {
    "unicode": "Unicode form: NFC, or NFKC, which also replaces ligatures, full-width letters and the like.",
    "replace": 'Literal texts and their replacements, before the rules below, such as {"&": " and "}.',
    "tags": "Marks such as <unk> and [noise]: keep, remove, drop (the utterance) or refuse (list them and stop).",
    "quotes": "Quotation marks and apostrophes of all forms: keep, or unify to \" and '.",
    "dashes": "Dashes and hyphens of all forms: keep, or unify to -.",
    "digits": "Digits, whose spoken words are not known: keep, drop (the utterance) or refuse.",
    "symbols": "Symbols that are spoken, such as % & @ + $: keep, remove, drop (the utterance) or refuse.",
    "punctuation": "All other punctuation and symbols: keep, or remove (each becomes a space).",
    "keep_in_words": "Punctuation that stays between two letters, such as the apostrophe of don't.",
    "keep": "Punctuation and symbols that stay everywhere.",
    "case": "Case: keep, lower or upper.",
    "separate_cjk": "Whether each Chinese or Japanese character becomes a word of its own.",
    "characters": "Characters that may be left (spaces are ignored); empty: any.",
    "other_characters": "All others: keep, remove, drop (the utterance) or refuse.",
}


def load_rules(path: str | Path) -> NormalisationRules:
    """Returns the rules of a YAML file. Raises UserError for a file that is missing or has a wrong key or value."""
    tree = read_yaml(Path(path), "rules file", HINT)
    if tree is None:  # an empty file
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}; {HINT}")
    try:
        return NormalisationRules.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for details in error.errors(include_url=False):
        name = ".".join(map(str, details["loc"]))[:80]
        if details["type"] == "extra_forbidden":
            lines.append(f"unknown key '{name}' ({did_you_mean(name, NormalisationRules.model_fields)})")
        else:
            message = details["msg"].removeprefix("Value error, ")
            lines.append(f"{name} = {ascii(details['input'])[:60]}: {message[0].lower()}{message[1:]}")
    return " ".join("; ".join(lines).split())


def rules_text(rules: NormalisationRules) -> str:
    """Returns the rules as YAML, with a comment above each key."""
    lines = ["# Rules of `asrtool normalise`, in the order in which they are applied to each transcript."]
    for name, value in rules.model_dump().items():
        plain = name == "separate_cjk" or (value and isinstance(value, str) and value.isalpha() and value.isascii())
        plain = plain and name not in ("characters", "keep", "keep_in_words")
        shown = str(value).lower() if isinstance(value, bool) else value
        lines += ["", f"# {COMMENTS[name]}", f"{name}: {shown if plain else _quoted(value)}"]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    """Returns text or a mapping in double quotes; characters that cannot be seen are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in text
    )


def write_rules(rules: NormalisationRules, path: str | Path) -> None:
    """Writes `rules_text` to a file, atomically."""
    write_text(path, rules_text(rules))
