"""Weights as safetensors, the format that other toolkits read without running code (huggingface/safetensors).

The header has a text entry "asrtool", a JSON object with what else a checkpoint has: configuration, units, versions.
The format has no checksum: a pack lists the file's sha256 (asrtool/pack_manifest.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asrtool.errors import UserError
from asrtool.files import atomic_path
from asrtool.readers import parse_json
from asrtool.tensor_files import DAMAGE, DamagedFileError, damaged_file

SAFETENSORS = ".safetensors"
METADATA = "asrtool"  # the key of the header
# Types of weights; the format has others, such as float8, that few operations support.
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)


def save_safetensors(path: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes weights by name, and `metadata` of plain types, atomically."""
    from safetensors.torch import save_file

    tensors = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.touch()
        # As the user's umask has it: the library writes files that only their owner can read.
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, {METADATA: text})
        temporary.chmod(mode)


def load_safetensors(path: Path, what: str, hint: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns {"model": weights by name} and the metadata that `save_safetensors` has written.

    Raises UserError that names the file if it is damaged; `what` and `hint` as in `tensor_files.load_tensors`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = (file.metadata() or {}).get(METADATA, "null")
            weights = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, *DAMAGE) as error:
        raise damaged_file(path, what, hint, error) from error
    entries = parse_json(metadata, f"{path}: its metadata", hint)
    if not isinstance(entries, dict) or "model" in entries:
        raise DamagedFileError(f"{path} is not {what} (its header has no configuration and units)", hint)
    for name, weight in weights.items():
        if weight.dtype not in TYPES:
            raise UserError(f"{path}: {name[:100]} has the type {weight.dtype}, which is not one of weights; {hint}")
    return {**entries, "model": weights}
