"""Neural language models in files, and the log-probs that they give words.

A file has the weights, the sizes and the BPE units of a `TransformerLm`. The probability of a word is that of its units
as the tokenizer splits it; that of a sentence is that of its words and of its end.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrtool.device import pick_device
from asrtool.errors import UserError, require_file
from asrtool.models.language import BOUNDARY, Shape, TransformerLm
from asrtool.text.tokenizer import Tokenizer, tokenizer_of
from asrtool.training.checkpoint import DAMAGE, save

BATCH = 8192  # units at once
Speller = Callable[[str], list[int] | None]


def speller(tokenizer: Tokenizer) -> Speller:
    """word -> its units, None where it has letters that none of them spells. What was asked for is kept."""
    return cache(lambda word: None if tokenizer.unknown(word) else tokenizer.encode(word))


class NeuralLm:
    """A trained model that scores sentences."""

    def __init__(self, model: TransformerLm, tokenizer: Tokenizer, device: torch.device | str = "cpu"):
        self.model, self.tokenizer, self.device = model.to(device).eval(), tokenizer, device
        self.spell = speller(tokenizer)

    def knows(self, word: str) -> bool:
        """Whether units spell it."""
        return self.spell(word) is not None

    def logprobs(self, sentences: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        """For each sentence the natural log-probs of its words and of its end, (words + 1,) float64.

        A word that cannot be spelled has -inf, and what comes after it is scored as if it were not there.
        """
        waiting: list[tuple[list[int], list[int]]] = []
        longest = 0
        for words in sentences:
            units, owners = self._spelled(words)
            if waiting and max(longest, len(units)) * (len(waiting) + 1) > BATCH:
                yield from self._score(waiting)
                waiting, longest = [], 0
            waiting.append((units, owners))
            longest = max(longest, len(units))
        if waiting:
            yield from self._score(waiting)

    def _spelled(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """The units of a sentence and of its end, and for each the number of its word."""
        units, owners = [], []
        for number, word in enumerate(words):
            spelled = self.spell(word)
            units += spelled or []
            owners += [number] * len(spelled or [])
        return [*units, BOUNDARY], [*owners, len(words)]

    @torch.no_grad()
    def _score(self, batch: list[tuple[list[int], list[int]]]) -> Iterator[np.ndarray]:
        inputs = [torch.tensor([BOUNDARY, *units[:-1]]) for units, _ in batch]
        lens = torch.tensor([len(units) for units, _ in batch], device=self.device)
        targets = torch.tensor([unit for units, _ in batch for unit in units], device=self.device)
        found = self.model(pad_sequence(inputs, batch_first=True).to(self.device), lens)
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
    save(path, content)


def load_neural(path: str | Path, device: str = "auto") -> NeuralLm:
    """The model in the file `path`. UserError when there is none."""
    path = require_file(path, "language model", "make it with `asrtool lm train-neural`")
    place = pick_device(device)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        tokenizer = tokenizer_of(content["tokenizer"])
        model = TransformerLm(tokenizer.size, Shape(**content["shape"]))
        model.load_state_dict(content["model"])
    except DAMAGE as error:
        raise UserError(f"{path} is no neural language model, or damaged; see `asrtool lm train-neural`") from error
    return NeuralLm(model, tokenizer, place)
