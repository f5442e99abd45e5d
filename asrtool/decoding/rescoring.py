"""N-best lists with another language model: hypotheses that were found with an n-gram, in the order of a neural one.

A model with a context hears what was said before: the best hypotheses of the speaker's utterances one after the other.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.decoding.neural_lm import NeuralLm, load_neural, mixed
from asrtool.device import describe
from asrtool.errors import UserError
from asrtool.files import file_hash, write_json, write_jsonl
from asrtool.origin import origin
from asrtool.progress import progress
from asrtool.scoring.folder import HYPOTHESES, read_facts, read_hypotheses
from asrtool.text.ngram import EOS, LanguageModel
from asrtool.text.ngram_files import load_lm


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


def logprobs_by(model: LanguageModel, words: Sequence[str]) -> np.ndarray:
    """The log-probs of the words and of the sentence's end, (words + 1,)."""
    values, state = np.zeros(len(words) + 1), model.start
    for place, word in enumerate([*words, EOS]):
        values[place], state = model.score(state, word)
    return values


def rescore_folder(
    folder: Path,
    out: Path,
    neural: Path,
    ngram: Path,
    weight: float,
    device: str = "auto",
    context: int | None = None,
) -> dict:
    """Rescore the n best hypotheses in `folder`, which `asrtool decode --rescore NGRAM --nbest N` made, into `out`.

    `context` as in `load_neural`. Returns and writes the facts (decode.json); the real-time factor is that of decoding
    and rescoring together. Raises UserError for a folder without n-best lists, or of another n-gram.
    """
    rows, facts = read_hypotheses(folder / HYPOTHESES), read_facts(folder)
    if facts.get("nbest", 1) < 2:
        raise UserError(f"{folder} has one hypothesis an utterance; decode it with --nbest, 100 for example")
    if facts.get("rescore") != file_hash(ngram):
        raise UserError(f"{folder} was not decoded with --rescore {ngram}: its sha256 is another, or there is none")
    mixture = Mixture(load_neural(neural, device, context), load_lm(ngram), weight)
    begin = time.monotonic()
    made = list(rescore_rows(progress(rows, f"rescoring {folder}", len(rows), "utterances"), mixture))
    seconds = time.monotonic() - begin
    facts |= {"method": out.name, "rescored": str(folder), "neural": file_hash(neural), "neural_weight": weight}
    facts |= {"neural_context": mixture.neural.context}
    facts |= {"rescoring_seconds": round(seconds, 2), "rescoring_device": describe(mixture.neural.device)}
    if "rtf" in facts:
        facts["rtf"] = round(facts["rtf"] + seconds / facts["audio_seconds"], 5)
    write_jsonl(out / HYPOTHESES, made)
    write_json(out / "decode.json", facts | origin())
    return facts


def rescore_rows(rows: Iterable[dict], mixture: Mixture) -> Iterator[dict]:
    """`rescore_row` of each, after what was found in those before it as long as the speaker is the same one."""
    said, speaker = mixture.neural.said(), None
    for row in rows:
        if row.get("speaker") is None or row["speaker"] != speaker:
            said.clear()
        speaker = row.get("speaker")
        made = rescore_row(row, mixture, said)
        said.append(made["hyp"].split())
        yield made


def rescore_row(row: dict, mixture: Mixture, said: Sequence | deque = ()) -> dict:
    """A line of hyps.jsonl with the best hypothesis by the mixture, and all of them in its order.

    Only the best of before had its units and words with their times: they stay when it is the best still.
    """
    before = row.get("nbest") or [{"hyp": row["hyp"], "score": row["score"]}]
    gains = mixture.gains([one["hyp"] for one in before], said)
    found = [one | {"score": round(one["score"] + gain, 4)} for one, gain in zip(before, gains, strict=True)]
    found.sort(key=lambda one: -one["score"])
    kept = row if found[0]["hyp"] == row["hyp"] else {k: v for k, v in row.items() if k not in ("units", "words")}
    return kept | found[0] | ({"nbest": found} if "nbest" in row else {})
