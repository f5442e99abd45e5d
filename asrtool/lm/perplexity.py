"""Perplexity of a text under a model, and the words that the model does not know."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from asrtool.errors import DataError, UserError
from asrtool.lm.corpus import Corpus, other_case
from asrtool.lm.kenlm_model import KenlmModel, is_kenlm_binary
from asrtool.lm.ngram import BOS, SPECIAL, NgramModel
from asrtool.lm.ngram_files import is_compiled, read_ngrams
from asrtool.progress import progress
from asrtool.text.words import change_case, shortened

logger = logging.getLogger(__name__)

AGREEMENT = 1e-4  # relative: float32 and seven digits in the file, summed up, differ by less
MOSTLY = 0.5  # more unknown words than that, and text and model were not made for one another
SHOWN = 10  # of the most frequent unknown words


@dataclass(frozen=True)
class Perplexity:
    """What a model, read by `reader`, makes of a text: per token, sentence ends counted, <s> not.

    `known` leaves out the unknown words, as SRILM and Kaldi report it; `all` scores them as <unk>.
    """

    reader: str
    all: float
    known: float

    def __str__(self) -> str:
        with_oov = f"{self.all:.6g} with them as <unk>" if math.isfinite(self.all) else "infinite with them"
        return f"{self.reader}: perplexity {self.known:.6g} without OOV words, {with_oov}"


@dataclass(frozen=True)
class Report:
    """A text beside a model: its size, its unknown words, and perplexities by one or two readers of the model."""

    sentences: int
    words: int
    unknown: Counter
    perplexities: list[Perplexity]

    def __str__(self) -> str:
        count = self.unknown.total()
        most = ", ".join(f"{shortened(word)} {times}" for word, times in self.unknown.most_common(SHOWN))
        oov = f"{count} OOV words ({100 * count / self.words:.2f} %)" + (f", most often {most}" if count else "")
        return "\n".join([f"{self.sentences} sentences, {self.words} words, {oov}", *map(str, self.perplexities)])


def measure(path: Path, corpus: Corpus) -> Report:
    """The model in `path` on `corpus`; by KenLM too when that is installed, and by it alone if the file is its binary.

    Raises UserError when most words are unknown, DataError when the two readers differ by more than AGREEMENT.
    """
    if is_kenlm_binary(path):
        model = KenlmModel(path)
        return _report(corpus, model.__contains__, {"kenlm": _by_kenlm(model, corpus)})
    model = read_ngrams(path)
    values = {"asrtool": _by_ngrams(model, corpus)}
    if find_spec("kenlm") and not is_compiled(path):
        try:
            values["kenlm"] = _by_kenlm(KenlmModel(path), corpus)
        except UserError as error:  # it takes fewer files than we do
            logger.info(f"warning: {error}")
    report = _report(corpus, model.ids.__contains__, values)
    if len(values) == 2:
        _compare(report, path)
    return report


def measure_neural(
    path: Path, corpus: Corpus, ngram: Path | None = None, weight: float = 0.5, context: int | None = None
) -> Report:
    """The neural model in `path` on `corpus`; with `ngram` also that model, and the mixture of both.

    A model with a context (`context` as in `load_neural`) takes the sentences, in their order, as one text. Words that
    one of the two does not know are unknown to all. Raises UserError when these are most.
    """
    from asrtool.lm.neural_lm import load_neural, mixed

    model, start = load_neural(path, context=context), SPECIAL.index(BOS)
    sentences = np.split(corpus.tokens, np.flatnonzero(corpus.tokens == start)[1:])
    said = ([corpus.words[number] for number in sentence[1:-1].tolist()] for sentence in sentences)
    found = model.in_order(progress(said, "scoring text", len(sentences), "sentences"))
    neural = np.concatenate([part for logprobs in found for part in (np.zeros(1), logprobs)])
    if ngram is None:
        return _report(corpus, model.knows, {"neural": neural})
    other = read_ngrams(ngram)
    values = {"neural": neural, "n-gram": _by_ngrams(other, corpus)}
    values[f"{weight:g} neural"] = mixed(neural, values["n-gram"], weight)
    return _report(corpus, lambda word: word in other.ids and model.knows(word), values)


def _by_ngrams(model: NgramModel, corpus: Corpus) -> np.ndarray:
    return model.logprobs_of(np.array(model.numbers(corpus.words))[corpus.tokens])


def _by_kenlm(model: KenlmModel, corpus: Corpus) -> np.ndarray:
    return model.logprobs_of([corpus.words[number] for number in corpus.tokens.tolist()])


def _report(corpus: Corpus, knows: Callable[[str], bool], values: dict[str, np.ndarray]) -> Report:
    start = SPECIAL.index(BOS)
    unknown = np.array([not knows(word) for word in corpus.words])
    unknown[: len(SPECIAL)] = [True, False, False]
    missing, predicted = unknown[corpus.tokens], corpus.tokens != start
    counts = zip(corpus.words, np.where(unknown, corpus.counts(), 0).tolist(), strict=True)
    found = Counter({word: count for word, count in counts if count})
    words = int(predicted.sum()) - corpus.sentences
    if found.total() > MOSTLY * words:
        _refuse(corpus, found, words, knows)
    perplexities = [
        Perplexity(name, *(_perplexity(of[where]) for where in (predicted, predicted & ~missing)))
        for name, of in values.items()
    ]
    return Report(corpus.sentences, words, found, perplexities)


def _perplexity(logprobs: np.ndarray) -> float:
    """exp of the mean of negative log-probs; infinite when one of them is, or beyond float64."""
    with np.errstate(over="ignore"):
        return float(np.exp(-logprobs.mean()))


def _refuse(corpus: Corpus, unknown: Counter, words: int, knows: Callable[[str], bool]) -> None:
    changed = (change_case(word, case) for word in corpus.words for case in ("upper", "lower"))
    cases = [word for word in changed if knows(word)]
    few = ", ".join(shortened(word) for word, _ in unknown.most_common(3))
    hint = other_case(unknown, cases) or f"such as {few}; give a text of the model's language and units"
    raise UserError(f"{unknown.total()} of {words} words are not in the model: {hint}")


def _compare(report: Report, path: Path) -> None:
    ours, theirs = report.perplexities
    for mine, other in ((ours.known, theirs.known), (ours.all, theirs.all)):
        if abs(mine / other - 1) > AGREEMENT:
            summary = f"{path}: asrtool and KenLM read it differently; please report it"
            raise DataError(summary, str(report).splitlines())
