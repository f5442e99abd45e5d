"""N-best lists once more: with a neural language model beside the n-gram they were found with, by minimum Bayes risk.

A model with a context hears what was said before: the best hypotheses of the speaker's utterances one after the other.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asrtool.decoding.minimum_bayes_risk import minimum_bayes_risk_index
from asrtool.decoding.result_folder import options_as_json, require_same_options, write_result
from asrtool.device import describe_device
from asrtool.errors import UserError, require_file
from asrtool.files import file_hash, require_own_folder
from asrtool.lm.neural_lm import NeuralLm, load_neural, mixed
from asrtool.lm.ngram import EOS, LanguageModel
from asrtool.lm.ngram_files import load_lm
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring import facts
from asrtool.scoring.folder import HYPOTHESES, read_facts, read_hypotheses


@dataclass(frozen=True)
class Mixture:
    """Word by word, `weight` times the probability of the neural model and the rest that of the n-gram."""

    neural: NeuralLm
    ngram: LanguageModel
    weight: float

    def gains(self, texts: Sequence[str], said: Sequence | deque = ()) -> Iterator[float]:
        """For each text how much higher its log-prob is than by the n-gram alone, sentence end included.

        The neural model takes each as what comes after the sentences `said`.
        """
        sentences = [text.split() for text in texts]
        for words, neural in zip(sentences, self.neural.logprobs(sentences, said), strict=True):
            ngram = logprobs_by(self.ngram, words)
            yield float((mixed(neural, ngram, self.weight) - ngram).sum())


@dataclass(frozen=True)
class Models:
    """The files of a mixture, its weight, and the context as in `load_neural`."""

    neural: Path
    ngram: Path
    weight: float = 0.5
    context: int | None = None
    device: str = "auto"

    def load(self) -> Mixture:
        """From the files. UserError where one is none, or damaged."""
        return Mixture(load_neural(self.neural, self.device, self.context), load_lm(self.ngram), self.weight)


def logprobs_by(model: LanguageModel, words: Sequence[str]) -> np.ndarray:
    """The log-probs of the words and of the sentence's end, (words + 1,)."""
    values, state = np.zeros(len(words) + 1), model.start
    for place, word in enumerate([*words, EOS]):
        values[place], state = model.score(state, word)
    return values


@dataclass(frozen=True)
class Rescorer:
    """Chooses among the n best: by their scores, with those of a mixture of language models if there is one.

    With `mbr` by minimum Bayes risk (asrtool/decoding/minimum_bayes_risk.py) in the place of the highest score.
    """

    mixture: Mixture | None
    mbr: bool = False

    def rows(self, rows: Iterable[dict]) -> Iterator[dict]:
        """`row` of each, after what was found in those before it as long as the speaker is the same one."""
        said, speaker = self.mixture.neural.said() if self.mixture else deque(maxlen=0), None
        for row in rows:
            if row.get("speaker") is None or row["speaker"] != speaker:
                said.clear()
            speaker = row.get("speaker")
            made = self.row(row, said)
            said.append(made["hyp"].split())
            yield made

    def row(self, row: dict, said: Sequence | deque = ()) -> dict:
        """A line of hyps.jsonl with the hypothesis that is chosen, first of the n best, the others by their scores.

        Only the best of before had its units and words with their times: they stay when it is the best still.
        """
        found = row.get("nbest") or [{"hyp": row["hyp"], "score": row["score"]}]
        if self.mixture:
            gains = self.mixture.gains([one["hyp"] for one in found], said)
            found = [one | {"score": round(one["score"] + gain, 4)} for one, gain in zip(found, gains, strict=True)]
        found = sorted(found, key=lambda one: -one["score"])
        if self.mbr:
            chosen = minimum_bayes_risk_index([one["hyp"] for one in found], [one["score"] for one in found])
            found.insert(0, found.pop(chosen))
        kept = row if found[0]["hyp"] == row["hyp"] else {k: v for k, v in row.items() if k not in ("units", "words")}
        return kept | found[0] | ({"nbest": found} if "nbest" in row else {})


def read_lists(folder: Path) -> tuple[list[dict], dict]:
    """The rows of a folder of n-best lists, and its facts. UserError for a folder without them, or with odd ones."""
    rows, found = read_hypotheses(folder / HYPOTHESES), read_facts(folder)
    facts.check(facts.Decoded, found, folder, "decode it again")
    if found.get("nbest", 1) < 2:
        raise UserError(f"{folder} has one hypothesis an utterance; decode it with --nbest, 100 for example")
    for row in rows:
        facts.check(facts.Listed, row, f"{folder / HYPOTHESES}: {row['id']}", "decode again")
    return rows, found


def rescore_folder(folder: Path, out: Path, models: Models | None, mbr: bool = False, overwrite: bool = False) -> dict:
    """Choose among the n best hypotheses in `folder`, which `asrtool decode --nbest N` made, and write these to `out`.

    `models` as in `Rescorer`, which the n-gram of `--rescore` belongs to. Returns and writes the facts (decode.json);
    the real-time factor is that of decoding and rescoring together. Raises UserError for a folder without n-best lists,
    or of another n-gram, and for an OUT that is FOLDER, is not a result, or, unless `overwrite`, one of other options.
    """
    options = options_as_json({"folder": folder, "mbr": mbr} | (vars(models) if models else {}))
    options.pop("device", None)
    if out.resolve() == folder.resolve():
        raise UserError(f"OUT is {out}, which is the folder to be rescored; name another one")
    require_own_folder(out, "decode.json", "asrtool rescore")
    rows, found = read_lists(folder)
    if models and found.get("rescore") != file_hash(require_file(models.ngram, "n-gram model", "see --ngram")):
        raise UserError(
            f"{folder} was not decoded with --rescore {models.ngram}: its sha256 is another, or there is none"
        )
    mixture = models.load() if models else None
    require_same_options(out, options, overwrite, "another OUT")
    begin = time.monotonic()
    made = list(Rescorer(mixture, mbr).rows(progress(rows, f"rescoring {folder}", len(rows), "utterances")))
    seconds = time.monotonic() - begin
    found |= {"method": out.name, "rescored": str(folder), "mbr": mbr, "rescoring_seconds": round(seconds, 2)}
    if mixture:
        found |= {"neural": file_hash(models.neural), "neural_weight": mixture.weight}
        found |= {"neural_context": mixture.neural.context}
    found |= {"rescoring_device": describe_device(torch.device(mixture.neural.device if mixture else "cpu"))}
    found |= {"options": options}
    if found.get("audio_seconds") and "rtf" in found:
        found["rtf"] = round(found["rtf"] + seconds / found["audio_seconds"], 5)
    with write_lock(out, "asrtool rescore"):
        write_result(out, made, "decode.json", found | provenance())
    return found
