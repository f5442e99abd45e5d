"""Rescoring of n-best lists: with a neural language model interpolated with the n-gram, by minimum Bayes risk, or both.

A language model with a context reads the best hypotheses of the same speaker's earlier utterances, one after the other.
Those are earlier by their ids, in which numbers count as numbers: hyps.jsonl has no times.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asrtool.decoding.minimum_bayes_risk import minimum_bayes_risk_index
from asrtool.decoding.result_folder import options_as_json, require_same_options, result_lock, write_result
from asrtool.device import describe_device
from asrtool.errors import UserError, require_file
from asrtool.files import file_hash, require_own_folder
from asrtool.lm.neural_lm import History, NeuralLm, interpolate_logprobs, load_neural_lm
from asrtool.lm.ngram import EOS, LanguageModel
from asrtool.lm.ngram_files import load_lm
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring import schemas
from asrtool.scoring.folder import HYPOTHESES, read_hypotheses, read_result_facts

logger = logging.getLogger(__name__)
STALE_FACTS = ("lattices", "partial", "run")  # of a decoding, whose files are not in the folder of the rescoring


@dataclass(frozen=True)
class LmMixture:
    """A neural language model, interpolated with an n-gram word by word; `weight` is the neural model's share."""

    neural: NeuralLm
    ngram: LanguageModel
    weight: float

    def gains(self, texts: Sequence[str], history: History = ()) -> Iterator[float]:
        """Yields for each text how much higher its log-prob is than by the n-gram alone, sentence end included.

        The neural model takes each text as what follows the sentences of `history`. A word that is impossible by one of
        the models, such as one without units in the neural model, keeps its log-prob of the n-gram.
        """
        sentences = [text.split() for text in texts]
        for words, neural in zip(sentences, self.neural.logprobs(sentences, history), strict=True):
            ngram = sentence_logprobs(self.ngram, words)
            known = np.isfinite(neural) & np.isfinite(ngram)
            neural, ngram = neural[known], ngram[known]
            yield float((interpolate_logprobs(neural, ngram, self.weight) - ngram).sum())


@dataclass(frozen=True)
class LmMixtureFiles:
    """The files of a mixture of language models, its weight, and the context as in `load_neural_lm`."""

    neural: Path
    ngram: Path
    weight: float = 0.5
    context: int | None = None
    device: str = "auto"

    def load(self) -> LmMixture:
        """Reads the files. Raises UserError where one is another kind of file, or damaged."""
        neural = load_neural_lm(self.neural, self.device, self.context)
        return LmMixture(neural, load_lm(self.ngram), self.weight)

    def facts(self, mixture: LmMixture) -> dict[str, Any]:
        """Returns the entries of decode.json that describe the mixture."""
        return {
            "neural": file_hash(self.neural),
            "neural_weight": mixture.weight,
            "neural_context": mixture.neural.context,
        }


def sentence_logprobs(model: LanguageModel, words: Sequence[str]) -> np.ndarray:
    """Returns the log-probs of the words and of the sentence end, (words + 1,)."""
    logprobs = np.zeros(len(words) + 1)
    state = model.start
    for position, word in enumerate([*words, EOS]):
        logprobs[position], state = model.score(state, word)
    return logprobs


