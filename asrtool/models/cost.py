"""The share of attention in the cost of a model, by which training balances its batches.

`asrtool.models.info` counts the same operations by running the model, which takes seconds; these formulas take none,
and a test compares both.
"""

import math

from asrtool.config import Config, ModelConfig, SubsamplingConfig
from asrtool.models.subsampling import halve

FRAME_SECONDS = 0.01  # of a feature frame
KERNEL = 9  # weights of a 3x3 convolution


def attention_seconds(config: Config, num_outputs: int) -> float:
    """Returns the seconds of audio at which attention costs as much as all the rest of a model of `num_outputs`.

    All operations count alike: attention and all the rest have operations that are bound by memory. In steps of
    encoders of width 192 and 512 on one thread of a CPU, attention cost 0.6 to 1.1 times what this says.

    Infinite where the cost of attention grows linearly with the length: with chunks, with a window that is bounded on
    both sides, and in LSTMs.
    """
    model = config.model
    per_key = attention_flops_per_key(model)
    if not per_key:
        return math.inf
    return linear_flops(config, num_outputs) / per_key * FRAME_SECONDS * model.subsampling.factor


def attention_flops_per_key(model: ModelConfig) -> float:
    """Operations of an encoder frame for each frame of its utterance, forward, summed over the layers."""
    left = model.per_layer(model.left_context)
    right = model.per_layer(model.right_context)
    if model.chunk_size or not model.architecture.startswith("transformer"):
        return 0.0
    num_unbounded = sum(None in sides for sides in zip(left, right, strict=True))
    products = 4 if model.positional_encoding == "relative" else 2  # twice as many distances as keys
    return 2.0 * products * model.dim * num_unbounded


def linear_flops(config: Config, num_outputs: int) -> float:
    """Operations of an encoder frame that do not depend on the length of its utterance, forward.

    Attention within chunks and windows is left out: where there is nothing else, it makes no difference.
    """
    model = config.model
    layer = 4 * model.dim**2 + 2 * model.dim * model.ff_dim + _convolution_weights(model)
    if model.positional_encoding == "relative" and not model.chunk_size:
        layer += 2 * model.dim**2  # projections of twice as many distances as frames
    front_end = _front_end_products(model.subsampling, config.features.num_bins, model.dim)
    return 2.0 * (model.layers * layer + front_end + model.dim * num_outputs)


def _convolution_weights(model: ModelConfig) -> int:
    dim = model.dim
    if model.convolution.kind == "none":
        return 0
    if model.convolution.kind == "conformer":
        return 3 * dim**2 + dim * model.convolution.kernel
    return dim**2 * model.convolution.kernel


def _front_end_products(config: SubsamplingConfig, bins: int, dim: int) -> float:
    """Multiplications of the front end for an encoder frame."""
    if config.kind == "stack":
        return bins * config.factor * dim
    total = 0.0
    inputs = 1
    outputs = config.channels
    frames = config.factor  # before a convolution, of an encoder frame
    for number, stride in enumerate(config.strides):
        if config.kind == "vgg":
            outputs = config.channels << number
            total += KERNEL * (inputs + outputs) * outputs * halve(bins, number) * frames
        else:
            total += 3 * (2 * stride - 1) * inputs * outputs * halve(bins, number + 1) * frames / stride
        inputs = outputs
        frames //= stride
    return total + inputs * halve(bins, len(config.strides)) * dim
