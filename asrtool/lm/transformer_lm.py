"""Transformer language models over BPE units: what comes next in a sentence, or in the sentences of a text."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.models.caches import Caches
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder

LARGEST = 1 << 20  # of any number in a shape
BOUNDARY = 0  # the unit before a sentence, and behind the last one of a text; a tokenizer's blank, which spells nothing


@dataclass(frozen=True)
class Shape:
    """How large the model is, feed-forward layers being four times as wide as `dim`, and how far it looks back."""

    dim: int = 256
    layers: int = 6
    heads: int = 4
    dropout: float = 0.1
    context: int = 0  # units seen at once, of a sentence and those before it, boundaries counted; 0: of one sentence

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Shape":
        """The shape whose fields are `content`. ValueError where one is missing, or not of its type and range."""
        if not isinstance(content, dict) or content.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"its shape does not have the fields {', '.join(field.name for field in fields(cls))}")
        for name, least in {"dim": 2, "layers": 1, "heads": 1, "context": 0}.items():
            if type(content[name]) is not int or not least <= content[name] <= LARGEST:
                raise ValueError(f"its {name} is {content[name]!r:.50}, not a whole number from {least} to {LARGEST}")
        if type(content["dropout"]) not in (int, float) or not 0 <= content["dropout"] < 1:
            raise ValueError(f"its dropout is {content['dropout']!r:.50}, not a share below 1")
        if content["dim"] % (2 * content["heads"]):
            raise ValueError(f"its dim {content['dim']} is not an even multiple of {content['heads']} heads")
        return cls(**content)


class TransformerLm(nn.Module):
    """Pre-Norm blocks in which a unit sees those before it; the output shares the embedding's matrix (1608.05859)."""

    def __init__(self, size: int, shape: Shape):
        super().__init__()
        sizes = {"dim": shape.dim, "layers": shape.layers, "heads": shape.heads, "ff_dim": 4 * shape.dim}
        self.units = nn.Embedding(size, shape.dim)
        nn.init.normal_(self.units.weight, std=shape.dim**-0.5)
        mask = {"mask": "sliding", "left_context": shape.context or None, "right_context": 0}
        self.encoder = TransformerEncoder(ModelConfig(**sizes, **mask, dropout=shape.dropout))
        self.encoder.packs = False  # a batch has sentences of one length, many of them: one product is faster
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, units: Tensor, lens: Tensor, before: Tensor | None = None) -> Tensor:
        """The log-prob of every unit after each of `units` (N, T) int64, of which `lens` (N,) are there.

        `before` (B,) int64, for models with a context: what each of the N comes after; it is computed once for all.
        Returns (sum of lens, V) float32, the sentences one after the other.
        """
        x = self.units(units)
        y = self.encoder(x, lens) if before is None else self._after(before, x, lens)
        y = y[padding_mask(lens, units.shape[1])]
        return nn.functional.linear(y, self.units.weight, self.bias).float().log_softmax(-1)

    def _after(self, before: Tensor, x: Tensor, lens: Tensor) -> Tensor:
        size = torch.tensor([len(before)], device=before.device)
        past = Caches(self.encoder.initial_state(1))
        self.encoder.step(self.units(before[None]), torch.zeros_like(size), size, past)
        past = Caches(part.expand(len(x), -1, -1) for part in past.new)
        return self.encoder.step(x, size.expand(len(x)), lens + size, past)


def check_weights(weights: Mapping[str, Any], size: int, shape: Shape) -> None:
    """ValueError unless `weights` are those of a model of `size` units and of `shape`, and finite.

    Nothing of the size that `shape` claims is allocated, nor are there more steps than `weights` has entries.
    """
    if shape.layers != len({name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}):
        raise ValueError(f"it does not have the weights of {shape.layers} layers")
    with torch.device("meta"):
        expected = TransformerLm(size, shape).state_dict()
    if weights.keys() != expected.keys():
        raise ValueError(
            f"its weights lack {min(expected.keys() - weights.keys(), default='nothing, but are too many')}"
        )
    for name, like in expected.items():
        weight = weights[name]
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.dtype != like.dtype:
            raise ValueError(f"{name} is not a tensor of {like.dtype}")
        if weight.shape != like.shape:
            raise ValueError(f"{name} is {tuple(weight.shape)}, and {tuple(like.shape)} by its shape and units")
        if not weight.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")
