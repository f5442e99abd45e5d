"""Packs from strangers: what is damaged or hostile is named in one line, and nothing outside the pack is read."""

import json
import os
import shutil

import pytest
import torch

from asrtool.config_file import load_config
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.pack_manifest import is_pack, open_pack, read_manifest
from asrtool.weight_files import load_safetensors, save_safetensors
from tests.pack_files import change_manifest, make_pack, relist
from tests.tiny import make_experiment

FILES = (
    *("config.yaml", "tokenizer.json", "model.safetensors", "priors.json", "decoding_weights.json"),
    *("graph/graph.json", "graph/words.txt", "graph/units.txt"),
)
LARGE_FILES = ("lm/graph.npz", "lm/rescore.arpa", "lm/prefix.arpa", "graph/HLG.fst")  # compared when they are used


@pytest.fixture(scope="module")
def whole(tiny_config, tokenizer_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    experiment = make_experiment(folder / "exp", tiny_config(), tokenizer_file)
    return make_pack(folder / "pack", experiment, tokenizer_file)


@pytest.fixture
def pack(whole, tmp_path):
    """A copy, which a test may damage."""
    return shutil.copytree(whole, tmp_path / "pack")


def error_of(pack):
    """The line that opening the pack prints."""
    with pytest.raises(UserError) as caught:
        open_experiment(pack, device="cpu")
    line = str(caught.value)
    assert caught.value.exit_status == 2 and "\n" not in line and len(line) < 1600 and str(pack) in line
    return line


def test_every_file_but_the_manifest_and_the_card_is_listed(whole):
    names = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert names == {*FILES, *LARGE_FILES, "model.json", "README.md"}
    assert read_manifest(whole).hashes.keys() == {*FILES, *LARGE_FILES}
    assert is_pack(whole) and not is_pack(whole.parent / "exp")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "short", "long", "empty", "flipped", "folder"])
def test_a_damaged_file_is_named(pack, name, damage):
    path = pack / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    if damage in ("short", "long", "empty", "flipped"):
        path.write_bytes({"short": content[:-1], "long": content + b"\n", "empty": b""}.get(damage, bytes(content)))
    assert str(path) in error_of(pack)


@pytest.mark.parametrize("name", LARGE_FILES)
def test_large_files_are_compared_on_request(pack, name):
    path = pack / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    open_pack(pack)
    with pytest.raises(UserError, match=name):
        open_pack(pack, large_files=True)


def test_files_that_were_swapped_are_named(pack):
    (pack / "config.yaml").rename(pack / "x")
    (pack / "tokenizer.json").rename(pack / "config.yaml")
    (pack / "x").rename(pack / "tokenizer.json")
    assert "config.yaml" in error_of(pack)


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "/etc/passwd", "graph/../../secret", "..", ".", "", "a/b/c", "graph//x", "graph/", "/", "~/x"),
        *("graph\\..\\x", "x\0y", "x\ny", ".hidden", "graph/.lock", "model.json", "README.md", "x" * 500),
    ],
)
def test_names_outside_of_the_pack_are_refused(pack, name):
    (pack.parent / "secret").write_text("not yours", encoding="utf-8")
    entry = {"bytes": 9, "sha256": "0" * 64}
    change_manifest(pack, lambda content: content["hashes"].update({name: entry}))
    assert "model.json: hashes" in error_of(pack)


@pytest.mark.parametrize("key", ["graph", "graph_lm", "rescore", "lm", "priors", "decoding_weights", "calibration"])
@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "config.yml", ""])
def test_what_is_carried_must_be_listed(pack, key, place):
    change_manifest(pack, lambda content: content["carried"].update({key: place}))
    assert f"carried.{key}" in error_of(pack)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "graph", "lm", "priors.json", "model.json"])
def test_symbolic_links_are_refused(pack, name):
    outside = pack.parent / "outside"
    (pack / name).rename(outside)
    (pack / name).symlink_to(outside)
    assert "not a regular file inside the pack" in error_of(pack)


def test_a_pipe_is_refused_without_waiting_for_it(pack):
    (pack / "priors.json").unlink()
    os.mkfifo(pack / "priors.json")
    assert "not a regular file" in error_of(pack)


@pytest.mark.parametrize("name", ["calibration.json", "unit_ngram.json", "graph/G.fst", "graph/lexicon.txt"])
def test_a_file_that_commands_would_read_must_be_listed(pack, name):
    (pack / name).write_text("[]", encoding="utf-8")
    assert f"{pack / name} is not listed" in error_of(pack)


def test_other_files_are_left_alone(pack):
    for name in ("README.md", "decode/test/greedy/hyps.jsonl", "notes.txt"):
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        (pack / name).write_text("mine", encoding="utf-8")
    assert open_experiment(pack, device="cpu").folder == pack


def test_every_field_is_needed_and_no_other_is_taken(pack):
    content = json.loads((pack / "model.json").read_text(encoding="utf-8"))
    for key in content:
        (pack / "model.json").write_text(json.dumps({k: v for k, v in content.items() if k != key}), encoding="utf-8")
        assert key in error_of(pack)
    for section in (None, "features", "units", "training", "carried", "options"):
        changed = json.loads(json.dumps(content))
        (changed[section] if section else changed)["surprise"] = 1
        (pack / "model.json").write_text(json.dumps(changed), encoding="utf-8")
        assert "surprise" in error_of(pack)


