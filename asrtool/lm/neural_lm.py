"""Neural language models in files, and the log-probs that they give words.

A file has the weights, the configuration and the BPE units of a `TransformerLm`. The log-prob of a word is the sum over
its units as the tokenizer splits it; the log-prob of a sentence is the sum over its words and its end. A model with a
context scores sentences after the sentences before them (Irie et al., Training language models for long-span
cross-sentence evaluation, ASRU 2019).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrtool.device import pick_device
from asrtool.distributed import this_rank
from asrtool.errors import UserError, require_file
from asrtool.files import require_output, require_same_kind
from asrtool.lm.sentences import MAX_SENTENCE_UNITS, word_encoder
from asrtool.lm.transformer_lm import BOUNDARY, TransformerLm, TransformerLmConfig, check_lm_weights
from asrtool.tensor_files import DAMAGE, damaged_file, load_tensors, save_tensors
from asrtool.text.tokenizer import Tokenizer, tokenizer_from_dict

WHAT = "a neural language model"
HINT = "train one with `asrtool lm train-neural`"
FILE_KEYS = {"config", "tokenizer", "model", "facts"}
BATCH_UNITS = 8192  # scored at once, padding included
History = Sequence[Sequence[str]] | deque[Sequence[str]]  # the sentences before one, the last one last


class NeuralLm:
    """A trained model that scores sentences.

    `context` is the largest number of units, of a sentence and of those before it, that the model sees at once; 0 means
    that each sentence is scored alone.
    """

    def __init__(
        self, model: TransformerLm, tokenizer: Tokenizer, device: torch.device | str = "cpu", context: int = 0
    ):
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.device = device
        self.context = context
        self.encode_word = word_encoder(tokenizer)

    def __contains__(self, word: str) -> bool:
        """Returns whether all characters of `word` have units."""
        return self.encode_word(word) is not None

    def new_history(self) -> deque[Sequence[str]]:
        """Returns an empty queue for the sentences before the next one, which keeps as many as the context may hold."""
        return deque(maxlen=self.context)

    def text_logprobs(self, sentences: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        """Yields `logprobs` of each sentence of a text, after the sentences before it as far as the context goes."""
        if not self.context:
            yield from self.logprobs(sentences)
            return
        history = self.new_history()
        for words in sentences:
            yield from self.logprobs([words], history)
            history.append(words)

    def logprobs(self, sentences: Iterable[Sequence[str]], history: History = ()) -> Iterator[np.ndarray]:
        """Yields the natural log-probs of its words and of its end, (words + 1,) float64.

        `history` has the sentences before each of `sentences`, which are alternatives; the last ones that the context
        has room for are used. A word without units has -inf, and the words after it are scored as if it were absent. A
        sentence of more units than MAX_SENTENCE_UNITS and the context is scored in windows, so that memory is bounded.
        """
        encoded: Iterable[tuple[list[int], list[int]]] = map(self._encode, sentences)
        history_units: list[int] = []
        if history:  # the same for all sentences, since their scores will be compared
            encoded = list(encoded)
            history_units = self._history_units(history, max(len(units) for units, _ in encoded))
        batch: list[tuple[list[int], list[int]]] = []
        longest = 0
        for units, word_numbers in encoded:
            if len(units) > max(MAX_SENTENCE_UNITS, self.context):
                yield from self._score(batch, history_units)
                batch = []
                longest = 0
                yield _word_logprobs(self._long_logprobs(units), word_numbers)
                continue
            if batch and max(longest, len(units)) * (len(batch) + 1) > BATCH_UNITS:
                yield from self._score(batch, history_units)
                batch = []
                longest = 0
            batch.append((units, word_numbers))
            longest = max(longest, len(units))
        yield from self._score(batch, history_units)

    def _encode(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Returns the units of a sentence and of its end, and the number of the word that each unit belongs to."""
        units: list[int] = []
        word_numbers: list[int] = []
        for number, word in enumerate(words):
            word_units = self.encode_word(word) or []
            units += word_units
            word_numbers += [number] * len(word_units)
        return [*units, BOUNDARY], [*word_numbers, len(words)]

    def _history_units(self, history: History, longest: int) -> list[int]:
        """Returns the units of the last sentences, each after its boundary, that leave room for `longest` more."""
        history_units: list[int] = []
        for words in reversed(history):
            units = [BOUNDARY, *self._encode(words)[0][:-1]]
            if len(units) == 1:
                continue
            if len(units) + len(history_units) + longest > self.context:
                break
            history_units = units + history_units
        return history_units

    def _score(self, batch: list[tuple[list[int], list[int]]], history_units: list[int]) -> Iterator[np.ndarray]:
        """Yields the log-probs (words + 1,) of each sentence of a batch of `_encode` results, after `history_units`."""
        if not batch:
            return
        sequences = [[BOUNDARY, *units] for units, _ in batch]
        for (_, word_numbers), logprobs in zip(batch, self._unit_logprobs(sequences, history_units), strict=True):
            yield _word_logprobs(logprobs, word_numbers)

    def _long_logprobs(self, units: list[int]) -> np.ndarray:
        """Returns the log-probs (L,) of the units of a long sentence, in windows of which the first half is context."""
        window = max(MAX_SENTENCE_UNITS, self.context)
        sequence = [BOUNDARY, *units]
        parts = self._unit_logprobs([sequence[: window + 1]], [])
        step = window // 2
        for begin in range(window, len(units), step):
            (logprobs,) = self._unit_logprobs([sequence[begin - step : begin + step + 1]], [])
            parts.append(logprobs[step:])
        return np.concatenate(parts)

    @torch.no_grad()
    def _unit_logprobs(self, sequences: list[list[int]], history_units: list[int]) -> list[np.ndarray]:
        """Returns the log-probs (L - 1,) float64 of all units but the first one of each sequence of L units."""
        inputs = [torch.tensor(units[:-1]) for units in sequences]
        lens = torch.tensor([len(units) - 1 for units in sequences], device=self.device)
        targets = torch.tensor([unit for units in sequences for unit in units[1:]], device=self.device)
        history = torch.tensor(history_units, device=self.device) if history_units else None
        logprobs = self.model(pad_sequence(inputs, batch_first=True).to(self.device), lens, history)
        of_targets = logprobs.gather(1, targets[:, None])[:, 0].double().cpu().split(lens.tolist())
        return [part.numpy() for part in of_targets]


