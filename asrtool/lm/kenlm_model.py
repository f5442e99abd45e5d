"""KenLM's reading of a model by the package `kenlm`, which is optional: its binaries, and a second opinion on ARPA."""

from pathlib import Path

import numpy as np

from asrtool.errors import UserError, require_file
from asrtool.lm.ngram import BOS, LN10

MAGIC = b"mmap lm http://kheafield.com/code"  # how its binary files begin


def is_kenlm_binary(path: str | Path) -> bool:
    """Whether the file `path` is a binary of KenLM."""
    with open(require_file(path, "language model", "make it with `asrtool lm train`"), "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class KenlmModel:
    """A `LanguageModel` that KenLM scores, from an ARPA file or a binary of `build_binary`."""

    def __init__(self, path: str | Path):
        try:
            import kenlm
        except ImportError as error:
            raise UserError(f"{path} is to be read by KenLM, which is not installed: pip install kenlm") from error
        self._kenlm = kenlm
        try:
            config = kenlm.Config()
            config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
            self._model = kenlm.Model(str(require_file(path, "language model", "see `asrtool lm train`")), config)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            raise UserError(f"KenLM cannot read {path}: {' '.join(str(error).split())}") from error
        self.order = self._model.order
        self.start = kenlm.State()
        self._model.BeginSentenceWrite(self.start)

    def __contains__(self, word: str) -> bool:
        return word in self._model

    def score(self, state, word: str) -> tuple[float, object]:
        """The natural log-prob of `word` after `state`, and the state after it."""
        after = self._kenlm.State()
        return self._model.BaseScore(state, word, after) * LN10, after

    def logprobs_of(self, words: list[str]) -> np.ndarray:
        """The log-prob of every word of a text, as `NgramModel.logprobs_of`: <s> ... </s> for each sentence."""
        values, state = np.zeros(len(words)), self.start
        for place, word in enumerate(words):
            if word == BOS:
                state = self.start
            else:
                values[place], state = self.score(state, word)
        return values
