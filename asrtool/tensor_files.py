"""Files of tensors and plain types: written atomically, with a checksum that is verified before anything is used.

torch and numpy both write a zip archive, in which every member has a CRC-32. Neither compares it when it reads, so a
flipped bit would silently become a wrong weight: `load_tensors` and `load_arrays` do compare it.
"""

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asrtool.errors import UserError, require_file
from asrtool.files import atomic_path
from asrtool.readers import max_unpacked_bytes

if TYPE_CHECKING:
    import torch

# Errors of the unpickler and the zip reader for a file that is cut short, overwritten in places or of another kind.
DAMAGE = (
    *(RuntimeError, EOFError, LookupError, TypeError, ValueError, AssertionError, AttributeError, MemoryError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, OSError, NotImplementedError),
)
BLOCK = 1 << 20  # bytes that are read at once to compare checksums


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors and plain types. A full disk is a UserError that leaves the previous file unchanged."""
    import torch  # here, since commands that read only arrays need not spend a second and 200 MB on it

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(dict(state), file)
        file.flush()


def load_tensors(path: Path, what: str, hint: str, device: "torch.device | str" = "cpu") -> dict[str, Any]:
    """Returns the tensors and plain types in `path`, never anything that runs.

    UserError that names the file if it is missing or damaged; `what` says what it should be, e.g. "a checkpoint of
    asrtool", and `hint` what to do.
    """
    import torch

    require_file(path, what, hint)
    try:
        verify_archive(path, compressed=False)
        state = torch.load(path, map_location=device, weights_only=True)
        _require_stored(state)
    except DAMAGE as error:
        raise damaged_file(path, what, hint, error) from error
    if not isinstance(state, dict):
        raise DamagedFileError(f"{path} is not {what}", hint)
    return state


def _require_stored(value: Any) -> None:
    """Raises ValueError for a tensor with more elements than its file has: strides of 0, sparse, or without data."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            raise ValueError(f"it has a tensor of kind {value.layout} on {value.device}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"it has a tensor of {value.numel():,} elements without their data")
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _require_stored(item)


def load_arrays(path: Path, what: str, hint: str) -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file by name. UserError as of `load_tensors`."""
    require_file(path, what, hint)
    try:
        verify_archive(path, compressed=True)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        raise damaged_file(path, what, hint, error) from error


class DamagedFileError(UserError):
    """A file cannot be read: `problem` says what is wrong with it, `hint` what to do."""

    def __init__(self, problem: str, hint: str):
        super().__init__(problem, hint)  # both, so that the error can be pickled for other processes
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}"


def damaged_file(path: Path, what: str, hint: str, error: BaseException) -> DamagedFileError:
    """Returns the error of a file that cannot be read."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return DamagedFileError(f"{path} is not {what}, or damaged ({reason})", hint)


def verify_archive(path: Path, compressed: bool) -> None:
    """Compares the checksum of every member of a zip archive; ValueError that names the first that differs.

    With `compressed` False no member may be compressed, else all together may unpack to `max_unpacked_bytes`.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > max_unpacked_bytes(path):
            raise ValueError(f"unpacked it would have {size:,} bytes")
        for member in archive.infolist():
            if not compressed and member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its part {member.filename[:50]} is compressed")
            with archive.open(member) as content:
                while content.read(BLOCK):  # the reader compares the checksum at the end of each member
                    pass


def require_finite(tensors: Mapping[str, Any], path: Path, hint: str) -> None:
    """Raises UserError that names the first of `tensors` with a value that is not finite."""
    import torch

    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise DamagedFileError(f"{path}: {name} has values that are not finite", hint)
