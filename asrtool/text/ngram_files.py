"""N-gram models in files: ARPA, the text that all tools share, or compiled (.npz), which takes seconds to read.

A compiled model is what Kaldi's ConstArpa and KenLM's binaries are: the arrays of the model as they lie in memory.
"""

import zipfile
from pathlib import Path

import numpy as np

from asrtool.errors import UserError, require_file
from asrtool.files import atomic_path
from asrtool.text.arpa import read_arpa, write_arpa
from asrtool.text.ngram import LanguageModel, NgramModel
from asrtool.text.ngram_kenlm import KenlmModel, is_kenlm_binary
from asrtool.text.ngram_trie import Trie

COMPILED = ".npz"


def load_lm(path: str | Path) -> LanguageModel:
    """A language model for searches: as `read_ngrams`, or a binary of KenLM by the package `kenlm`."""
    return KenlmModel(path) if is_kenlm_binary(path) else read_ngrams(path)


def read_ngrams(path: str | Path) -> NgramModel:
    """The model in an ARPA file (.gz too) or in a compiled one. Raises UserError, DataError for what is wrong."""
    return _read_compiled(Path(path)) if is_compiled(path) else read_arpa(path)


def write_ngrams(model: NgramModel, path: str | Path) -> None:
    """Write `model` to `path`: compiled when that ends in .npz, else as ARPA."""
    if is_compiled(path):
        _write_compiled(model, path)
    else:
        write_arpa(model, path)


def is_compiled(path: str | Path) -> bool:
    """Whether `path` is by its name a compiled model."""
    return Path(path).suffix == COMPILED


def _write_compiled(model: NgramModel, path: str | Path) -> None:
    words = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    trie, values = model.trie, {"logprobs": model.logprobs, "backoffs": model.backoffs, "states": model.states}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, words=words, offsets=trie.offsets, keys=trie.keys, suffixes=trie.suffixes, **values)


def _read_compiled(path: Path) -> NgramModel:
    require_file(path, "language model", "make it with `asrtool lm convert`")
    try:
        with np.load(path) as arrays:
            words = arrays["words"].tobytes().decode().split("\n")
            trie = Trie(arrays["keys"], len(words), arrays["offsets"].tolist())
            trie.suffixes = arrays["suffixes"]
            model = NgramModel(words, trie, arrays["logprobs"], arrays["backoffs"])
            model.states = arrays["states"]
            return model
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no compiled n-gram model ({error}); make it with `asrtool lm convert`") from error
