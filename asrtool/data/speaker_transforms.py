"""Transforms of the features to an average speaker, one for each speaker: what `asrtool fmllr` estimates.

A transform acts on the first cepstra of an utterance, from which their mean has been removed: x -> A x + b. On log-mel
features it is y -> y + C^T ((A - 1) C (y - mean) + b), where C has the first rows of the discrete cosine transform;
the mean and the finer structure of the spectrum stay as they are.
"""

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lhotse import MonoCut
from torch import Tensor

from asrtool.data.speeds import speed_of
from asrtool.files import file_hash
from asrtool.tensor_files import DamagedFileError, load_tensors, require_finite, save_tensors

HINT = "write it with `asrtool fmllr`"
NUM_CEPSTRA = 40  # that are transformed, of log-mel features of at least as many bins


@lru_cache(maxsize=2)
def cosine_transform(num_bins: int) -> Tensor:
    """Returns the rows of the orthonormal discrete cosine transform that give the transformed cepstra: (D, F)."""
    from scipy.fft import dct

    rows = dct(torch.eye(num_bins, dtype=torch.float64).numpy(), norm="ortho", axis=0)
    return torch.from_numpy(rows[: min(NUM_CEPSTRA, num_bins)])


def cepstra(features: Tensor) -> Tensor:
    """Returns the cepstra (T, D), of mean zero, of log-mel features (T, F) of a whole utterance."""
    return (features - features.mean(0)) @ cosine_transform(features.shape[1]).T.to(features.dtype)


def transform_key(cut: MonoCut) -> str | None:
    """Returns the name of a cut's transform; None for a cut without a speaker.

    It is the speaker, and the speed where that was changed: a voice at another speed is another voice.
    """
    speaker = cut.supervisions[0].speaker if cut.supervisions else None
    speed = speed_of(cut)
    return speaker if not speaker or speed == 1.0 else f"{speaker} at speed {speed:g}"


class SpeakerTransforms:
    """The transforms [A b] (D, D + 1) of speakers, by their keys, for features of `num_bins` bins, and their file."""

    def __init__(self, transforms: Mapping[str, Tensor], num_bins: int, path: Path):
        self.path = path
        rows = cosine_transform(num_bins)
        identity = torch.eye(len(rows), len(rows) + 1, dtype=torch.float64)
        self._matrices = {}  # (F, F) and (F,) of each speaker
        for key, transform in transforms.items():
            change = transform.double() - identity
            self._matrices[key] = ((rows.T @ change[:, :-1] @ rows).T.float(), (change[:, -1] @ rows).float())

    def facts(self) -> dict[str, str]:
        """Returns what results record of the transforms: their file, and its hash."""
        return {"transforms": str(self.path), "transforms_hash": file_hash(self.path)}

    def __contains__(self, key: str | None) -> bool:
        return key in self._matrices

    def apply(self, features: Tensor, key: str) -> Tensor:
        """Returns the features (T, F) of an utterance of the speaker `key`, transformed."""
        matrix, offset = self._matrices[key]
        return features + (features - features.mean(0)) @ matrix + offset


def save_transforms(path: Path, transforms: Mapping[str, Tensor], num_bins: int, facts: dict) -> None:
    """Writes the transforms [A b] (D, D + 1) of speakers; `facts` say where they are from."""
    tensors = {key: transform.float() for key, transform in transforms.items()}
    save_tensors(path, {"speaker_transforms": tensors, "num_bins": num_bins, "facts": facts})


def read_transforms(path: Path) -> dict[str, Any]:
    """Returns what `save_transforms` wrote to a file. Raises UserError for another file."""
    state = load_tensors(path, "a file of speaker transforms", HINT)
    if not isinstance(state.get("speaker_transforms"), dict) or not isinstance(state.get("num_bins"), int):
        raise DamagedFileError(f"{path} is not a file of speaker transforms", HINT)
    return state


def load_transforms(path: Path, num_bins: int) -> SpeakerTransforms:
    """Returns the transforms in a file. Raises UserError for another file, or features of another number of bins."""
    state = read_transforms(path)
    transforms = state["speaker_transforms"]
    if state["num_bins"] != num_bins:
        raise DamagedFileError(f"{path} is for features of {state['num_bins']} bins, not {num_bins}", HINT)
    dims = len(cosine_transform(num_bins))
    for key, transform in transforms.items():
        if not isinstance(key, str) or not isinstance(transform, Tensor) or transform.shape != (dims, dims + 1):
            raise DamagedFileError(f"{path} has a transform of another shape, of {key!r}", HINT)
    require_finite(transforms, path, HINT)
    in_nfc = {unicodedata.normalize("NFC", key): transform for key, transform in transforms.items()}
    return SpeakerTransforms(in_nfc, num_bins, path)
