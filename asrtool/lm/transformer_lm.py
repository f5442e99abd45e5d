"""Transformer language models over BPE units: they predict the next unit of a sentence, or of a text of sentences."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.models.caches import Caches
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder

MAX_SIZE = 1 << 20  # of any number in a configuration
# The unit before each sentence and after the last sentence of a text: the tokenizer's blank, which no text contains
BOUNDARY = 0


@dataclass(frozen=True)
class TransformerLmConfig:
    """The size of the model, whose feed-forward layers are four times as wide as `dim`, and how far it looks back."""

    dim: int = 256
    layers: int = 6
    heads: int = 4
    dropout: float = 0.1
    # Units seen at once, of a sentence and the sentences before it, boundaries counted; 0: of one sentence
    context: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "TransformerLmConfig":
        """Returns the configuration with the fields `content`.

        Raises ValueError where one is missing or not of its type and range.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or content.keys() != set(names):
            raise ValueError(f"its configuration does not have the fields {', '.join(names)}")
        for name, lowest in {"dim": 2, "layers": 1, "heads": 1, "context": 0}.items():
            if type(content[name]) is not int or not lowest <= content[name] <= MAX_SIZE:
                raise ValueError(f"its {name} is {content[name]!r:.50}, not a whole number from {lowest} to {MAX_SIZE}")
        if type(content["dropout"]) not in (int, float) or not 0 <= content["dropout"] < 1:
            raise ValueError(f"its dropout is {content['dropout']!r:.50}, not a share below 1")
        if content["dim"] % (2 * content["heads"]):
            raise ValueError(f"its dim {content['dim']} is not an even multiple of {content['heads']} heads")
        return cls(**content)


class TransformerLm(nn.Module):
    """Pre-Norm blocks with causal attention; the output layer shares the embedding's matrix (arXiv 1608.05859)."""

    def __init__(self, num_units: int, config: TransformerLmConfig):
        super().__init__()
        self.units = nn.Embedding(num_units, config.dim)
        nn.init.normal_(self.units.weight, std=config.dim**-0.5)
        blocks = ModelConfig(
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            ff_dim=4 * config.dim,
            dropout=config.dropout,
            mask="sliding",
            left_context=config.context or None,
            right_context=0,
        )
        # A batch has many sentences of similar length: one product over all of them, padding included, is faster.
        self.encoder = TransformerEncoder(blocks, pack_frames=False)
        self.bias = nn.Parameter(torch.zeros(num_units))

    def forward(self, units: Tensor, lens: Tensor, history: Tensor | None = None) -> Tensor:
        """Returns the log-probs of every unit after each of `units` (N, T) int64.

        The first `lens` (N,) of them are not padding.
        `history` (B,) int64, for models with a context: units before each of the N sentences. It is computed once for
        all of them. Returns (sum of lens, V) float32, the sentences one after the other.
        """
        x = self.units(units)
        y = self.encoder(x, lens) if history is None else self._after_history(history, x, lens)
        y = y[padding_mask(lens, units.shape[1])]
        return nn.functional.linear(y, self.units.weight, self.bias).float().log_softmax(-1)

    def _after_history(self, history: Tensor, x: Tensor, lens: Tensor) -> Tensor:
        size = torch.tensor([len(history)], device=history.device)
        caches = Caches(self.encoder.initial_state(1))
        self.encoder.step(self.units(history[None]), torch.zeros_like(size), size, caches)
        caches = Caches(part.expand(len(x), -1, -1) for part in caches.new)
        return self.encoder.step(x, size.expand(len(x)), lens + size, caches)


def check_lm_weights(weights: Mapping[str, Any], num_units: int, config: TransformerLmConfig) -> None:
    """Raises ValueError unless `weights` are finite and fit a model of `num_units` units and of `config`.

    Nothing of the size that `config` claims is allocated, and there are no more steps than `weights` has entries.
    """
    if config.layers != len({name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}):
        raise ValueError(f"it does not have the weights of {config.layers} layers")
    with torch.device("meta"):
        expected = TransformerLm(num_units, config).state_dict()
    if weights.keys() != expected.keys():
        missing = min(expected.keys() - weights.keys(), default="nothing, but are too many")
        raise ValueError(f"its weights lack {missing}")
    for name, like in expected.items():
        weight = weights[name]
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.dtype != like.dtype:
            raise ValueError(f"{name} is not a tensor of {like.dtype}")
        if weight.shape != like.shape:
            raise ValueError(f"{name} is {tuple(weight.shape)}, and {tuple(like.shape)} by its configuration and units")
        if not weight.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")