@dataclass(frozen=True)
class Rescorer:
    """Chooses from n-best lists by their scores, with the gains of a mixture of language models if there is one.

    With `mbr` it chooses by minimum Bayes risk (asrtool/decoding/minimum_bayes_risk.py) instead of the highest score.
    """

    mixture: LmMixture | None
    mbr: bool = False

    def rescore_all(self, rows: Sequence[dict], description: str = "rescoring") -> list[dict]:
        """Returns the rescored rows, in the order of `rows`.

        The history of an utterance is the chosen hypotheses of the same speaker's utterances whose ids are before its
        id. Warns if the model has a context, and no utterance has a history.
        """
        context = self.mixture.neural.context if self.mixture else 0
        histories: dict[str, deque] = {}
        rescored: dict[int, dict] = {}
        num_with_history = 0
        order = sorted(range(len(rows)), key=lambda number: _natural_order(rows[number]["id"]))
        for number in progress(order, description, len(rows), "utterances"):
            row = rows[number]
            history: deque = deque(maxlen=0)
            if self.mixture and row.get("speaker") is not None:
                history = histories.setdefault(row["speaker"], self.mixture.neural.new_history())
            num_with_history += len(history) > 0
            rescored[number] = self.rescore_row(row, history)
            history.append(rescored[number]["hyp"].split())
        if context and not num_with_history:
            logger.warning(
                "the language model reads earlier utterances of the same speaker, and no utterance has one; name the "
                "speakers in the manifest, and decode again"
            )
        return [rescored[number] for number in range(len(rows))]

    def rescore_row(self, row: dict, history: History = ()) -> dict:
        """Returns a row of hyps.jsonl with the chosen hypothesis first, the others in the order of their scores.

        Only the best hypothesis of the input has units and words with times and confidences: they stay if it is chosen.
        """
        nbest = row.get("nbest") or [{"hyp": row["hyp"], "score": row["score"]}]
        if self.mixture:
            gains = self.mixture.gains([entry["hyp"] for entry in nbest], history)
            pairs = zip(nbest, gains, strict=True)
            nbest = [entry | {"score": round(entry["score"] + gain, 4)} for entry, gain in pairs]
        nbest = sorted(nbest, key=lambda entry: -entry["score"])
        if self.mbr:
            chosen = minimum_bayes_risk_index([entry["hyp"] for entry in nbest], [entry["score"] for entry in nbest])
            nbest.insert(0, nbest.pop(chosen))
        rescored = dict(row)
        if nbest[0]["hyp"] != row["hyp"]:
            for name in ("units", "words", "confidence"):
                rescored.pop(name, None)
        rescored |= nbest[0]
        if "nbest" in row:
            rescored["nbest"] = nbest
        return rescored


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts numbers within names by their values: utt2 is before utt10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)]


def read_nbest_lists(folder: Path) -> tuple[list[dict], dict]:
    """Returns the rows of a folder of n-best lists, and its facts. Raises UserError for a folder without them."""
    rows = read_hypotheses(folder / HYPOTHESES)
    facts = read_result_facts(folder)
    schemas.check_schema(schemas.DecodeFacts, facts, folder, "decode it again")
    if facts.get("nbest", 1) < 2:
        raise UserError(f"{folder} has one hypothesis per utterance; decode with --method graph --nbest 100")
    for row in rows:
        schemas.check_schema(schemas.NBestRow, row, f"{folder / HYPOTHESES}: {row['id']}", "decode again")
    return rows, facts


def rescore_folder(
    folder: Path, out: Path, files: LmMixtureFiles | None, mbr: bool = False, overwrite: bool = False
) -> dict:
    """Chooses from the n-best lists in `folder`, a result of `asrtool decode --nbest N`; writes the result into `out`.

    `files` is the mixture of `Rescorer`; its n-gram is the model of `--rescore`. Writes and returns the facts
    (decode.json); the real-time factor covers decoding and rescoring. Raises UserError for a folder without n-best
    lists, with another n-gram, or, for `files`, with the scores of a neural model, and for an OUT that is FOLDER, not a
    result, or, unless `overwrite`, one of other options.
    """
    options = options_as_json({"folder": folder, "mbr": mbr} | (vars(files) if files else {}))
    options.pop("device", None)
    if out.resolve() == folder.resolve():
        raise UserError(f"OUT is {out}, which is the folder to be rescored; name another one")
    require_own_folder(out, "decode.json", "asrtool rescore")
    rows, facts = read_nbest_lists(folder)
    if files and facts.get("neural"):
        raise UserError(f"{folder} was rescored with a neural language model already; give the folder that it is from")
    if files and facts.get("rescore") != file_hash(require_file(files.ngram, "n-gram model", "see --ngram")):
        problem = "its sha256 is another, or there is none"
        raise UserError(f"{folder} was not decoded with --rescore {files.ngram}: {problem}")
    mixture = files.load() if files else None
    require_same_options(out, options, overwrite, "another OUT")
    begin = time.monotonic()
    rescorer = Rescorer(mixture, mbr)
    rescored = rescorer.rescore_all(rows, f"rescoring {folder}")
    seconds = time.monotonic() - begin
    facts = {name: value for name, value in facts.items() if name not in STALE_FACTS}
    facts |= {"method": out.name, "rescored": str(folder), "mbr": mbr, "rescoring_seconds": round(seconds, 2)}
    if files and mixture:
        facts |= files.facts(mixture)
    device = torch.device(mixture.neural.device if mixture else "cpu")
    facts |= {"rescoring_device": describe_device(device), "options": options}
    if facts.get("audio_seconds") and "rtf" in facts:
        facts["rtf"] = round(facts["rtf"] + seconds / facts["audio_seconds"], 5)
    with result_lock(out, "asrtool rescore"):
        write_result(out, rescored, "decode.json", facts | provenance())
    return facts
