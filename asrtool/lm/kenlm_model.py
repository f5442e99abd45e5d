"""Models read by KenLM's own Python package, which is optional: its binaries, and a second reading of ARPA files."""

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from asrtool.errors import UserError, require_file
from asrtool.lm.ngram import BOS, LN10

MAGIC = b"mmap lm http://kheafield.com/code"  # the first bytes of KenLM's binary files


def is_kenlm_binary(path: str | Path) -> bool:
    """Returns whether the file `path` is a binary of KenLM."""
    with open(require_file(path, "language model", "train one with `asrtool lm train`"), "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class KenlmModel:
    """A `LanguageModel` that KenLM scores, from an ARPA file or a binary of `build_binary`."""

    def __init__(self, path: str | Path):
        try:
            import kenlm
        except ImportError as error:
            raise UserError(f"{path} needs the package kenlm, which is not installed: pip install kenlm") from error
        self._kenlm = kenlm
        file = require_file(path, "language model", "see `asrtool lm train`")
        try:
            config = kenlm.Config()
            config.show_progress = False
            config.arpa_complain = kenlm.ARPALoadComplain.NONE
            self._model = kenlm.Model(str(file), config)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            raise UserError(f"KenLM cannot read {path}: {' '.join(str(error).split())}") from error
        self.order = self._model.order
        self.start: Hashable = kenlm.State()
        self._model.BeginSentenceWrite(self.start)

    def __contains__(self, word: str) -> bool:
        return word in self._model

    def score(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """Returns the natural log-prob of `word` after `state`, and the state after it."""
        after = self._kenlm.State()
        return self._model.BaseScore(state, word, after) * LN10, after

    def token_logprobs(self, words: list[str]) -> np.ndarray:
        """Returns the log-probs of the words of a text, with <s> and </s>, as `NgramModel.token_logprobs`."""
        values = np.zeros(len(words))
        state = self.start
        for place, word in enumerate(words):
            if word == BOS:
                state = self.start
            else:
                values[place], state = self.score(state, word)
        return values
