"""Normalisation of transcripts by rules (asrtool/text/normalisation_rules.py), and the counts of its changes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from asrtool.errors import one_line
from asrtool.text.characters import (
    UNIFIED_DASHES,
    UNIFIED_QUOTES,
    character_name,
    invisible_places,
    is_cjk,
    is_control,
    is_digit,
    is_letter,
    is_punctuation,
    is_symbol,
)
from asrtool.text.normalisation_rules import NormalisationRules

TAG = re.compile(r"<[^<>\s]{1,40}>|\[[^\[\]]{1,40}\]")  # <unk>, [noise], [door slams]
CASES: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "upper": str.upper}
MAX_EXAMPLES = 5
MAX_CHARACTERS_SHOWN = 60  # of those that were removed or replaced, the most frequent first
MAX_EXAMPLE_LENGTH = 200  # characters of a transcript in the report


@dataclass(frozen=True)
class Outcome:
    """A normalised transcript. `dropped` and `refused` say why the rules do not want it, if they do not."""

    text: str
    dropped: str | None = None
    refused: str | None = None


@dataclass
class Changes:
    """What was changed so far."""

    utterances: int = 0
    changed: int = 0
    cased: int = 0  # utterances whose case changed
    composed: int = 0  # utterances that were brought into the Unicode form
    sharp_s: int = 0  # utterances in which upper case made SS of ß
    characters: Counter[tuple[str, str]] = field(default_factory=Counter)  # text and its replacement -> occurrences
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> utterances
    dropped_examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> "ID: TEXT"
    examples: list[tuple[str, str, str]] = field(default_factory=list)  # id, text before, text after


class Normaliser:
    """Applies rules to transcripts, and counts what it changes in `changes`."""

    def __init__(self, rules: NormalisationRules):
        self.rules = rules
        self.changes = Changes()
        self._replacements = {self._in_form(old): new for old, new in rules.replace.items()}
        self._replaced = frozenset("".join(self._replacements))
        self._unified = (UNIFIED_QUOTES if rules.quotes == "unify" else {}) | (
            UNIFIED_DASHES if rules.dashes == "unify" else {}
        )
        self._kept = frozenset(self._unify(rules.keep))
        self._kept_in_words = frozenset(self._unify(rules.keep_in_words))
        self._allowed = frozenset(self._cased(self._unify(rules.characters))) - {" "}

    def normalise(self, text: str, name: str = "") -> Outcome:
        """Returns the normalised transcript of the utterance `name`, or why it is dropped or refused."""
        changes = self.changes
        changes.utterances += 1
        reasons: dict[str, str] = {}  # "drop" or "refuse" -> reason
        result = self._apply(text, reasons)
        if not result and "drop" not in reasons:
            reasons["drop"] = "no words are left" if text.split() else "empty transcript"
        if result != text:
            changes.changed += 1
            if len(changes.examples) < MAX_EXAMPLES and result and not reasons:
                changes.examples.append((name, text, result))
        if "drop" in reasons and "refuse" not in reasons:
            changes.dropped[reasons["drop"]] += 1
            examples = changes.dropped_examples.setdefault(reasons["drop"], [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(f"{name}: {text}" if name else text)
        return Outcome(result, reasons.get("drop"), reasons.get("refuse"))

    def change(self, text: str) -> str:
        """Returns the normalised text, also if the rules drop or refuse it."""
        return self._apply(text, {})

    def _apply(self, text: str, reasons: dict[str, str]) -> str:
        rules = self.rules
        text = self._compose(self._visible(text, self._replaced))
        for old, new in self._replacements.items():
            self._count(old, new, text.count(old))
            text = text.replace(old, new)
        text = self._without_tags(text, reasons)
        text = self._replace_each(text, self._unified)
        if rules.digits != "keep" and any(map(is_digit, text)):
            reasons.setdefault(rules.digits, "digits")
        text = self._without_symbols(text, reasons)
        if rules.punctuation == "remove":
            text = self._without_punctuation(text)
        text = self._change_case(self._visible(text))  # a joiner may have lost the letter before it
        if rules.separate_cjk:
            text = "".join(f" {character} " if is_cjk(character) else character for character in text)
        text = " ".join(text.split())
        return self._without_others(text, reasons) if self._allowed and rules.other_characters != "keep" else text

    def _count(self, old: str, new: str, number: int = 1) -> None:
        if number:
            self.changes.characters[old, new] += number

    def _in_form(self, text: str) -> str:
        return unicodedata.normalize(self.rules.unicode, text)

    def _unify(self, characters: str) -> str:
        """Returns the characters of a rule in the forms in which it meets them: quotes and dashes may be unified."""
        return "".join(self._unified.get(character, character) for character in self._in_form(characters))

    def _cased(self, characters: str) -> str:
        """Returns characters in the case of the rules, at the beginning and at the end of a word: Σ becomes σ and ς."""
        change = CASES[self.rules.case]
        return self._in_form("".join(change(character) + change(f"a{character}")[1:] for character in characters))

    def _visible(self, text: str, kept: frozenset[str] = frozenset()) -> str:
        """Removes format characters except those that are `kept`; control characters become spaces."""
        if text.isprintable() and text.isascii():
            return text
        characters = []
        invisible = invisible_places(text)
        for place, character in enumerate(text):
            if character in kept:
                characters.append(character)
            elif is_control(character) and not character.isspace():
                self._count(character, " ")
                characters.append(" ")
            elif place in invisible:
                self._count(character, "")
            else:
                characters.append(character)
        return "".join(characters)

    def _compose(self, text: str) -> str:
        composed = self._in_form(text)
        self.changes.composed += composed != text
        return composed

    def _without_tags(self, text: str, reasons: dict[str, str]) -> str:
        if self.rules.tags == "keep" or not (found := TAG.findall(text)):
            return text
        if self.rules.tags != "remove":
            reasons.setdefault(self.rules.tags, "marks such as <unk> or [noise]")
        for tag in found:
            self._count(tag, " ")
        return TAG.sub(" ", text)

    def _replace_each(self, text: str, replacements: Mapping[str, str]) -> str:
        if text.isascii() and "`" not in text:
            return text
        for character in set(text) & replacements.keys():
            self._count(character, replacements[character], text.count(character))
            text = text.replace(character, replacements[character])
        return text

    def _without_symbols(self, text: str, reasons: dict[str, str]) -> str:
        if self.rules.symbols == "keep":
            return text
        found = {character for character in text if is_symbol(character)} - self._kept
        if found and self.rules.symbols != "remove":
            reasons.setdefault(self.rules.symbols, "symbols that are spoken, such as % and $")
            return text
        return self._replace_by_space(text, found)

    def _replace_by_space(self, text: str, found: set[str]) -> str:
        for character in found:
            self._count(character, " ", text.count(character))
            text = text.replace(character, " ")
        return text

    def _without_punctuation(self, text: str) -> str:
        found = {character for character in text if is_punctuation(character)} - self._kept
        text = self._replace_by_space(text, found - self._kept_in_words)
        inner = found & self._kept_in_words
        if not inner:
            return text
        characters = list(text)
        for index, character in enumerate(text):
            if character in inner and not _is_within_word(text, index):
                self._count(character, " ")
                characters[index] = " "
        return "".join(characters)

    def _change_case(self, text: str) -> str:
        cased = self._in_form(CASES[self.rules.case](text))
        self.changes.cased += cased != text
        self.changes.sharp_s += self.rules.case == "upper" and "ß" in text
        return cased

    def _without_others(self, text: str, reasons: dict[str, str]) -> str:
        others = set(text) - self._allowed - {" "}
        if others and self.rules.other_characters != "remove":
            names = ", ".join(character_name(character) for character in sorted(others)[:3])
            reasons.setdefault(self.rules.other_characters, f"characters that are not listed: {names}")
            return text
        return " ".join(self._replace_by_space(text, others).split()) if others else text


def _is_within_word(text: str, index: int) -> bool:
    """Returns True if a letter or digit is on both sides."""
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    return index > 0 and len(around) == 2 and all(is_letter(character) or is_digit(character) for character in around)


@cache
def _normaliser(rules_json: str) -> Normaliser:
    return Normaliser(NormalisationRules.model_validate_json(rules_json))


def normalise(text: str, rules: NormalisationRules) -> str | None:
    """Returns the normalised text; None if the rules drop or refuse it."""
    outcome = _normaliser(rules.model_dump_json()).normalise(text)
    return None if outcome.dropped or outcome.refused else outcome.text


def report_lines(changes: Changes) -> list[str]:
    """Returns what was changed, for people: characters with their names and counts, dropped utterances, examples."""
    lines = [f"{changes.utterances} utterances: {changes.changed} changed, {changes.dropped.total()} dropped"]
    counts = {
        "brought into the Unicode form": changes.composed,
        "changed in case": changes.cased,
        "in which upper case made SS of ß": changes.sharp_s,
    }
    lines += [f"  {number} {what}" for what, number in counts.items() if number]
    return lines + _character_lines(changes.characters) + _dropped_lines(changes) + _example_lines(changes)


def _character_lines(characters: Counter[tuple[str, str]]) -> list[str]:
    lines = ["characters removed or replaced:"] if characters else []
    for (old, new), count in characters.most_common(MAX_CHARACTERS_SHOWN):
        name = character_name(old) if len(old) == 1 else one_line(old)
        result = "removed" if not new else "became a space" if new == " " else f"became {one_line(new)}"
        lines.append(f"  {count:>8}  {name}: {result}")
    if len(characters) > MAX_CHARACTERS_SHOWN:
        lines.append(f"  and {len(characters) - MAX_CHARACTERS_SHOWN} more kinds")
    return lines


def _dropped_lines(changes: Changes) -> list[str]:
    lines = ["utterances dropped:"] if changes.dropped else []
    for reason, count in changes.dropped.most_common():
        lines.append(f"  {count:>8}  {reason}")
        lines += [
            f"              {one_line(example)[:MAX_EXAMPLE_LENGTH]}" for example in changes.dropped_examples[reason]
        ]
    return lines


def _example_lines(changes: Changes) -> list[str]:
    lines = ["examples:"] if changes.examples else []
    for name, before, after in changes.examples:
        for what, text in (("before", before), ("after", after)):
            lines.append(f"  {name} {what}: {one_line(text)[:MAX_EXAMPLE_LENGTH]}")
    return lines
