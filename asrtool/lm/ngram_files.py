"""N-gram models in files: ARPA, the text format that all tools share, or compiled (.npz), which is read in seconds.

A compiled model has the arrays of the model as they lie in memory, like Kaldi's ConstArpa and KenLM's binaries.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from asrtool.errors import UserError
from asrtool.files import atomic_path, file_hash, require_output, require_same_kind
from asrtool.lm.arpa import begins_as_arpa, read_arpa, write_arpa
from asrtool.lm.kenlm_model import KenlmModel, is_kenlm_binary
from asrtool.lm.ngram import LanguageModel, NgramModel
from asrtool.lm.ngram_checks import check_array_types, check_model_arrays, has_model_arrays, require_writable_words
from asrtool.lm.ngram_trie import Trie
from asrtool.tensor_files import damaged_file, load_arrays

COMPILED_SUFFIX = ".npz"
SUFFIXES = (".arpa", ".arpa.gz", COMPILED_SUFFIX)
SOURCE = "source"  # array of a compiled model: the sha256 of the ARPA file that it was converted from, in ASCII
HASH_LENGTH = 64  # hexadecimal digits of a sha256


def load_lm(path: str | Path) -> LanguageModel:
    """Reads a language model for searches: as `read_ngrams`, or a binary of KenLM with the package `kenlm`."""
    return KenlmModel(path) if is_kenlm_binary(path) else read_ngrams(path)


def read_ngrams(path: str | Path) -> NgramModel:
    """Reads an ARPA file (.gz too) or a compiled model. Raises UserError or DataError for a broken file."""
    return _read_compiled(Path(path)) if is_compiled(path) else read_arpa(path)


def write_ngrams(model: NgramModel, path: str | Path) -> None:
    """Writes `model` to `path`: compiled when the name ends in .npz, else as ARPA."""
    if is_compiled(path):
        _write_compiled(model, path)
    else:
        write_arpa(model, path)


def convert_ngrams(path: str | Path, out: str | Path) -> NgramModel:
    """Writes the model in the file `path` in the format of the name of `out`; returns it.

    A compiled model records the ARPA file that it was converted from (`source_hash`).
    """
    model = read_ngrams(path)
    if is_compiled(out):
        _write_compiled(model, out, source_hash(path))
    else:
        write_arpa(model, out)
    return model


def source_hash(path: str | Path) -> str:
    """Returns the sha256 of the ARPA file that a compiled model was converted from, where it is recorded.

    Otherwise, and for all other models, it is the sha256 of the file `path` itself. Graphs record it for the model
    that they are built with.
    """
    return (_recorded_source(Path(path)) if is_compiled(path) else "") or file_hash(path)


def is_compiled(path: str | Path) -> bool:
    """Returns whether the name of `path` is the name of a compiled model."""
    return Path(path).suffix == COMPILED_SUFFIX


def require_lm_output(out: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError unless an n-gram model may be written to `out`: a new file, or one that holds such a model."""
    require_output(out, SUFFIXES, inputs)
    require_same_kind(out, f"a model of the form {''.join(out.suffixes[-2:])}", _require_model)


def _require_model(path: Path) -> None:
    if not (has_model_arrays(path) if is_compiled(path) else begins_as_arpa(path)):
        raise UserError(f"{path} is not an n-gram model")


def _write_compiled(model: NgramModel, path: str | Path, source: str = "") -> None:
    require_writable_words(model.words)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            words=np.frombuffer("\n".join(model.words).encode(), np.uint8),
            offsets=model.trie.offsets,
            keys=model.trie.keys,
            suffixes=model.trie.suffixes,
            logprobs=model.logprobs,
            backoffs=model.backoffs,
            states=model.states,
            source=np.frombuffer(source.encode(), np.uint8),
        )


def _recorded_source(path: Path) -> str:
    """Returns the hash that a compiled model records; "" for a file without one, which `read_ngrams` checks."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            source = archive[SOURCE]
    except (OSError, ValueError, LookupError, zipfile.BadZipFile):
        return ""
    is_hash = source.dtype == np.uint8 and source.shape == (HASH_LENGTH,)
    return source.tobytes().decode("ascii", "replace") if is_hash else ""


def _read_compiled(path: Path) -> NgramModel:
    hint = "write it with `asrtool lm convert`"
    arrays = load_arrays(path, "a compiled n-gram model", hint)
    try:
        check_array_types(arrays)
        words = arrays["words"].tobytes().decode().split("\n")
        check_model_arrays(arrays, words)
        trie = Trie(arrays["keys"], len(words), arrays["offsets"].tolist())
        trie.suffixes = arrays["suffixes"]
        model = NgramModel(words, trie, arrays["logprobs"], arrays["backoffs"])
        model.states = arrays["states"]
        return model
    except ValueError as error:
        raise damaged_file(path, "a compiled n-gram model", hint, error) from error
