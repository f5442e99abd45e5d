"""Perplexity of a text under a model, and the words of the text that are not in the model's vocabulary."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from asrtool.errors import DataError, UserError
from asrtool.lm.corpus import Corpus, case_hint
from asrtool.lm.kenlm_model import KenlmModel, is_kenlm_binary
from asrtool.lm.ngram import BOS_ID, SPECIAL_WORDS, NgramModel
from asrtool.lm.ngram_files import is_compiled, read_ngrams
from asrtool.progress import progress
from asrtool.text.words import change_case, shortened

logger = logging.getLogger(__name__)

# Relative difference of asrtool's and KenLM's perplexity; float32, and seven digits in the file, add up to less
MAX_DIFFERENCE = 1e-4
MAX_UNKNOWN_SHARE = 0.5  # with more unknown words, text and model do not belong together
MAX_SHOWN = 10  # of the most frequent unknown words


@dataclass(frozen=True)
class Perplexity:
    """The perplexity per token of a text under a model as read by `reader`; sentence ends are tokens, <s> is not.

    `without_unknown` leaves out the unknown words, as SRILM and Kaldi report it; `with_unknown` scores them as <unk>.
    """

    reader: str
    with_unknown: float
    without_unknown: float

    def __str__(self) -> str:
        is_finite = math.isfinite(self.with_unknown)
        with_unknown = f"{self.with_unknown:.6g} with them as <unk>" if is_finite else "infinite with them"
        return f"{self.reader}: perplexity {self.without_unknown:.6g} without OOV words, {with_unknown}"


@dataclass(frozen=True)
class PerplexityReport:
    """The size of a text, its words that the model does not know, and perplexities by one or more models or readers."""

    sentences: int
    words: int
    unknown: Counter
    perplexities: list[Perplexity]

    def __str__(self) -> str:
        count = self.unknown.total()
        most = ", ".join(f"{shortened(word)} {times}" for word, times in self.unknown.most_common(MAX_SHOWN))
        oov = f"{count} OOV words ({100 * count / self.words:.2f} %)" + (f", most often {most}" if count else "")
        return "\n".join([f"{self.sentences} sentences, {self.words} words, {oov}", *map(str, self.perplexities)])


def measure_perplexity(path: Path, corpus: Corpus) -> PerplexityReport:
    """Returns the perplexity of `corpus` under the n-gram model in `path`.

    KenLM, where it is installed, reads the same file as well, and it alone reads its own binaries. Raises UserError
    when most words are unknown, DataError when the two readers differ by more than MAX_DIFFERENCE.
    """
    if is_kenlm_binary(path):
        kenlm_model = KenlmModel(path)
        return _report(corpus, kenlm_model.__contains__, {"kenlm": _kenlm_logprobs(kenlm_model, corpus)})
    model = read_ngrams(path)
    logprobs = {"asrtool": _ngram_logprobs(model, corpus)}
    if find_spec("kenlm") and not is_compiled(path):
        try:
            logprobs["kenlm"] = _kenlm_logprobs(KenlmModel(path), corpus)
        except UserError as error:  # KenLM reads fewer files than asrtool
            logger.warning(str(error))
    report = _report(corpus, model.ids.__contains__, logprobs)
    if len(logprobs) == 2:
        _compare_readers(report, path)
    return report


def measure_neural_perplexity(
    path: Path, corpus: Corpus, ngram: Path | None = None, weight: float = 0.5, context: int | None = None
) -> PerplexityReport:
    """Returns the perplexity of `corpus` under the neural model in `path`.

    With `ngram` also under that model and under the mixture of both. A model with a context (`context` as in
    `load_neural_lm`) reads the sentences, in their order, as one text. Words outside the vocabulary of one of the two
    models are unknown to all. Raises UserError when most words are unknown.
    """
    from asrtool.lm.neural_lm import interpolate_logprobs, load_neural_lm

    model = load_neural_lm(path, context=context)
    tokens = np.split(corpus.tokens, np.flatnonzero(corpus.tokens == BOS_ID)[1:])
    sentences = ([corpus.words[number] for number in sentence[1:-1].tolist()] for sentence in tokens)
    sentence_logprobs = model.text_logprobs(progress(sentences, "scoring text", len(tokens), "sentences"))
    neural = np.concatenate([part for logprobs in sentence_logprobs for part in (np.zeros(1), logprobs)])
    if ngram is None:
        return _report(corpus, model.__contains__, {"neural": neural})
    ngram_model = read_ngrams(ngram)
    ngram_logprobs = _ngram_logprobs(ngram_model, corpus)
    mixture = interpolate_logprobs(neural, ngram_logprobs, weight)
    return _report(
        corpus,
        lambda word: word in ngram_model and word in model,
        {"neural": neural, "n-gram": ngram_logprobs, f"{weight:g} neural": mixture},
    )


def _ngram_logprobs(model: NgramModel, corpus: Corpus) -> np.ndarray:
    return model.token_logprobs(np.array(model.word_ids(corpus.words))[corpus.tokens])


def _kenlm_logprobs(model: KenlmModel, corpus: Corpus) -> np.ndarray:
    return model.token_logprobs([corpus.words[number] for number in corpus.tokens.tolist()])


def _report(corpus: Corpus, is_known: Callable[[str], bool], logprobs: dict[str, np.ndarray]) -> PerplexityReport:
    """Returns the report of `logprobs` (L,) of the corpus's tokens by the name of their reader."""
    unknown_words = np.array([not is_known(word) for word in corpus.words])
    unknown_words[: len(SPECIAL_WORDS)] = [True, False, False]
    unknown_tokens = unknown_words[corpus.tokens]
    predicted = corpus.tokens != BOS_ID
    counts = zip(corpus.words, np.where(unknown_words, corpus.word_counts(), 0).tolist(), strict=True)
    unknown = Counter({word: count for word, count in counts if count})
    num_words = int(predicted.sum()) - corpus.num_sentences
    if unknown.total() > MAX_UNKNOWN_SHARE * num_words:
        raise _mostly_unknown(corpus, unknown, num_words, is_known)
    perplexities = [
        Perplexity(
            reader=reader,
            with_unknown=_mean_perplexity(values[predicted]),
            without_unknown=_mean_perplexity(values[predicted & ~unknown_tokens]),
        )
        for reader, values in logprobs.items()
    ]
    return PerplexityReport(corpus.num_sentences, num_words, unknown, perplexities)


