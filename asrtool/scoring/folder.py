"""Scoring a decode folder: hyps.jsonl in; wer.json, report.txt and alignments.txt and .jsonl beside it."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import file_hash, write_json, write_jsonl, write_text
from asrtool.readers import read_json, read_jsonl
from asrtool.scoring.paired import Difference, paired_difference
from asrtool.scoring.report import alignment_rows, alignment_text, report_text, score_dict
from asrtool.scoring.wer import Score, score_pairs
from asrtool.text.words import composed

logger = logging.getLogger(__name__)

HYPOTHESES = "hyps.jsonl"
FACTS = ("decode.json", "stream.json")
SCORES = ("wer.json", "report.txt", "alignments.txt", "alignments.jsonl")  # what scoring writes beside hypotheses
HASH = "hypotheses"  # in wer.json: sha256 of what was scored
REQUIRED = ("id", "ref", "hyp")
KINDS = ("words", "phones")


def read_hypotheses(path: str | Path) -> list[dict]:
    """The rows of a hypotheses file (JSONL: id, ref, hyp, usually score, maybe more), in the file's order.

    Words are in Unicode's composed form (NFC), whatever the file has: the form is no error of a recogniser.
    `of` is "phones" in rows whose texts are phones, not words; `speaker` is there where it is known.

    Raises UserError for a missing or empty file and for a row without the texts id, ref and hyp (file:line);
    DataError with all ids that occur more than once.
    """
    path = require_file(path, "hypotheses", "make them with `asrtool decode`")
    rows = []
    for number, row in enumerate(read_jsonl(path), 1):
        _check_row(row, f"{path}:{number}")
        rows.append({**row, "ref": composed(row["ref"]), "hyp": composed(row["hyp"])})
    if not rows:
        raise UserError(f"no hypotheses in {path}; rerun `asrtool decode`")
    _check_ids(rows, path)
    return rows


def _check_row(row: object, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; write {{{', '.join(REQUIRED)}, ...}} on each line")
    wrong = [key for key in REQUIRED if not isinstance(row.get(key), str)]
    if wrong:
        raise UserError(f"{where}: no text under {', '.join(wrong)}; each line needs {', '.join(REQUIRED)}")
    if row.get("of", "words") not in KINDS:
        raise UserError(f"{where}: of is {str(row['of'])[:50]!r}; it can be {' or '.join(KINDS)}")


def _check_ids(rows: list[dict], path: Path | str) -> None:
    counts = Counter(row["id"] for row in rows)
    repeated = [f"{key}: {count} lines" for key, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{len(repeated)} ids occur more than once in {path}; keep one line an utterance", repeated)


def set_name(folder: str | Path) -> str:
    """The name of the set that was decoded into `folder`: "set" in its facts, else the folder's own name."""
    name = read_facts(folder).get("set")
    return name if isinstance(name, str) else Path(folder).resolve().name


def read_facts(folder: str | Path) -> dict:
    """What `asrtool decode` or `asrtool stream` wrote beside the hypotheses; empty where there is nothing."""
    path = next((path for name in FACTS if (path := Path(folder) / name).is_file()), None)
    if path is None:
        return {}
    facts = read_json(path, "facts", f"rerun `asrtool {path.stem}`")
    if not isinstance(facts, dict):
        raise UserError(f"{path}: not a JSON object; rerun `asrtool {path.stem}`")
    return facts


def discard_scores(folder: Path) -> None:
    """Remove the scores of hypotheses that are being replaced."""
    for name in SCORES:
        (folder / name).unlink(missing_ok=True)


def pool(folders: Iterable[Path]) -> Score:
    """The score of the utterances of several folders as one set, e.g. of all folds of a cross-validation.

    Raises what `read_hypotheses` raises, also for an utterance that is in two of them.
    """
    return _score(_read_all(folders))


def _score(rows: list[dict]) -> Score:
    speakers = [None if row.get("speaker") is None else str(row["speaker"]) for row in rows]
    return score_pairs([(row["ref"], row["hyp"]) for row in rows], rows[0].get("of", "words"), speakers)


def _read_all(folders: Iterable[Path]) -> list[dict]:
    folders = list(folders)
    rows = [row for folder in folders for row in read_hypotheses(Path(folder) / HYPOTHESES)]
    _check_ids(rows, " ".join(map(str, folders)))
    return rows


def compare(folders: Iterable[Path], others: Iterable[Path]) -> Difference:
    """How the error rate of the utterances in `folders` differs from that of the same utterances in `others`.

    `others` may hold more utterances. Raises what `read_hypotheses` raises; UserError where the texts of one are words
    and of the other phones; DataError with all utterances that `others` lacks or has with another reference.
    """
    rows, others = _read_all(folders), list(others)
    known = {row["id"]: row for row in _read_all(others)}
    where = " ".join(map(str, others))
    wrong = [f"{row['id']}: not there" for row in rows if row["id"] not in known]
    found = [(row, known[row["id"]]) for row in rows if row["id"] in known]
    wrong += [f"{row['id']}: another reference" for row, other in found if row["ref"].split() != other["ref"].split()]
    units = {row.get("of", "words") for pair in found for row in pair}
    if len(units) > 1:
        raise UserError(f"{where}: one of the two is of words, the other of phones; compare what is of the same")
    if wrong:
        raise DataError(f"{len(wrong)} of {len(rows)} utterances cannot be compared with those in {where}", wrong)
    return paired_difference(*zip(*((row["ref"], row["hyp"], other["hyp"]) for row, other in found), strict=True))


def warnings(rows: list[dict]) -> list[str]:
    """What makes an error rate of these hypotheses say little."""
    count, empty = len(rows), sum(not row["hyp"].split() for row in rows)
    unlabelled = sum(not row["ref"].split() for row in rows)
    lines = []
    if empty == count:
        lines.append(f"all {count} hypotheses are empty: is the model trained enough, and are search and scales right?")
    if 0 < unlabelled < count:
        lines.append(f"{unlabelled} of {count} utterances have no reference words; words found in them are insertions")
    return lines


def score_folder(folder: str | Path, name: str | None = None) -> Score:
    """Score `folder`/hyps.jsonl and write wer.json, report.txt, alignments.txt and alignments.jsonl beside it.

    `name` heads the report; without it `set_name(folder)` does. Raises what `read_hypotheses` raises, and UserError
    when no reference holds a word.
    """
    folder = Path(folder)
    rows = read_hypotheses(folder / HYPOTHESES)
    name = name or set_name(folder)
    try:
        score = _score(rows)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    for line in warnings(rows):
        logger.info(f"{folder}: {line}")
    write_text(folder / "alignments.txt", alignment_text(rows))
    write_jsonl(folder / "alignments.jsonl", alignment_rows(rows))
    write_text(folder / "report.txt", report_text(name, score))
    write_json(folder / "wer.json", {"set": name, HASH: file_hash(folder / HYPOTHESES), **score_dict(score)})
    return score
