"""Configuration files: bases, overrides, errors in one line, and what is written."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.config import Config
from asrtool.config_data import SpecAugmentConfig
from asrtool.config_file import differences, load_config, save_config
from asrtool.errors import UserError
from asrtool.yaml_reader import dump_yaml, parse_yaml
from tests.config_errors import error_of, write

__all__ = ["write"]


def test_keys_that_are_not_in_the_file_have_their_defaults(write):
    config = load_config(write("training: {lr: 0.5}"))
    assert config.training.lr == 0.5
    assert config.model_copy(update={"training": Config().training}) == Config()


def test_an_empty_file_is_all_defaults(write):
    assert load_config(write("")) == Config()
    assert load_config(write("# nothing but a comment\n")) == Config()


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("training: {warmup_step: 5}", "training.warmup_step", "did you mean 'warmup_steps'?"),
        ("trainig: {lr: 1}", "trainig", "did you mean 'training'?"),
        ("data: {augment: {speed: [1.0]}}", "data.augment.speed", "did you mean 'speeds'?"),
        (
            "data: {augment: {spec_augment: {time_mask: 1}}}",
            "data.augment.spec_augment.time_mask",
            "did you mean 'time_masks'?",
        ),
        ("features: {zzz: 1}", "features.zzz", "valid are: num_bins, sampling_rate, source"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(write, text, key, hint):
    path = write(text)
    message = error_of(path)
    assert str(path) in message
    assert f"unknown key '{key}'" in message
    assert hint in message


def test_an_unknown_key_in_an_override_is_refused_alike(write):
    assert "did you mean 'layers'?" in error_of(write(""), "model.layer=3")
    assert "unknown key 'model.'" in error_of(write(""), "model.=3")


def test_all_errors_are_listed_in_one_line(write):
    message = error_of(write("{training: {lr: -1, clipp: 2}, model: {dim: many}}"))
    assert all(name in message for name in ("training.lr", "training.clipp", "model.dim"))


def test_overrides_are_yaml_values(write):
    overrides = [
        "training.lr=1e-3",
        "training.max_steps=700",
        "data.train=my data/train.jsonl.gz",
        "data.augment.speeds=[0.9, 1.1]",
        "data.augment.spec_augment={time_warp: 0}",
        "training.patience=null",
    ]
    config = load_config(write("training: {patience: 3, max_grad_norm: 2.0}"), overrides)
    assert config.training.lr == 0.001
    assert isinstance(config.training.lr, float)
    assert config.training.max_steps == 700
    assert config.training.patience is None
    assert config.training.max_grad_norm == 2.0  # next to an overridden key, untouched
    assert config.data.train == Path("my data/train.jsonl.gz")
    assert config.data.augment.speeds == (0.9, 1.1)
    assert config.data.augment.spec_augment.time_warp == 0


def test_the_last_override_wins(write):
    assert load_config(write("seed: 1"), ["seed=2", "seed=3"]).seed == 3


@pytest.mark.parametrize("override", ["training.lr", "=3", "training.lr=[1", ""])
def test_a_malformed_override_is_refused(write, override):
    assert override in error_of(write(""), override)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("seed: 1\nseed: 2", "the key 'seed' a second time in line 2"),
        ("model: {dim: 8, dim: 16}", "the key 'dim' a second time"),
        ("seed: !!int 3", "the tag"),
        ("seed: !!python/object/apply:os.system [true]", "the tag"),
        ("[" * 5000, "nested more than 20 deep"),
        ("a: " * 5000, "not YAML"),
        ("a: &a [*a]", "alias that contains itself"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
        ("seed: " + "9" * 5000, "an integer of 5000 digits"),
        ("# " + "x" * 300_000, "more than 256 kB"),
        ("? [a]\n: b", "a key that is not text"),
        ("seed: 1\n---\nseed: 2", "single document"),
    ],
)
def test_ambiguous_or_oversized_yaml_is_refused(write, text, what):
    message = error_of(write(text))
    assert what in message and len(message) < 500


def test_aliases_that_multiply_are_refused(write):
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join(9 * [f'*x{n - 1}'])}]" for n in range(1, 9)]
    assert "more than 20000 values" in error_of(write("\n".join(lines)))


def test_an_alias_is_a_copy(write):
    path = write("model: {convolution: &it {kernel: 5}}\nobjective: {}\ntraining: {betas: &b [0.5, 0.5]}")
    assert load_config(path).model.convolution.kernel == 5
    tree = parse_yaml("a: &it {kernel: 5}\nb: *it\nc: {<<: *it, d: 1}")
    assert tree == {"a": {"kernel": 5}, "b": {"kernel": 5}, "c": {"kernel": 5, "d": 1}}
    assert tree["a"] is not tree["b"]


@pytest.mark.parametrize(
    "text", ["1e-3", "1:30", "010", "yes", "on", "1.5", "-3", "null", "~", "=", "<<", ".nan", "2001-01-01"]
)
def test_text_that_looks_like_another_type_is_quoted_in_yaml(text):
    assert parse_yaml(dump_yaml({"k": text})) == yaml.safe_load(dump_yaml({"k": text})) == {"k": text}


def test_errors_beyond_the_first_ten_are_counted(write):
    message = error_of(write("\n".join(f"k{number}: 1" for number in range(2000))))
    assert "unknown key 'k9'" in message and message.endswith("and 1990 more") and len(message) < 2000


@pytest.mark.parametrize("base", ["5", "true", "[[x]]", "{a: b}", "[null]", "''"])
def test_a_base_that_is_not_a_file_name_is_refused(write, base):
    assert "base = " in error_of(write(f"base: {base}"))


def test_a_base_of_many_files_is_read_once(tmp_path, monkeypatch):
    """2^24 readings else."""
    for number in range(24):
        (tmp_path / f"b{number}.yaml").write_text(f"base: [b{number + 1}.yaml, b{number + 1}.yaml]")
    (tmp_path / "b24.yaml").write_text("seed: 7")
    assert load_config(tmp_path / "b0.yaml").seed == 7
    monkeypatch.setattr("asrtool.config_file.MAX_FILES", 20)
    assert "more than 20 files" in error_of(tmp_path / "b0.yaml")


def test_an_override_does_not_change_the_base_file(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {convolution: {kernel: 5}}")
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    assert load_config(tmp_path / "b.yaml", ["model.convolution.kernel=7"]).model.convolution.kernel == 7
    assert load_config(tmp_path / "b.yaml").model.convolution.kernel == 5


@pytest.mark.parametrize("text", ["training: [", "a: b: c", "\tx: 1"])
def test_a_file_that_is_not_yaml_is_refused(write, text):
    path = write(text)
    assert f"{path}: not YAML" in error_of(path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not YAML" in error_of(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["1: 2", "model: {on: 3}"])
def test_a_key_that_is_not_a_word_is_refused(write, text):
    assert "key" in error_of(write(text)).lower()


@pytest.mark.parametrize("text", ["- 1\n- 2", "just words", "[]", "false", "0"])
def test_a_file_without_keys_is_refused(write, text):
    assert "expected keys and values" in error_of(write(text))


def test_a_missing_file_is_refused(tmp_path):
    assert f"not found: {tmp_path / 'none.yaml'}" in error_of(tmp_path / "none.yaml")
    assert "not found" in error_of(tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**63 - 1),
            "training": st.fixed_dictionaries(
                {
                    "lr": st.floats(0, exclude_min=True, allow_infinity=False),
                    "patience": st.none() | st.integers(1, 9),
                }
            ),
            "data": st.fixed_dictionaries(
                {
                    "train": st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1),
                    "augment": st.fixed_dictionaries(
                        {
                            "volume": st.none() | st.just([0.1, 3.0]),
                            "spec_augment": st.none() | st.fixed_dictionaries({"time_warp": st.integers(0, 99)}),
                        }
                    ),
                }
            ),
        }
    )
)
def test_a_saved_configuration_loads_as_the_same(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "saved.yaml"
    config = Config.model_validate(tree)
    save_config(config, path)
    assert load_config(path) == config


def test_a_saved_configuration_contains_the_defaults(tmp_path):
    """Decoding reads nothing else, also after a default has changed."""
    config = Config.model_validate({"data": {"augment": {"spec_augment": {}}}})
    save_config(config, tmp_path / "c.yaml")
    written = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert written == config.model_dump(mode="json")
    assert written["data"]["augment"]["spec_augment"]["time_masks"] == SpecAugmentConfig().time_masks


def test_differences_name_the_keys_and_both_values():
    old = Config.model_validate({"training": {"lr": 0.001}, "data": {"augment": {"spec_augment": {"time_masks": 2}}}})
    new = Config.model_validate({"training": {"lr": 0.002}, "data": {"augment": {"spec_augment": {"time_masks": 3}}}})
    assert differences(old, old) == []
    assert sorted(differences(old, new)) == [
        "data.augment.spec_augment.time_masks: 2 -> 3",
        "training.lr: 0.001 -> 0.002",
    ]


def test_differences_include_a_section_that_is_switched_on_or_off():
    on, off = Config.model_validate({"data": {"augment": {"spec_augment": {}}}}), Config()
    assert any("data.augment.spec_augment.time_masks: None -> 10" in line for line in differences(off, on))
    assert any("data.augment.spec_augment.time_masks: 10 -> None" in line for line in differences(on, off))


def test_a_file_overrides_its_bases_and_a_later_base_the_earlier_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.yaml").write_text("model: {layers: 2, dim: 64}\nseed: 5", encoding="utf-8")
    (tmp_path / "two.yaml").write_text("base: sub/one.yaml\nmodel: {dim: 128}", encoding="utf-8")
    (tmp_path / "three.yaml").write_text("model: {heads: 8}", encoding="utf-8")
    top = tmp_path / "top.yaml"
    top.write_text("base: [two.yaml, three.yaml]\nmodel: {ff_dim: 7}", encoding="utf-8")
    config = load_config(top, ["model.layers=3"])
    assert (config.model.layers, config.model.dim, config.model.heads, config.model.ff_dim) == (3, 128, 8, 7)
    assert config.seed == 5


def test_a_missing_or_circular_base_is_refused_by_name(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("base: two.yaml", encoding="utf-8")
    with pytest.raises(UserError, match=r"two\.yaml"):
        load_config(one)
    two.write_text("base: one.yaml", encoding="utf-8")
    with pytest.raises(UserError, match="its own base: one.yaml -> two.yaml -> one.yaml"):
        load_config(one)


@pytest.mark.parametrize("base", ['"a\\0b"', "x" * 5000, "/dev/zero", "."])
def test_a_base_that_is_not_a_file_is_named(tmp_path, base):
    (tmp_path / "c.yaml").write_text(f"base: {base}\n", encoding="utf-8")
    with pytest.raises(UserError, match="configuration not found"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("base: /proc/self/mem\n")
    with pytest.raises(UserError, match="/proc/self/mem"):
        load_config(tmp_path / "a.yaml")
