"""Depth-scaled initialisation, which lets deep Transformers start to learn."""

import math

from torch import Tensor, nn

from asrtool.config import InitConfig


def depth_scaled_init(block: nn.Module, layer: int, config: InitConfig) -> None:
    """Draws the matrices of the `layer`-th block, counted from 1, from

        W in R^(d_i x d_o) ~ U(-g a / l^p, g a / l^p),   g = sqrt(6 / (d_i + d_o)),   l = layer

    with a = `alpha` and p = `exponent`, 0.5 in the formula of Zhang, Titov and Sennrich (EMNLP 2019, arXiv 1908.11365,
    section 4); the code released with that paper scales the variance instead, which is p = 0.25. Q, K and V are a
    matrix each. `scope`: "all" matrices of the block (d_i and d_o of a convolution include its width), or only "qkv".
    The biases of these layers become zero.
    """
    for name, module in block.named_modules():
        is_qkv = name.endswith("qkv")
        if not isinstance(module, nn.Linear | nn.Conv1d) or (config.scope == "qkv" and not is_qkv):
            continue
        scale = config.alpha / layer**config.exponent
        for matrix in module.weight.chunk(3) if is_qkv else [module.weight]:
            _xavier_uniform(matrix, scale)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _xavier_uniform(matrix: Tensor, scale: float) -> None:
    outputs = matrix.shape[0]
    inputs = matrix.shape[1]
    width = math.prod(matrix.shape[2:])
    bound = scale * math.sqrt(6.0 / ((inputs + outputs) * width))
    nn.init.uniform_(matrix, -bound, bound)
