"""Scoring a decode folder.

It reads hyps.jsonl, and writes wer.json, report.txt, alignments.txt and alignments.jsonl next to it.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import file_hash, write_json, write_jsonl, write_text
from asrtool.locks import write_lock
from asrtool.logs import printable
from asrtool.readers import read_json, read_jsonl
from asrtool.scoring.confidence_score import confidence_dict, confidence_lines, score_confidences
from asrtool.scoring.normalised import normalise_rows
from asrtool.scoring.paired import PairedDifference, paired_difference
from asrtool.scoring.report import align_rows, alignment_rows, alignment_text, report_text, score_dict
from asrtool.scoring.wer import Alignment, Score, score_pairs
from asrtool.text.normalisation_rules import NormalisationRules
from asrtool.text.words import composed

logger = logging.getLogger(__name__)

HYPOTHESES = "hyps.jsonl"
FACTS_FILES = ("decode.json", "stream.json")
SCORES = "wer.json"
SCORE_FILES = (SCORES, "report.txt", "alignments.txt", "alignments.jsonl")
HASH_KEY = "hypotheses"  # in wer.json: the sha256 of the scored file
RULES_KEY = "normalised_by"  # in wer.json: the rules of `asrtool score --normalise`
REQUIRED_KEYS = ("id", "ref", "hyp")
TOKEN_TYPES = ("words", "phones")


def read_hypotheses(path: str | Path) -> list[dict]:
    """Returns the rows of a hypotheses file (JSONL: id, ref, hyp, usually score, maybe more), in the file's order.

    All texts of a row, its words and n-best list among them, are converted to Unicode's composed form (NFC): another
    form is not an error of a recogniser, and words of two forms do not match each other. `token_type` is
    "phones" in rows whose texts are phones instead of words; `speaker` is present if it is known.

    Raises UserError for a missing or empty file, for a row without the texts id, ref and hyp (file:line), and for words
    and phones in one file, and DataError with all ids that occur more than once.
    """
    path = require_file(path, "hypotheses", "make them with `asrtool decode`")
    rows = []
    for number, row in enumerate(read_jsonl(path), 1):
        _check_row(row, f"{path}:{number}")
        rows.append(_composed_row(row))
    if not rows:
        raise UserError(f"no hypotheses in {path}; rerun `asrtool decode`")
    _check_rows(rows, path)
    return rows


def _composed_row(row: dict) -> dict:
    """Returns a row with its texts in NFC. `words` and `nbest` are not checked yet: what is not a text stays."""
    composed_row = {**row, "ref": composed(row["ref"]), "hyp": composed(row["hyp"])}
    if isinstance(row.get("words"), list):
        composed_row["words"] = [_composed_first(word) for word in row["words"]]
    if isinstance(row.get("nbest"), list):
        composed_row["nbest"] = [_composed_hypothesis(entry) for entry in row["nbest"]]
    return composed_row


def _composed_first(word: Any) -> Any:
    has_text = isinstance(word, list) and word and isinstance(word[0], str)
    return [composed(word[0]), *word[1:]] if has_text else word


def _composed_hypothesis(entry: Any) -> Any:
    has_text = isinstance(entry, dict) and isinstance(entry.get("hyp"), str)
    return entry | {"hyp": composed(entry["hyp"])} if has_text else entry


def read_hypothesis_texts(folder: Path, cuts: Iterable[str]) -> dict[str, str]:
    """Returns the words of a folder of `asrtool decode`, by id.

    Raises UserError for hypotheses in phones, and DataError with the ids of `cuts` that have no hypothesis.
    """
    rows = read_hypotheses(folder / HYPOTHESES)
    if any(row.get("token_type") == "phones" for row in rows):
        raise UserError(f"{folder} has phones, not words; give hypotheses of `asrtool decode --method graph`")
    texts = {row["id"]: row["hyp"] for row in rows}
    missing = [f"{cut}: not among the hypotheses" for cut in cuts if cut not in texts]
    if missing:
        raise DataError(f"{folder} has no hypotheses of {len(missing)} cuts; decode the same manifest", missing)
    return texts


def _check_row(row: object, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; write {{{', '.join(REQUIRED_KEYS)}, ...}} on each line")
    missing = [key for key in REQUIRED_KEYS if not isinstance(row.get(key), str)]
    if missing:
        raise UserError(f"{where}: no text under {', '.join(missing)}; each line needs {', '.join(REQUIRED_KEYS)}")
    if _token_type(row) not in TOKEN_TYPES:
        token_type = str(row["token_type"])[:50]
        raise UserError(f"{where}: token_type is {token_type!r}; it can be {' or '.join(TOKEN_TYPES)}")


def _token_type(row: dict) -> Any:
    return row.get("token_type", "words")


def _check_rows(rows: list[dict], path: Path | str) -> None:
    """Raises DataError with the ids that occur more than once, and UserError where words and phones are mixed."""
    counts = Counter(row["id"] for row in rows)
    repeated = [f"{key}: {count} lines" for key, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{len(repeated)} ids occur more than once in {path}; keep one line an utterance", repeated)
    if len(set(map(_token_type, rows))) > 1:
        raise UserError(f"{path}: some hypotheses are words, others phones; score results of one type together")


def set_name(folder: str | Path) -> str:
    """Returns the name of the set that was decoded into `folder`: "set" in its facts, or else the folder's name."""
    name = read_result_facts(folder).get("set")
    return name if isinstance(name, str) else Path(folder).resolve().name


