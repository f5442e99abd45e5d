from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.config import Config, SpecAugmentConfig
from asrtool.config_file import differences, load_config, save_config
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.yaml_reader import dump_yaml, parse_yaml

RECIPE_CONFIGS = sorted(
    path for pattern in ("*.yaml", "small/*.yaml") for path in Path(__file__).parents[1].glob(f"egs/*/conf/{pattern}")
)


@pytest.fixture
def write(tmp_path):
    """Puts text into a YAML file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def error_of(path, *overrides) -> str:
    """Returns the error line of loading a configuration; it names the file."""
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)


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
    ("override", "name"),
    [
        ("training.max_steps=many", "training.max_steps"),
        ("training.max_steps=1.5", "training.max_steps"),
        ("training.max_steps=0", "training.max_steps"),
        ("training.lr=fast", "training.lr"),
        ("training.lr=0", "training.lr"),
        ("training.lr=.nan", "training.lr"),
        ("training.schedule=cubic", "training.schedule"),
        ("model.dropout=1.0", "model.dropout"),
        ("model.dim=null", "model.dim"),
        ("model=3", "model"),
        ("data.augment.speeds=0.9", "data.augment.speeds"),
        ("data.augment.speeds=[0.1]", "data.augment.speeds"),
        ("data.augment.volume=[1.0]", "data.augment.volume"),
        ("data.workers=-1", "data.workers"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_name(write, override, name):
    assert f"{name} = " in error_of(write(""), override)


STRICT = [  # text, bools, floats and numbers that are not finite, instead of numbers; absurd sizes
    *(
        "seed=true",
        "seed=1:30",
        "seed=010",
        "seed=0x1F",
        "seed='3'",
        "seed=3.0",
        "seed=-1",
        "seed=100000000000000000000",
    ),
    *(
        "model.layers=true",
        "model.heads=1e3",
        "model.dropout=false",
        "model.left_context=true",
        "model.left_context=[true]",
    ),
    *("model.subsampling.causal=yes", "model.subsampling.causal=1", "model.activation_checkpointing=on"),
    *("training.lr=.inf", "training.lr=1e999", "training.lr='1e-3'", "training.lr=1:30", "training.weight_decay=.inf"),
    *("training.max_grad_norm=.nan", "training.betas=[true, 0.9]", "parallel.timeout=.inf", "parallel.block_lr=.inf"),
    *(
        "objective.ctc_weight=.inf",
        "objective.ce_weight=.nan",
        "model.init.exponent=.inf",
        "guards.loss_spike_std=.inf",
        "training.ema_decay=true",
    ),
    *("data.batch_seconds=.inf", "data.max_seconds=.nan", "data.augment.noise_snr=[.nan, .nan]"),
    *("data.augment.noise_snr=[0, 1e6]", "data.augment.volume=[.inf, .inf]", "data.augment.speeds=[]"),
    *("model.ff_dim=20000000", "model.layers=1000000000", "model.dim=2000000", "model.heads=100000"),
    *("model.subsampling.channels=10000000", "model.subsampling.factor=1024", "model.convolution.kernel=100001"),
    *("model.dropout=0.99999999", "model.ff_dropout=0.99", "model.attention_dropout=0.99"),
    *("model.chunk_size=100000", "model.memory=100000", "model.look_ahead=100000"),
    *("data.augment.spec_augment.time_masks=1000000", "data.augment.spec_augment.frequency_masks=1000000"),
    *("objective.ngram_order=1000", "data.workers=100000", "training.max_steps=10000000000", "features.num_bins=1"),
    *("features.num_bins=100000", "features.sampling_rate=1", "features.sampling_rate=100000000000000000000"),
    *('data.train="a\\0b"', 'data.dev="a\\nb"', "data.tokenizer=3", "data.train=[a]", "data.train=null"),
]


@pytest.mark.parametrize("override", STRICT)
def test_types_are_strict_numbers_finite_and_sizes_bounded(write, override):
    message = error_of(write(""), override)
    assert f"{override.partition('=')[0]} = " in message and len(message) < 300


@pytest.mark.parametrize("name", ["volume", "noise_snr"])
def test_a_range_has_its_lower_end_first(write, name):
    assert f"data.augment: {name} is a range" in error_of(write(""), f"data.augment.{name}=[25, 10]")


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


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("model: {dim: 100, heads: 3}", ["model: ", "dim 100", "heads 3"]),
        ("{features: {source: stored}, data: {augment: {speeds: [0.9, 1.0]}}}", ["stored", "speeds"]),
        ("{features: {source: stored}, data: {augment: {volume: [0.5, 2.0]}}}", ["stored", "volume"]),
        ("{features: {source: stored}, data: {augment: {noise: n.jsonl.gz}}}", ["stored", "noise"]),
        ("data: {min_seconds: 3, max_seconds: 3}", ["min_seconds", "max_seconds"]),
        ("training: {warmup_steps: 100, max_steps: 100}", ["warmup_steps", "max_steps"]),
    ],
)
def test_an_impossible_combination_is_refused_with_its_reason(write, text, reasons):
    message = error_of(write(text))
    assert all(reason in message for reason in reasons)


MODEL_REFUSALS = [  # model, what is message
    ("dim: 90, heads: 4", "model: dim 90 must be even and a multiple of heads 4"),
    ("dim: 15, heads: 3", "model: dim 15 must be even and a multiple of heads 3"),
    ("architecture: blstm, dim: 15", "model: dim 15 must be even: half of it for each direction"),
    (
        "architecture: blstm, convolution: {kind: interleaved}",
        "model: convolution and init are for Transformers, not for blstm",
    ),
    (
        "architecture: lc_blstm, chunk_size: 2, look_ahead: 1, init: {scheme: depth_scaled}",
        "model: convolution and init are for Transformers, not for lc_blstm",
    ),
    ("architecture: blstm, mask: sliding", "model: mask sliding is for architecture transformer, not blstm"),
    (
        "architecture: lc_blstm, mask: chunk, chunk_size: 2, memory: 2, look_ahead: 1",
        "model: mask chunk is for architecture transformer, not lc_blstm",
    ),
    (
        "architecture: transformer_xl, mask: chunk, chunk_size: 2, memory: 2",
        "model: mask chunk is for architecture transformer, not transformer_xl",
    ),
    (
        "architecture: transformer_xl, memory: 2",
        "model: transformer_xl with mask full needs chunk_size: it is for lc_blstm, transformer_xl and",
    ),
    (
        "architecture: transformer_xl, chunk_size: 2",
        "model: transformer_xl with mask full needs memory: it is for transformer_xl and transformer with mask chunk",
    ),
    (
        "mask: chunk, memory: 2",
        "model: transformer with mask chunk needs chunk_size: it is for lc_blstm, transformer_xl and",
    ),
    ("mask: chunk, chunk_size: 2", "model: transformer with mask chunk needs memory: it is for transformer_xl and"),
    ("architecture: lc_blstm, look_ahead: 2", "model: lc_blstm with mask full needs chunk_size: it is for lc_blstm,"),
    ("architecture: lc_blstm, chunk_size: 2", "model: lc_blstm with mask full needs look_ahead: it is for lc_blstm"),
    ("chunk_size: 2", "model: transformer with mask full has no chunk_size: it is for lc_blstm,"),
    ("memory: 0", "model: transformer with mask full has no memory: it is for transformer_xl and"),
    ("look_ahead: 0", "model: transformer with mask full has no look_ahead: it is for lc_blstm"),
    (
        "mask: sliding, left_context: 2, right_context: 1, chunk_size: 2",
        "model: transformer with mask sliding has no chunk_size: it is for",
    ),
    ("architecture: blstm, chunk_size: 2", "model: blstm with mask full has no chunk_size: it is for lc_blstm,"),
    (
        "architecture: lc_blstm, chunk_size: 2, look_ahead: 1, memory: 3",
        "model: lc_blstm with mask full has no memory: it is for transformer_xl and",
    ),
    (
        "architecture: transformer_xl, chunk_size: 2, memory: 3, look_ahead: 1",
        "model: transformer_xl with mask full has no look_ahead: it is for lc_blstm",
    ),
    ("left_context: 2", "model: left_context and right_context are for mask sliding"),
    (
        "mask: chunk, chunk_size: 2, memory: 2, right_context: 0",
        "model: left_context and right_context are for mask sliding",
    ),
    ("mask: sliding, left_context: [1, 2, 3], layers: 2", "model: 3 numbers of frames for 2 layers"),
    ("mask: sliding, left_context: 2, right_context: [1], layers: 2", "model: 1 numbers of frames for 2 layers"),
    (
        "convolution: {kernel: 4}",
        "model.convolution: a symmetric convolution needs an odd kernel, not 4; or causal: true",
    ),
    ("convolution: {kernel: 1}", "model.convolution.kernel = 1: "),
    (
        "subsampling: {kind: vgg, factor: 3}",
        "model.subsampling: factor 3 of vgg must be 2, 4 or 8; any factor needs kind stack",
    ),
    ("subsampling: {factor: 1}", "model.subsampling: factor 1 of conv must be 2, 4 or 8"),
    ("subsampling: {kind: wide}", "model.subsampling.kind = 'wide': "),
    ("init: {alpha: 0}", "model.init.alpha = 0: "),
    ("init: {alpha: 1.5}", "model.init.alpha = 1.5: "),
    ("init: {exponent: -1}", "model.init.exponent = -1: "),
    ("layer_drop: 1.0", "model.layer_drop = 1.0: "),
    ("mask: sliding, left_context: -1", "= -1: input should be greater than or equal to 0"),
    ("architecture: lc_blstm, chunk_size: 0, look_ahead: 1", "model.chunk_size = 0: "),
    ("architecture: rnn", "model.architecture = 'rnn': "),
]


@pytest.mark.parametrize(("model", "message"), MODEL_REFUSALS)
def test_a_model_that_cannot_be_is_refused_with_its_reason(write, model, message):
    assert message in error_of(write(f"model: {{{model}}}"))


@pytest.mark.parametrize(
    "model",
    [
        "dim: 15, heads: 3, positional_encoding: relative",  # only sinusoids come in pairs
        "architecture: blstm, dim: 90",  # no heads
        "architecture: transformer_xl, chunk_size: 1, memory: 0",
        "architecture: lc_blstm, chunk_size: 1, look_ahead: 0",
        "mask: chunk, chunk_size: 1, memory: 0",
        "mask: sliding",
        "mask: sliding, left_context: 0, right_context: 0",
        "mask: sliding, left_context: null, right_context: [1, 2], layers: 2",
        "convolution: {kernel: 4, causal: true}",
        "subsampling: {kind: stack, factor: 3}",
        "subsampling: {kind: stack, factor: 1}",
        "subsampling: {kind: vgg, factor: 8}",
    ],
)
def test_models_at_the_limits_of_the_configuration_can_be_built(write, model):
    AcousticModel(load_config(write(f"model: {{{model}}}"), ["model.ff_dim=8", "model.subsampling.channels=2"]), 3)


def test_context_of_each_layer():
    model = Config.model_validate(
        {"model": {"layers": 3, "mask": "sliding", "left_context": 4, "right_context": [0, 1, 2]}}
    ).model
    assert model.per_layer(model.left_context) == [4, 4, 4]
    assert model.per_layer(model.right_context) == [0, 1, 2]
    assert model.per_layer(None) == [None, None, None]


@pytest.mark.parametrize(
    "text",
    [
        "{features: {source: stored}, data: {augment: {spec_augment: {}}}}",  # changes the features alone
        "training: {warmup_steps: 99, max_steps: 100}",
        "training: {warmup_steps: 100, max_steps: 100, schedule: none}",
    ],
)
def test_unusual_but_possible_combinations_are_accepted(write, text):
    load_config(write(text))


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


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().training.lr = 1.0


@pytest.mark.parametrize("path", RECIPE_CONFIGS, ids=lambda path: "/".join(path.parts[-3::2]))
def test_the_configurations_of_the_recipes_load(path):
    load_config(path)


def test_there_are_recipes_with_configurations():
    assert RECIPE_CONFIGS


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
