"""Neural language models in files, and the log-probs that they give words.

A file has the weights, the sizes and the BPE units of a `TransformerLm`. The probability of a word is that of its units
as the tokenizer splits it; that of a sentence is that of its words and of its end. A model with a context gives them
after the sentences before (Irie et al., Training language models for long-span cross-sentence evaluation, ASRU 2019).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrtool.device import pick_device
from asrtool.errors import UserError, require_file
from asrtool.files import require_output, require_same_kind
from asrtool.lm.transformer_lm import BOUNDARY, Shape, TransformerLm, check_weights
from asrtool.tensor_files import DAMAGE, damaged_file, load_tensors, save_tensors
from asrtool.text.tokenizer import Tokenizer, tokenizer_of

WHAT, HINT = "a neural language model", "make it with `asrtool lm train-neural`"
PARTS = {"shape", "tokenizer", "model", "facts"}  # of a file
BATCH = 8192  # units at once
Speller = Callable[[str], list[int] | None]


def speller(tokenizer: Tokenizer) -> Speller:
    """word -> its units, None where it has letters that none of them spells. What was asked for is kept."""
    return cache(lambda word: None if tokenizer.unknown(word) else tokenizer.encode(word))


class NeuralLm:
    """A trained model that scores sentences, with `context` units to see at once (0: those of the sentence alone)."""

    def __init__(self, model: TransformerLm, tokenizer: Tokenizer, device: torch.device | str = "cpu", context=0):
        self.model, self.tokenizer, self.device = model.to(device).eval(), tokenizer, device
        self.context, self.spell = context, speller(tokenizer)

    def knows(self, word: str) -> bool:
        """Whether units spell it."""
        return self.spell(word) is not None

    def said(self) -> deque[Sequence[str]]:
        """To keep the sentences in that were said, the last one last: as many as the context may hold."""
        return deque(maxlen=self.context)

    def in_order(self, sentences: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        """`logprobs` of the sentences of a text, each after those before it as far as the context goes."""
        if not self.context:
            yield from self.logprobs(sentences)
            return
        said = self.said()
        for words in sentences:
            yield from self.logprobs([words], said)
            said.append(words)

    def logprobs(self, sentences: Iterable[Sequence[str]], said: Sequence | deque = ()) -> Iterator[np.ndarray]:
        """For each sentence the natural log-probs of its words and of its end, (words + 1,) float64.

        `said` are the sentences before each of them: the last of these are taken that the context has room for. A word
        that cannot be spelled has -inf, and what comes after it is scored as if it were not there.
        """
        spelled: Iterable[tuple[list[int], list[int]]] = map(self._spelled, sentences)
        before: list[int] = []
        if said:  # the same for all, as they are to be compared
            spelled = list(spelled)
            before = self._before(said, max(len(units) for units, _ in spelled))
        waiting: list[tuple[list[int], list[int]]] = []
        longest = 0
        for units, owners in spelled:
            if waiting and max(longest, len(units)) * (len(waiting) + 1) > BATCH:
                yield from self._score(waiting, before)
                waiting, longest = [], 0
            waiting.append((units, owners))
            longest = max(longest, len(units))
        if waiting:
            yield from self._score(waiting, before)

    def _spelled(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """The units of a sentence and of its end, and for each the number of its word."""
        units, owners = [], []
        for number, word in enumerate(words):
            spelled = self.spell(word)
            units += spelled or []
            owners += [number] * len(spelled or [])
        return [*units, BOUNDARY], [*owners, len(words)]

    def _before(self, said: Sequence | deque, longest: int) -> list[int]:
        """The units of the last sentences, each behind its boundary, that leave room for `longest` more."""
        found: list[int] = []
        for words in reversed(said):
            units = [BOUNDARY, *self._spelled(words)[0][:-1]]
            if len(units) == 1:
                continue
            if len(units) + len(found) + longest > self.context:
                break
            found = units + found
        return found

    @torch.no_grad()
    def _score(self, batch: list[tuple[list[int], list[int]]], before: list[int]) -> Iterator[np.ndarray]:
        inputs = [torch.tensor([BOUNDARY, *units[:-1]]) for units, _ in batch]
        lens = torch.tensor([len(units) for units, _ in batch], device=self.device)
        targets = torch.tensor([unit for units, _ in batch for unit in units], device=self.device)
        past = torch.tensor(before, device=self.device) if before else None
        found = self.model(pad_sequence(inputs, batch_first=True).to(self.device), lens, past)
        values = found.gather(1, targets[:, None])[:, 0].double().cpu().split(lens.tolist())
        for (_, owners), logprobs in zip(batch, values, strict=True):
            of_words = np.zeros(owners[-1] + 1)
            np.add.at(of_words, owners, logprobs.numpy())
            of_words[np.setdiff1d(np.arange(owners[-1]), owners)] = -np.inf
            yield of_words


def mixed(one: np.ndarray, other: np.ndarray, weight: float) -> np.ndarray:
    """Log-probs of the mixture of two models: `weight` times the first's probabilities, the rest the second's."""
    if weight in (0, 1):
        return one if weight else other
    return np.logaddexp(np.log(weight) + one, np.log1p(-weight) + other)


def save_neural(path: Path, model: TransformerLm, tokenizer: Tokenizer, shape: Shape, facts: dict[str, Any]) -> None:
    """Write a model; `facts` say how it was trained."""
    content = {"shape": vars(shape), "tokenizer": tokenizer.to_dict(), "model": model.state_dict(), "facts": facts}
    save_tensors(path, content)


def load_neural(path: str | Path, device: str = "auto", context: int | None = None) -> NeuralLm:
    """The model in the file `path`, with its context or a smaller one. UserError when there is none."""
    path = Path(path)
    require_file(path, "language model", HINT)
    place = pick_device(device)
    content = load_tensors(path, WHAT, HINT)
    try:
        tokenizer, shape = tokenizer_of(content["tokenizer"]), Shape.of(content["shape"])
        weights = dict(content["model"])
        check_weights(weights, tokenizer.size, shape)
        model = TransformerLm(tokenizer.size, shape)
        model.load_state_dict(weights)
    except DAMAGE as error:
        raise damaged_file(path, WHAT, HINT, error) from error
    return NeuralLm(model, tokenizer, place, _context(path, shape.context, context))


def _context(path: Path, trained: int, wanted: int | None) -> int:
    if wanted and wanted > trained:
        has = f"a context of {trained} units" if trained else "no context: train it with --context"
        raise UserError(f"{path} has {has}; --context {wanted} is more")
    return trained if wanted is None else wanted


def require_neural_output(out: Path, inputs: Iterable[Path]) -> None:
    """UserError unless a model may be written to `out`: a new file *.pt, or one that holds such a model."""
    require_output(out, (".pt",), inputs)
    require_same_kind(out, "a neural language model", _require_model)


def _require_model(path: Path) -> None:
    """UserError unless the file holds the parts of a model; the weights are mapped, not read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except DAMAGE as error:
        raise damaged_file(path, WHAT, HINT, error) from error
    if not isinstance(found, dict) or not found.keys() >= PARTS:
        raise UserError(f"{path} is not {WHAT}")