def read_result_facts(folder: str | Path) -> dict:
    """Returns the content of decode.json or stream.json next to the hypotheses; empty if there is neither."""
    for name in FACTS_FILES:
        path = Path(folder) / name
        if path.is_file():
            facts = read_json(path, "facts", f"rerun `asrtool {path.stem}`")
            if not isinstance(facts, dict):
                raise UserError(f"{path}: not a JSON object; rerun `asrtool {path.stem}`")
            return facts
    return {}


def read_scored_rows(folder: Path) -> tuple[list[dict], NormalisationRules | None]:
    """Returns the rows of `folder`/hyps.jsonl as they were scored, and the rules that normalised them, if any.

    Raises the errors of `read_hypotheses`, and UserError for rules in wer.json that are not valid.
    """
    rows = read_hypotheses(folder / HYPOTHESES)
    rules = scored_rules(folder)
    return (normalise_rows(rows, rules) if rules else rows), rules


def scored_rules(folder: Path) -> NormalisationRules | None:
    """Returns the rules of `asrtool score --normalise` with which `folder` was scored. See `read_scored_rows`."""
    path = folder / SCORES
    hint = f"run `asrtool score {folder}` again"
    content = read_json(path, "scores", hint) if path.is_file() else {}
    rules = content.get(RULES_KEY) if isinstance(content, dict) else None
    if rules is None:
        return None
    try:
        return NormalisationRules.model_validate(rules)
    except ValidationError as error:
        raise UserError(f"{path}: {RULES_KEY} has no rules of `asrtool normalise`; {hint}") from error


def remove_scores(folder: Path) -> None:
    """Remove the scores of hypotheses that are being replaced."""
    for name in SCORE_FILES:
        (folder / name).unlink(missing_ok=True)


def score_pooled(folders: Iterable[Path], rules: NormalisationRules | None = None) -> Score:
    """Returns the score of the utterances of several folders as one set, e.g. all folds of a cross-validation.

    `rules` normalise references and hypotheses. Raises the errors of `read_hypotheses`, also for an utterance that is
    in two of the folders, and for folders of words and of phones.
    """
    rows = _read_all(folders, rules)
    return _score(rows, align_rows(rows))


def _score(rows: list[dict], alignments: list[Alignment]) -> Score:
    speakers = [None if row.get("speaker") is None else str(row["speaker"]) for row in rows]
    pairs = [(row["ref"], row["hyp"]) for row in rows]
    return score_pairs(pairs, _token_type(rows[0]), speakers, alignments)


def _read_all(folders: Iterable[Path], rules: NormalisationRules | None) -> list[dict]:
    folders = list(folders)
    rows = [row for folder in folders for row in read_hypotheses(Path(folder) / HYPOTHESES)]
    _check_rows(rows, " ".join(map(str, folders)))
    return normalise_rows(rows, rules) if rules else rows