def _mean_perplexity(logprobs: np.ndarray) -> float:
    """Returns exp of the mean of negative log-probs; infinite when one of them is, or beyond float64."""
    with np.errstate(over="ignore"):
        return float(np.exp(-logprobs.mean()))


def _mostly_unknown(corpus: Corpus, unknown: Counter, num_words: int, is_known: Callable[[str], bool]) -> UserError:
    changed = (change_case(word, case) for word in corpus.words for case in ("upper", "lower"))
    known_in_other_case = [word for word in changed if is_known(word)]
    examples = ", ".join(shortened(word) for word, _ in unknown.most_common(3))
    hint = case_hint(unknown, known_in_other_case)
    hint = hint or f"such as {examples}; give a text of the model's language and units"
    return UserError(f"{unknown.total()} of {num_words} words are not in the model: {hint}")


def _compare_readers(report: PerplexityReport, path: Path) -> None:
    asrtool, kenlm = report.perplexities
    for ours, theirs in (
        (asrtool.without_unknown, kenlm.without_unknown),
        (asrtool.with_unknown, kenlm.with_unknown),
    ):
        if abs(ours / theirs - 1) > MAX_DIFFERENCE:
            summary = f"{path}: asrtool and KenLM read it differently; please report it"
            raise DataError(summary, str(report).splitlines())
