"""The combination of several systems' results on the same utterances (asrtool/decoding/confusion_network.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asrtool.decoding.confusion_network import ConfusionNetwork, Span
from asrtool.decoding.result_folder import options_as_json, require_same_options, result_lock, write_result
from asrtool.errors import DataError, UserError
from asrtool.files import require_own_folder
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring import schemas
from asrtool.scoring.folder import HYPOTHESES, read_hypotheses, read_result_facts, set_name

MIN_SHARE = 1e-4  # of its system's weight: less probable hypotheses take time, and change nothing
SUMMED_FACTS = ("rtf", "rtf_model", "rtf_search")  # of the systems that took part


class WeightedHypothesis(NamedTuple):
    """A hypothesis of a system with its probability among the hypotheses of all systems."""

    words: list[str]
    probability: float
    spans: list[Span] | None  # of its words, where the result has them
    confidences: list[float] | None  # of its words, where the result has them and no n-best list


def combine_rows(rows: Sequence[dict], weights: Sequence[float], scale: float = 1.0) -> dict:
    """Returns a row of hyps.jsonl with the words that the systems agree on most; a row and a weight of each system.

    The hypotheses of a row's n-best list share the weight of its system in proportion to exp(scale * score).
    `confidence` is the mean probability of the words; `words` has each word with times and its probability, and is
    left out where a word has no times.
    """
    network = ConfusionNetwork()
    hypotheses = [
        hypothesis
        for row, weight in zip(rows, weights, strict=True)
        for hypothesis in _weighted_hypotheses(row, weight / sum(weights), scale)
    ]
    for hypothesis in sorted(hypotheses, key=lambda one: -one.probability):  # the others are aligned to the first
        network.add(*hypothesis)
    words = network.best_words()
    combined = {name: rows[0][name] for name in ("id", "speaker", "ref", "token_type") if name in rows[0]}
    combined["hyp"] = " ".join(word.text for word in words)
    if words:
        combined["confidence"] = round(float(np.mean([word.probability for word in words])), 4)
    if words and all(word.span for word in words):
        combined["words"] = [[word.text, *(word.span or ()), round(word.probability, 4)] for word in words]
    return combined


def _weighted_hypotheses(row: dict, weight: float, scale: float) -> list[WeightedHypothesis]:
    """The hypotheses of a system's row, best first, with probabilities that sum to about `weight`."""
    if not row.get("nbest"):
        return [WeightedHypothesis(row["hyp"].split(), weight, _spans(row), _confidences(row))]
    texts = [entry["hyp"] for entry in row["nbest"]]
    scores = scale * np.array([entry["score"] for entry in row["nbest"]])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return [
        WeightedHypothesis(text.split(), weight * float(share), _spans(row) if text == row["hyp"] else None, None)
        for text, share in zip(texts, shares, strict=True)
        if share >= MIN_SHARE
    ]


def _spans(row: dict) -> list[Span] | None:
    """The times of the words of a row's best hypothesis, where it has the start and the end of all of them."""
    entries = row.get("words") or []
    if [entry[0] for entry in entries] != row["hyp"].split() or any(len(entry) < 3 for entry in entries):
        return None
    return [(entry[1], entry[2]) for entry in entries]


def _confidences(row: dict) -> list[float] | None:
    """The confidences of the words of a row's hypothesis, where all of its words have one."""
    entries = row.get("words") or []
    if [entry[0] for entry in entries] != row["hyp"].split() or any(len(entry) < 4 for entry in entries):
        return None
    if any(entry[3] is None for entry in entries):
        return None
    return [entry[3] for entry in entries]


def combine_folders(
    folders: Sequence[Path], out: Path, weights: Sequence[float] = (), scale: float = 1.0, overwrite: bool = False
) -> dict[str, Any]:
    """Combines the results in `folders`, of `asrtool decode` or `rescore`, and writes the result into `out`.

    `weights` of the systems are equal if they are not given. Writes and returns the facts (decode.json). Raises
    UserError for less than two folders, for weights that are not one for each, for results in words and phones, and for
    an OUT that is one of them, is not a result, or, unless `overwrite`, has other options; DataError with all
    utterances that a folder lacks or has with another reference.
    """
    weights = list(weights) or [1.0] * len(folders)
    if len(folders) < 2:
        raise UserError("there is one result; give two or more, of different systems")
    if len(weights) != len(folders):
        raise UserError(
            f"--system-weight is given {len(weights)} times for {len(folders)} results; give one for each, in order"
        )
    if not sum(weights):
        raise UserError("all weights are 0; give at least one above 0")
    resolved = [folder.resolve() for folder in folders]
    if out.resolve() in resolved:
        raise UserError(f"--out {out} is one of the results to be combined; name another one")
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise UserError(f"{folders[number]} is given twice; --system-weight gives a result more weight")
    require_own_folder(out, "decode.json", "asrtool combine")
    options = options_as_json({"folders": [str(path) for path in resolved], "weights": weights, "scale": scale})
    require_same_options(out, options, overwrite, "another --out")
    utterances = _read_rows(folders)
    rows = [
        combine_rows(rows, weights, scale) for rows in progress(utterances, "combining", len(utterances), "utterances")
    ]
    facts = _combined_facts(folders) | {"set": set_name(folders[0]), "method": out.name, "utterances": len(rows)}
    facts |= {"combined": [str(folder) for folder in folders], "options": options}
    with result_lock(out, "asrtool combine"):
        write_result(out, rows, "decode.json", facts | provenance())
    return facts


def _read_rows(folders: Sequence[Path]) -> list[list[dict]]:
    """The rows of all folders, the rows of an utterance together, in the order of the first folder."""
    results: list[dict[str, dict]] = []
    for folder in folders:
        path = folder / HYPOTHESES
        rows = read_hypotheses(path)
        for row in rows:
            schemas.check_schema(schemas.CombinedRow, row, f"{path}: {row['id']}", "decode again")
        results.append({row["id"]: row for row in rows})
    if len({row.get("token_type", "words") for result in results for row in result.values()}) > 1:
        raise UserError(
            f"{', '.join(map(str, folders))}: some are in words, others in phones; give results of one type"
        )
    first = results[0]
    problems = []
    for folder, result in zip(folders[1:], results[1:], strict=True):
        problems += [f"{key}: not in {folder}" for key in first.keys() - result.keys()]
        problems += [f"{key}: not in {folders[0]}" for key in result.keys() - first.keys()]
        shared = first.keys() & result.keys()
        problems += [
            f"{key}: another reference in {folder}" for key in shared if result[key]["ref"] != first[key]["ref"]
        ]
    if problems:
        summary = "the results are not of the same utterances; decode one manifest with each system"
        raise DataError(summary, sorted(problems))
    return [[result[key] for result in results] for key in first]


def _combined_facts(folders: Sequence[Path]) -> dict[str, Any]:
    """The facts that the result has from its systems: the audio, and the sums of their real-time factors."""
    all_facts = [read_result_facts(folder) for folder in folders]
    combined = {"audio_seconds": all_facts[0]["audio_seconds"]} if "audio_seconds" in all_facts[0] else {}
    for name in SUMMED_FACTS:
        values = [facts[name] for facts in all_facts if isinstance(facts.get(name), int | float)]
        if len(values) == len(folders):
            combined[name] = round(sum(values), 5)
    return combined