@pytest.mark.parametrize(
    "path, value",
    [
        ("format", "sausage"),
        ("format_version", 0),
        ("format_version", "1"),
        ("format_version", True),
        ("name", ["x"]),
        ("name", "x" * 1000),
        ("name", "\x1b[31mred"),
        ("name", "two\nlines"),
        ("training.data", "\x1b]0;title\x07"),
        ("training.checkpoint", "best\x9b31m.pt"),
        ("units.type", "bpe\r"),
        ("parameters", -1),
        ("parameters", 1.5),
        ("parameters", 10**200),
        ("features.sampling_rate", 0),
        ("features.sampling_rate", "16000"),
        ("features.num_bins", 10**9),
        ("features.output_frame_seconds", 0),
        ("units.count", 1),
        ("latency", {"chunk": -1, "right": 0}),
        ("latency", 5),
        ("training.starts", {}),
        ("training.longest_seconds", None),
        ("results", [{"command": "rm", "set": "x", "method": "y", "facts": {}, "score": {}}]),
        ("results", {}),
        ("default_method", "magic"),
        ("options", {"graph": {"beam": -1.0}}),
        ("options", {"graph": {"beam": "wide"}}),
        ("options", {"greedy": {}}),
        ("options", {"graph": {"graph": "/etc"}}),
        ("hashes", []),
        ("hashes", {}),
        ("hashes", {"config.yaml": "0" * 64}),
        ("files", None),
    ],
)
def test_a_value_of_another_kind_is_named(pack, path, value):
    def change(content):
        *sections, key = path.split(".")
        for section in sections:
            content = content[section]
        content[key] = value

    change_manifest(pack, change)
    assert path.split(".")[0] in error_of(pack)


@pytest.mark.parametrize(
    "entry", [{"bytes": -1}, {"bytes": 10**15}, {"bytes": "1"}, {"sha256": "A" * 64}, {"sha256": 1}]
)
def test_sizes_and_hashes_are_checked(pack, entry):
    change_manifest(pack, lambda content: content["hashes"]["config.yaml"].update(entry))
    assert "hashes.config.yaml" in error_of(pack)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", '{"a": 1, "a": 2}', '{"parameters": NaN}', "[" * 100_000, "\udcff", '{"a": 1e999}']
)
def test_a_manifest_that_is_not_one_is_named(pack, text):
    (pack / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "model.json" in error_of(pack)


def test_a_pack_of_a_newer_asrtool_says_so(pack):
    change_manifest(pack, lambda content: content.update(format_version=2, new_field=1))
    assert "update asrtool" in error_of(pack)


def test_a_default_method_needs_its_files(pack):
    change_manifest(pack, lambda content: content["carried"].update(graph=None))
    assert "default_method is graph" in error_of(pack)


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("features", "sampling_rate", 8000),
        ("features", "num_bins", 80),
        ("units", "count", 7),
        ("units", "output_type", "phones"),
    ],
)
def test_facts_that_contradict_the_files_are_named(pack, section, key, value):
    change_manifest(pack, lambda content: content[section].update({key: value}))
    assert f"{section}.{key} is {value}" in error_of(pack)


def test_a_configuration_has_no_base_outside(pack):
    config = pack / "config.yaml"
    (pack.parent / "base.yaml").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
    config.write_text('{"base": "../base.yaml"}', encoding="utf-8")
    load_config(config)  # valid elsewhere
    relist(pack, "config.yaml")
    assert "has a base" in error_of(pack)


def rewrite_weights(pack, change):
    path = pack / "model.safetensors"
    state = load_safetensors(path, "weights", "none")
    weights = state.pop("model")
    change(weights, state)
    save_safetensors(path, weights, state)
    relist(pack, path.name)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda weights, state: weights["output.weight"].fill_(float("nan")), "not finite"),
        (lambda weights, state: weights["output.bias"][0].fill_(float("inf")), "not finite"),
        (lambda weights, state: weights.pop("output.bias"), "output.bias"),
        (lambda weights, state: weights.update(extra=torch.zeros(1)), "extra"),
        (lambda weights, state: weights.update({"output.bias": torch.zeros(9)}), "output.bias"),
        (lambda weights, state: weights.update({"output.bias": torch.zeros(5).to(torch.float8_e5m2)}), "float8"),
        (lambda weights, state: weights.update({"output.bias": torch.zeros(5) * 1j}), "complex"),
        (lambda weights, state: state["units"].__setitem__(1, "five"), "other units"),
        (lambda weights, state: state.update(units=[1, 2]), "units are not text"),
        (lambda weights, state: state.pop("config"), "not a checkpoint"),
    ],
)  # fmt: skip
def test_weights_of_another_kind_are_named(pack, change, expected):
    rewrite_weights(pack, change)
    line = error_of(pack)
    assert expected in line and "model.safetensors" in line


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, (10**12).to_bytes(8, "little") + b"{}", b"PK\3\4" + b"\0" * 99])
def test_weights_in_another_format_are_named(pack, content):
    (pack / "model.safetensors").write_bytes(content)
    relist(pack, "model.safetensors")
    assert "model.safetensors" in error_of(pack)
