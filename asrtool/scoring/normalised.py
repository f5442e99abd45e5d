"""Normalisation of references and hypotheses before scoring, so that both are written alike."""

from collections.abc import Iterable

from asrtool.errors import UserError
from asrtool.text.normalisation_rules import NormalisationRules
from asrtool.text.normaliser import Normaliser


def normalise_rows(rows: Iterable[dict], rules: NormalisationRules) -> list[dict]:
    """Returns the rows of hyps.jsonl with normalised `ref` and `hyp`.

    No utterance is dropped, whatever the rules drop in training. Raises UserError for phones, which are not text.
    """
    normaliser = Normaliser(rules)
    return [_normalise_row(row, normaliser) for row in rows]


def _normalise_row(row: dict, normaliser: Normaliser) -> dict:
    if row.get("token_type", "words") != "words":
        raise UserError("phones are scored, and the rules are for words; score without --normalise")
    hyp = normaliser.change(row["hyp"])
    normalised = {**row, "ref": normaliser.change(row["ref"]), "hyp": hyp}
    if "words" in row:
        normalised["words"] = _renamed(row["words"], hyp.split())
    return normalised


def _renamed(words: object, texts: list[str]) -> object:
    """Returns words [text, start, ...] with other texts; None where their number changed, so that times do not fit."""
    if not isinstance(words, list) or len(words) != len(texts) or not all(isinstance(word, list) for word in words):
        return None
    return [[text, *word[1:]] for text, word in zip(texts, words, strict=True)]
