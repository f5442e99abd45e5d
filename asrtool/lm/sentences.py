"""Sentences as units, the training data of neural language models, and their batches."""

import hashlib
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asrtool.errors import UserError
from asrtool.lm.transformer_lm import BOUNDARY
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# Units of a sentence that are seen at once, since memory grows with their square. These are some 600 words: longer
# lines are texts without line ends.
MAX_SENTENCE_UNITS = 1024
SORTED_BATCHES = 50  # batches whose sentences are sorted by length together
WordEncoder = Callable[[str], list[int] | None]


def word_encoder(tokenizer: Tokenizer) -> WordEncoder:
    """Returns a function from a word to its units, None for a word with characters that have no unit.

    It caches its results.
    """
    return cache(lambda word: None if tokenizer.unknown(word) else tokenizer.encode(word))


@dataclass(frozen=True)
class UnitSentences:
    """Sentences of units, one after the other: `units` (L,) int32, sentence i from starts[i] to starts[i + 1]."""

    units: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def input_lengths(self) -> np.ndarray:
        """(S,) the number of input units of each sentence: its units and the boundary before them."""
        return np.diff(self.starts) + 1

    @cached_property
    def digest(self) -> str:
        """A hash of all units and sentence boundaries."""
        return hashlib.sha256(self.units.tobytes() + self.starts.tobytes()).hexdigest()

    def batch(self, chosen: Iterable[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns inputs (N, T) of the `chosen` sentences, their lengths (N,), and the targets, (sum of lengths,)."""
        units = [torch.from_numpy(self.units[self.starts[i] : self.starts[i + 1]].astype(np.int64)) for i in chosen]
        boundary = torch.tensor([BOUNDARY])
        inputs = pad_sequence([torch.cat([boundary, sentence]) for sentence in units], batch_first=True)
        targets = torch.cat([part for sentence in units for part in (sentence, boundary)])
        return inputs, torch.tensor([len(sentence) + 1 for sentence in units]), targets


def encode_sentences(sentences: Iterable[Sequence[str]], tokenizer: Tokenizer) -> UnitSentences:
    """Returns the units of `sentences` of words, 4 bytes each.

    Leaves out and counts sentences with a word without units, and divides sentences of more than MAX_SENTENCE_UNITS.
    """
    units = array("i")
    starts = array("q", [0])
    encode = word_encoder(tokenizer)
    left_out = divided = 0
    for words in progress(sentences, "encoding text", units="sentences"):
        encoded = [encode(word) for word in words]
        if None in encoded:
            left_out += 1
            continue
        sentence = [unit for word_units in encoded for unit in word_units or ()]
        for first in range(0, max(1, len(sentence)), MAX_SENTENCE_UNITS):
            units.extend(sentence[first : first + MAX_SENTENCE_UNITS])
            starts.append(len(units))
        divided += len(sentence) > MAX_SENTENCE_UNITS
    if divided:
        logger.warning(
            f"{divided} sentences of more than {MAX_SENTENCE_UNITS} units were divided; give a sentence a line"
        )
    if left_out:
        logger.info(f"{left_out} sentences were left out: the tokenizer lacks some of their characters")
    if not units:
        raise UserError("the text has no sentence that the tokenizer can encode; give text in the tokenizer's language")
    return UnitSentences(np.frombuffer(units, np.int32), np.frombuffer(starts, np.int64))


def join_sentences(sentences: UnitSentences, max_units: int) -> UnitSentences:
    """Joins neighbouring sentences, a boundary between them, to sequences of at most `max_units` input units."""
    firsts = [0]
    total = 0
    for place, length in enumerate(sentences.input_lengths.tolist()):
        if total + length > max_units and place > firsts[-1]:
            firsts.append(place)
            total = 0
        total += length
    inside = np.setdiff1d(np.arange(len(sentences)), firsts)
    units = np.insert(sentences.units, sentences.starts[inside], BOUNDARY)
    boundaries_before = np.array(firsts) - np.arange(len(firsts))  # that were inserted before each joined sequence
    return UnitSentences(units, np.append(sentences.starts[firsts] + boundaries_before, len(units)))


def sentence_batches(sentences: UnitSentences, max_units: int, seed: int) -> list[np.ndarray]:
    """Returns all sentences once, in random order, in batches of at most `max_units` units, padding included.

    A sentence of more than `max_units` has a batch of its own.
    """
    rng = np.random.default_rng(seed)
    lengths = sentences.input_lengths
    order = rng.permutation(len(sentences))
    num_groups = max(1, int(lengths.sum()) // (max_units * SORTED_BATCHES))
    batches: list[np.ndarray] = []
    for group in np.array_split(order, num_groups):
        batches += _split_by_size(group[np.argsort(lengths[group], kind="stable")], lengths, max_units)
    return [batches[place] for place in rng.permutation(len(batches))]


def _split_by_size(chosen: np.ndarray, lengths: np.ndarray, max_units: int) -> Iterator[np.ndarray]:
    """Splits sentences of rising length where one more would be too many."""
    first = 0
    for place, length in enumerate(lengths[chosen].tolist()):
        if (place + 1 - first) * length > max_units and place > first:
            yield chosen[first:place]
            first = place
    yield chosen[first:]
