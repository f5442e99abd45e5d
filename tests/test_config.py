"""The sections of a configuration: types, limits, impossible combinations, and a comment for every key."""

import inspect
from pathlib import Path

import pytest

from asrtool import config, config_data
from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.models.acoustic import AcousticModel
from tests.config_errors import error_of, write

__all__ = ["write"]

RECIPE_CONFIGS = sorted(
    path for pattern in ("*.yaml", "small/*.yaml") for path in Path(__file__).parents[1].glob(f"egs/*/conf/{pattern}")
)


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
    *('data.train="a\\0b"', 'data.dev="a\\nb"', "data.tokenizer=3", "data.train={a: b}", "data.train=null"),
]


@pytest.mark.parametrize("override", STRICT)
def test_types_are_strict_numbers_finite_and_sizes_bounded(write, override):
    message = error_of(write(""), override)
    assert f"{override.partition('=')[0]} = " in message and len(message) < 300


@pytest.mark.parametrize("name", ["volume", "noise_snr"])
def test_a_range_has_its_lower_end_first(write, name):
    assert f"data.augment: {name} is a range" in error_of(write(""), f"data.augment.{name}=[25, 10]")


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("model: {dim: 100, heads: 3}", ["model: ", "dim 100", "heads 3"]),
        ("{features: {source: stored}, data: {augment: {speeds: [0.9, 1.0]}}}", ["stored", "speeds"]),
        ("{features: {source: stored}, data: {augment: {volume: [0.5, 2.0]}}}", ["stored", "volume"]),
        ("{features: {source: stored}, data: {augment: {noise: n.jsonl.gz}}}", ["stored", "noise"]),
        ("data: {min_seconds: 3, max_seconds: 3}", ["min_seconds", "max_seconds"]),
        ("data: {speaker_transforms: t.pt, augment: {speeds: [0.9]}}", ["leave augment.speeds out", "--speeds"]),
        (
            "training: {warmup_steps: 100, max_steps: 100}",
            ["warmup_steps 100", "max_steps 100", "--set training.warmup_steps=10"],
        ),
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
        "model.subsampling: factor 3 of vgg must be a power of two, 2 or more; other factors need kind stack",
    ),
    ("subsampling: {factor: 1}", "model.subsampling: factor 1 of conv must be a product of twos and threes, 2 or more"),
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
def test_an_impossible_model_is_refused_with_its_reason(write, model, message):
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
    config = load_config(write(f"model: {{{model}}}"), ["model.ff_dim=8", "model.subsampling.channels=2"])
    AcousticModel(config.model, config.features.num_bins, 3)


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


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().training.lr = 1.0


@pytest.mark.parametrize("path", RECIPE_CONFIGS, ids=lambda path: "/".join(path.parts[-3::2]))
def test_the_configurations_of_the_recipes_load(path):
    load_config(path)


def test_there_are_recipes_with_configurations():
    assert RECIPE_CONFIGS


NAMES = vars(config_data) | vars(config)
SECTIONS = [value for value in NAMES.values() if isinstance(value, type) and issubclass(value, config.Section)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_has_a_comment_directly_above_it(section):
    """The reference of the configuration in the documentation is generated from these comments."""
    lines = inspect.getsource(section).splitlines()
    for key in section.model_fields:
        line = next(number for number, text in enumerate(lines) if text.startswith(f"    {key}: "))
        comment = lines[line - 1]
        assert comment.startswith("    # ") and "  # " not in lines[line], key
        assert not comment.endswith("."), f"{key}: a comment is a phrase; sentences in it are separated by full stops"
