import random
import zipfile

import numpy as np
import pytest
import torch

from asrtool.errors import UserError
from asrtool.readers import EXPANSION_FREE_BYTES
from asrtool.tensor_files import load_arrays, load_tensors, require_finite, save_tensors


@pytest.fixture
def tensors(tmp_path):
    """A file of tensors and what is in it."""
    state = {"weights": torch.arange(2000.0), "step": 3}
    save_tensors(tmp_path / "a.pt", state)
    return tmp_path / "a.pt", state


def read(path):
    return load_tensors(path, "a checkpoint", "use another one")


def test_tensors_are_read_as_they_were_written(tensors):
    path, state = tensors
    found = read(path)
    assert found["step"] == 3 and torch.equal(found["weights"], state["weights"])


def test_a_flipped_bit_is_an_error_or_changes_nothing(tensors):
    path, state = tensors
    whole, draw = path.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            found = read(path)
        except UserError as error:
            assert str(path) in str(error) and "use another one" in str(error)
            refused += 1
        else:
            assert torch.equal(found["weights"], state["weights"]) and found["step"] == 3
    assert refused > 100


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: bytes(len(b)), lambda b: b"text\n" * 99],
)
def test_a_damaged_file_is_named(tensors, damage):
    path, _ = tensors
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path.name} is not a checkpoint, or damaged"):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.pt"):
        read(tmp_path / "none.pt")


def test_a_compressed_file_of_tensors_is_refused_before_it_is_unpacked(tensors, tmp_path):
    path, _ = tensors
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    with pytest.raises(UserError, match="compressed"):
        read(tmp_path / "b.pt")


def test_arrays_that_unpack_to_gigabytes_are_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(EXPANSION_FREE_BYTES + 1, np.uint8))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="unpacked it would have"):
        load_arrays(path, "a language model", "make it again")


def test_arrays_with_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(UserError, match="objects.npz"):
        load_arrays(path, "a language model", "make it again")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    with pytest.raises(UserError, match="second has values that are not finite"):
        require_finite({"first": torch.ones(2), "second": torch.tensor([1.0, value])}, tmp_path / "x.pt", "retrain")


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(1 << 40), torch.zeros(4, 4).to_sparse(), torch.zeros(3, device="meta")],
    ids=["repeated", "sparse", "without data"],
)
def test_a_tensor_with_more_elements_than_its_file_is_refused(tmp_path, tensor):
    save_tensors(tmp_path / "a.pt", {"state": [{"weights": tensor}]})
    with pytest.raises(UserError, match="a.pt is not a checkpoint, or damaged .it has a tensor"):
        read(tmp_path / "a.pt")


def test_a_view_of_a_tensor_is_read(tmp_path):
    save_tensors(tmp_path / "a.pt", {"weights": torch.arange(10.0)[2:7:2], "turned": torch.zeros(2, 3).T})
    assert read(tmp_path / "a.pt")["weights"].tolist() == [2, 4, 6]
