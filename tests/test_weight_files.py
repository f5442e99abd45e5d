"""Weights as safetensors."""

import pytest
import torch

from asrtool.errors import UserError
from asrtool.weight_files import load_safetensors, save_safetensors

METADATA = {"units": ["<blank>", "ö\n"], "config": {"seed": 1, "rate": 0.1}}


def weights():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(4, 6, generator=generator)
    return {
        "a.weight": matrix,
        "a.transposed": matrix.t(),  # shares its memory, and is not contiguous
        "b": torch.tensor(3),
        "half": matrix[0].bfloat16(),
        "empty": torch.zeros(0, 5),
    }


@pytest.fixture
def file(tmp_path):
    save_safetensors(tmp_path / "w.safetensors", weights(), METADATA)
    return tmp_path / "w.safetensors"


def test_weights_and_metadata_are_read_as_they_were_written(file):
    state = load_safetensors(file, "weights", "none")
    read = state.pop("model")
    assert state == METADATA
    for name, weight in weights().items():
        assert read[name].dtype == weight.dtype and torch.equal(read[name], weight)


def test_the_same_weights_give_the_same_bytes(file, tmp_path):
    save_safetensors(tmp_path / "again.safetensors", dict(reversed(weights().items())), METADATA)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_others_may_read_the_file(file, tmp_path):
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_weights_stay_when_the_file_is_cut_short_afterwards(file):
    read = load_safetensors(file, "weights", "none")["model"]
    file.write_bytes(b"")
    assert torch.equal(read["a.weight"], weights()["a.weight"])


@pytest.mark.parametrize("bytes_left", [0, 4, 8, 40, -1])
def test_a_truncated_file_is_named(file, bytes_left):
    file.write_bytes(file.read_bytes()[:bytes_left])
    with pytest.raises(UserError, match=r"w\.safetensors.*; copy it"):
        load_safetensors(file, "weights", "copy it")


def test_weights_without_our_metadata_are_refused(tmp_path):
    from safetensors.torch import save_file

    for number, metadata in enumerate((None, {"format": "pt"}, {"asrtool": "[]"}, {"asrtool": "{"})):
        path = tmp_path / f"{number}.safetensors"
        save_file({"a": torch.zeros(2)}, path, metadata)
        with pytest.raises(UserError, match=path.name):
            load_safetensors(path, "weights", "none")