def compare_folders(
    folders: Iterable[Path], other_folders: Iterable[Path], rules: NormalisationRules | None = None
) -> PairedDifference:
    """Returns the difference of the error rates of two systems on the utterances in `folders`.

    `other_folders`, of the second system, may hold more utterances. `rules` normalise the texts of both. Raises
    the errors of `read_hypotheses`, UserError if the texts of one system are words and the other's are phones, or if
    `other_folders` were scored with other rules, and DataError with all utterances that `other_folders` lacks or has
    with another reference.
    """
    other_folders = list(other_folders)
    for folder in other_folders:
        if (Path(folder) / SCORES).is_file() and scored_rules(Path(folder)) != rules:
            raise UserError(
                f"{folder} was scored with other rules of --normalise, or without any; score it again with the same"
            )
    rows = _read_all(folders, rules)
    where = " ".join(map(str, other_folders))
    others = {row["id"]: row for row in _read_all(other_folders, rules)}
    pairs = [(row, others[row["id"]]) for row in rows if row["id"] in others]
    if len({_token_type(row) for pair in pairs for row in pair}) > 1:
        raise UserError(f"{where}: one of the two is scored in words, the other in phones; compare results of one type")
    problems = [f"{row['id']}: not there" for row in rows if row["id"] not in others]
    for row, other in pairs:
        if row["ref"].split() != other["ref"].split():
            problems.append(f"{row['id']}: another reference")
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} utterances cannot be compared with {where}", problems)
    return paired_difference(
        refs=[row["ref"] for row in rows],
        hyps=[row["hyp"] for row in rows],
        other_hyps=[other["hyp"] for _, other in pairs],
    )


def score_warnings(rows: list[dict]) -> list[str]:
    """Returns reasons why the error rate of these hypotheses means little."""
    count = len(rows)
    empty = sum(not row["hyp"].split() for row in rows)
    unlabelled = sum(not row["ref"].split() for row in rows)
    lines = []
    if empty == count:
        lines.append(f"all {count} hypotheses are empty: check the training, the search and the decoding weights")
    if 0 < unlabelled < count:
        lines.append(f"{unlabelled} of {count} utterances have no reference words; all their words are insertions")
    return lines


def score_folder(folder: str | Path, name: str | None = None, rules: NormalisationRules | None = None) -> Score:
    """Score `folder`/hyps.jsonl, and write wer.json, report.txt, alignments.txt and alignments.jsonl next to it.

    `name` is the set's name in the report, by default `set_name(folder)`. `rules` normalise references and hypotheses
    (asrtool/scoring/normalised.py), and are in wer.json. Where words have confidences, wer.json and report.txt say
    how good these are (asrtool/scoring/confidence_score.py). Raises the errors of `read_hypotheses`, and UserError when
    no reference holds a word, or while another command writes into the folder.
    """
    folder = Path(folder)
    require_file(folder / HYPOTHESES, "hypotheses", "make them with `asrtool decode`")
    with write_lock(folder, "asrtool score"):
        return _score_locked_folder(folder, name, rules)


def _score_locked_folder(folder: Path, name: str | None, rules: NormalisationRules | None) -> Score:
    hypotheses_hash = file_hash(folder / HYPOTHESES)  # before they are read: scores of later ones would be refused
    rows = read_hypotheses(folder / HYPOTHESES)
    if rules:
        rows = normalise_rows(rows, rules)
    name = name or set_name(folder)
    alignments = align_rows(rows)
    try:
        score = _score(rows, alignments)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    for line in score_warnings(rows):
        logger.warning(f"{folder}: {line}")
    write_text(folder / "alignments.txt", printable(alignment_text(rows, alignments)))
    write_jsonl(folder / "alignments.jsonl", alignment_rows(rows, alignments))
    confidences = score_confidences(rows)
    report = report_text(name, score, confidence_lines(confidences, score.token_type) if confidences else [])
    write_text(folder / "report.txt", printable(report))
    facts = {"set": name, HASH_KEY: hypotheses_hash, **score_dict(score)}
    if rules:
        facts[RULES_KEY] = rules.model_dump()
    facts["confidence"] = confidences and confidence_dict(confidences)
    write_json(folder / SCORES, facts)
    return score