def _word_logprobs(unit_logprobs: np.ndarray, word_numbers: list[int]) -> np.ndarray:
    """Returns the sums (words + 1,) of the log-probs of units by the numbers of their words; -inf without units."""
    logprobs = np.zeros(word_numbers[-1] + 1)
    np.add.at(logprobs, word_numbers, unit_logprobs)
    logprobs[np.setdiff1d(np.arange(word_numbers[-1]), word_numbers)] = -np.inf
    return logprobs


def interpolate_logprobs(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Returns log-probs of a mixture: `weight` times the first model's probabilities, the rest the second's."""
    if weight in (0, 1):
        return first if weight else second
    return np.logaddexp(np.log(weight) + first, np.log1p(-weight) + second)


def save_neural_lm(
    path: Path, model: TransformerLm, tokenizer: Tokenizer, config: TransformerLmConfig, facts: dict[str, Any]
) -> None:
    """Writes a model to `path`, with `facts`: a dictionary of plain values that says how it was trained."""
    content = {
        "config": vars(config),
        "tokenizer": tokenizer.to_dict(),
        "model": model.state_dict(),
        "facts": facts,
    }
    save_tensors(path, content)


def load_neural_lm(path: str | Path, device: str = "auto", context: int | None = None) -> NeuralLm:
    """Reads a model from `path`; `context` is its own if None, or a smaller one.

    Raises UserError for a file that does not hold such a model, and for a context that is larger than its own.
    """
    path = require_file(path, "language model", HINT)
    torch_device = pick_device(device, this_rank().local_rank)
    content = load_tensors(path, WHAT, HINT)
    try:
        tokenizer = tokenizer_from_dict(content["tokenizer"])
        config = TransformerLmConfig.from_dict(content["config"])
        weights = dict(content["model"])
        check_lm_weights(weights, tokenizer.size, config)
        model = TransformerLm(tokenizer.size, config)
        model.load_state_dict(weights)
    except DAMAGE as error:
        raise damaged_file(path, WHAT, HINT, error) from error
    if context and context > config.context:
        has = f"a context of {config.context} units" if config.context else "no context: train it with --context"
        raise UserError(f"{path} has {has}; --context {context} is more")
    return NeuralLm(model, tokenizer, torch_device, config.context if context is None else context)


def require_neural_output(out: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError unless a model may be written to `out`: a new file *.pt, or one that holds such a model."""
    require_output(out, (".pt",), inputs)
    require_same_kind(out, WHAT, _require_neural_lm)


def _require_neural_lm(path: Path) -> None:
    """Raises UserError unless the file has the keys of a model; the weights are memory-mapped, not read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except DAMAGE as error:
        raise damaged_file(path, WHAT, HINT, error) from error
    if not isinstance(content, dict) or not content.keys() >= FILE_KEYS:
        raise UserError(f"{path} is not {WHAT}")
