"""Faults of transcripts: what nobody speaks, what a tokenizer has no unit for, and what differs from the other ones."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from asrtool.doctor.data_entries import Utterance
from asrtool.doctor.data_faults import Faults
from asrtool.text.characters import invisible_characters
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import composed

# <unk>, [noise], (laughs), {breath}, *cough*, &amp; and HTML tags; "(s)" within a word is not one
MARKUP = re.compile(
    r"<[^<>\s]{1,30}>|</?\w+[^<>]*>|\[[^\[\]]{1,60}\]|(?<!\w)\([^()]{1,60}\)|\{[^{}]{1,60}\}|\*\w+\*|&#?\w{2,8};"
)
# UTF-8 read as Latin-1 or Windows-1252: two of its bytes, each a character
WRONG_ENCODING = re.compile(
    "\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00c3[\u0152-\u2122]|[\u00d0\u00d1][\u0080-\u00bf]"
)
MIN_DIGIT_SHARE = 0.5  # of transcripts with digits from which on digits are how this corpus writes
MIN_CASE_SHARE = 0.95  # of transcripts in one case from which on another case is a fault
MIN_REPEATS = 5  # of a word in a row
SMALL_VOCABULARY = 50  # distinct words: below it, sentences repeat words and each other by nature
RARE_SHARE = 0.001  # of transcripts that a rare character is in, at most
MIN_TEXTS_FOR_RARE = 200
MIN_TEXTS_FOR_CASE = 20
SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")  # those with letters that look alike


def check_transcripts(
    utterances: Sequence[Utterance], tokenizer: Tokenizer | None, faults: Faults, is_test: bool = False
) -> None:
    """Adds the faults of the transcripts of one set; `is_test`: a set that is only recognised and scored.

    Text without units stops a training. In a test set it is only noted, since it counts as errors of recognition.
    """
    unknown_kind = "unknown-in-test" if is_test else "unknown-units"
    labelled = [utterance for utterance in utterances if (utterance.text or "").strip()]
    has_small_vocabulary = len({word for utterance in labelled for word in utterance.words}) < SMALL_VOCABULARY
    for utterance in utterances:
        if not composed(utterance.text or "").strip():
            faults.add("no-transcript", utterance.id)
            continue
        _check_characters(utterance, faults)
        _check_units(utterance, tokenizer, unknown_kind, faults)
        if not has_small_vocabulary:
            _check_repeats(utterance, faults)
    _check_digits(labelled, faults)
    _check_case(labelled, faults)
    _check_rare_characters(labelled, faults)


def _check_characters(utterance: Utterance, faults: Faults) -> None:
    text = utterance.text or ""
    if text != " ".join(text.split()):
        faults.add("white-space", utterance.id)
    if markup := MARKUP.search(text):
        faults.add("markup", utterance.id, markup.group())
    if text.isascii() and text.isprintable():
        return
    control = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()})
    if control:
        faults.add("control-characters", utterance.id, " ".join(map(character_name, control)))
    if invisible := sorted(set(invisible_characters(text))):
        faults.add("invisible-characters", utterance.id, " ".join(map(character_name, invisible)))
    if not unicodedata.is_normalized("NFC", text):
        faults.add("not-composed", utterance.id)
    if wrong := WRONG_ENCODING.search(text):
        faults.add("wrong-encoding", utterance.id, repr(text[max(0, wrong.start() - 10) : wrong.end() + 10]))
    if mixed := next((word for word in text.split() if len(_scripts(word)) > 1), None):
        faults.add("mixed-scripts", utterance.id, f"{mixed} is {' and '.join(sorted(_scripts(mixed))).lower()}")


def character_name(character: str) -> str:
    """Returns a character's code point and name, such as "U+200B ZERO WIDTH SPACE"."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def _scripts(word: str) -> set[str]:
    """Returns the scripts, among SCRIPTS, that the letters of a word belong to."""
    if word.isascii():
        return {"LATIN"}
    names = (unicodedata.name(character, "").partition(" ")[0] for character in word if character.isalpha())
    return {name for name in names if name in SCRIPTS}


def _check_units(utterance: Utterance, tokenizer: Tokenizer | None, kind: str, faults: Faults) -> None:
    if tokenizer and (unknown := tokenizer.unknown(composed(utterance.text or ""))):
        faults.add(kind, utterance.id, " ".join(map(_visible, sorted(set(unknown)))))


def _visible(unit: str) -> str:
    return unit if unit.isprintable() else " ".join(map(character_name, unit))


def _check_repeats(utterance: Utterance, faults: Faults) -> None:
    for word, group in groupby(utterance.words):
        if (count := len(list(group))) >= MIN_REPEATS:
            faults.add("repeated-words", utterance.id, f"{word} {count} times")


def _check_digits(labelled: Sequence[Utterance], faults: Faults) -> None:
    """Adds a fault for each transcript with digits if only some have them: they are then read in several ways."""
    with_digits = [utterance for utterance in labelled if any(c.isdigit() for c in utterance.text or "")]
    if len(with_digits) >= MIN_DIGIT_SHARE * len(labelled):
        return
    for utterance in with_digits:
        word = next(word for word in utterance.words if any(c.isdigit() for c in word))
        faults.add("digits", utterance.id, word)


def _check_case(labelled: Sequence[Utterance], faults: Faults) -> None:
    """Adds a fault for each transcript in another case than almost all: upper, lower or mixed."""
    cases = [_case(utterance.text or "") for utterance in labelled]
    counts = Counter(case for case in cases if case)
    if counts.total() < MIN_TEXTS_FOR_CASE:
        return
    usual, count = counts.most_common(1)[0]
    if usual == "mixed" or count < MIN_CASE_SHARE * counts.total():
        return
    for utterance, case in zip(labelled, cases, strict=True):
        if case not in (usual, None):
            faults.add("case-differs", utterance.id, f"{case} case, where {usual} case is usual")


def _case(text: str) -> str | None:
    """Returns "upper", "lower" or "mixed"; None for a text without letters that have a case."""
    if not any(c.isupper() or c.islower() for c in text):
        return None
    return "upper" if text == text.upper() else "lower" if text == text.lower() else "mixed"


def _check_rare_characters(labelled: Sequence[Utterance], faults: Faults) -> None:
    if len(labelled) < MIN_TEXTS_FOR_RARE:
        return
    counts: Counter[str] = Counter()
    for utterance in labelled:
        counts.update(set(composed(utterance.text or "")) - {" "})
    rare = {character for character, count in counts.items() if count <= RARE_SHARE * len(labelled)}
    for utterance in labelled if rare else ():
        for character in sorted(rare & set(composed(utterance.text or ""))):
            name = f"{character} {character_name(character)}" if character.isprintable() else character_name(character)
            faults.add("rare-characters", utterance.id, name)
