"""An ablation as a YAML file defines it: hypothesis, variants, expectations and the rules of its result.

The keys of the file are documented in tools/ablations.py.
"""

import math
import re
import statistics
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from asrtool.config_file import load_config, merge
from asrtool.config_types import NonNegativeInteger, PositiveInteger, Section
from asrtool.errors import UserError, did_you_mean, require_file

SUPPORTED = "supported"
REFUTED = "refuted"
INCONCLUSIVE = "inconclusive"
PENDING = "pending"  # some runs have not finished
SIZE_TOLERANCE = 0.05  # share by which the parameters of equal models may differ: widths are whole numbers of heads
UNITS = 40  # output units for counting parameters, as many as there are phones; the same for all variants
UNBOUNDED = (-math.inf, math.inf)  # the interval of a quantity of which nothing is known
NAME = r"\w[\w.+-]*"
EXPECTATION = re.compile(rf"({NAME}) ([<>=]) (?:(\d+(?:\.\d+)?)|({NAME}))(?: within (\d+(?:\.\d+)?) %)?")


class Expectation(NamedTuple):
    """A statement about the loss of one variant and a level, or about the losses of two variants."""

    text: str
    first: str
    sign: str  # "<", ">" or "="
    second: str | None  # a variant, or None where the first one is compared with `level`
    level: float | None
    percent: float | None  # margin of "=", in percent of the second variant's mean

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the one or two variants."""
        return (self.first, self.second) if self.second else (self.first,)

    def result(self, losses: dict[str, dict[int, float]]) -> tuple[str, str]:
        """Returns the result and its figures, from the loss of each variant and seed (infinite for a failed run).

        For two variants, the 95 % interval of the paired difference (seed by seed) decides. "<" is supported if the
        whole interval is below zero and refuted if it is above zero; ">" the other way round. "=" is supported if the
        whole interval is within the margin, and refuted if it is outside on one side.

        For a variant and a level, all seeds must agree. "<" (the variant learns) is supported if all seeds are below
        the level, and refuted only if all seeds failed: not to reach a level in a few steps proves nothing. ">" (the
        variant does not learn) is supported if all seeds are above the level, and refuted if all are below.
        """
        if self.second is None:
            return self._against_level([*losses[self.first].values()])
        first, second = losses[self.first], losses[self.second]
        low, high = interval([first[seed] - second[seed] for seed in first])
        if self.sign == "=":
            margin = self.percent / 100 * statistics.fmean(second.values())
            decision = _decide(-margin < low and high < margin, low > margin or high < -margin)
        elif self.sign == "<":
            decision = _decide(high < 0, low > 0)
        else:
            decision = _decide(low > 0, high < 0)
        figures = "no interval" if (low, high) == UNBOUNDED else f"difference [{low:.3g}, {high:.3g}]"
        return decision, figures

    def _against_level(self, losses: list[float]) -> tuple[str, str]:
        if self.sign == "<":
            agreeing = [loss < self.level for loss in losses]
            opposing = [math.isinf(loss) for loss in losses]
        else:
            agreeing = [loss > self.level for loss in losses]
            opposing = [loss < self.level for loss in losses]
        return _decide(all(agreeing), all(opposing)), f"{sum(agreeing)} of {len(agreeing)} seeds"


def _decide(supported: bool, refuted: bool) -> str:
    if supported:
        return SUPPORTED
    return REFUTED if refuted else INCONCLUSIVE


def interval(values: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean by Student's t.

    It is unbounded for a single value, and for NaN (both runs of a pair failed); of values that are not all finite it
    is the smallest and the largest.
    """
    from scipy.stats import t

    if len(values) < 2 or any(map(math.isnan, values)):
        return UNBOUNDED
    if not all(map(math.isfinite, values)):
        return min(values), max(values)
    mean = statistics.fmean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def overall_result(results: list[str]) -> str:
    """Returns the result of an ablation: one refuted expectation refutes it; to support it, all must be supported."""
    for result in (PENDING, REFUTED, INCONCLUSIVE):
        if result in results:
            return result
    return SUPPORTED


class Variant(Section):
    """The settings in which one variant differs from the ablation's common settings."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    conf: Path | None = None  # instead of the ablation's configuration
    set: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: PositiveInteger | None = None  # None: as the ablation
    after: str | None = None  # the variant whose warmup checkpoint this one starts from
    minutes: float | None = None  # expected time of a run, for --list


VariantName = Annotated[str, Field(pattern=rf"^{NAME}$")]  # it is also the name of a folder


class Ablation(Section):
    """A hypothesis and the experiment that tests it."""

    name: Annotated[str, Field(pattern=r"^.+$")]
    hypothesis: str
    seeds: Annotated[frozenset[NonNegativeInteger], Field(min_length=1)]
    conf: Path
    set: tuple[str, ...] = ()
    processes: PositiveInteger = 1
    threshold: float | None = None
    variants: Annotated[dict[VariantName, Variant], Field(min_length=1)]
    compare: tuple[tuple[str, str], ...] = ()
    expect: tuple[str, ...] = ()
    measure: Literal["final", "mean"] = "final"
    equal: tuple[Literal["parameters", "latency"], ...] = ()
    explanation: dict[Literal[SUPPORTED, INCONCLUSIVE, REFUTED], str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "Ablation":
        for name in [*self.variants, *(name for pair in self.pairs for name in pair)]:
            self.predecessors(name)
        for expectation in self.expectations:
            self.predecessors(expectation.first)
        return self

    @property
    def expectations(self) -> list[Expectation]:
        """The parsed statements of `expect`. Raises ValueError for a statement that cannot be parsed."""
        expectations = []
        for text in self.expect:
            match = EXPECTATION.fullmatch(text)
            if not match or (match[2] == "=") != (match[5] is not None) or match[2] == "=" and match[3]:
                raise ValueError(f"expect: '{text}' is not one of 'A < B', 'A > B', 'A = B within 5 %', 'A < 2.5'")
            level, percent = (float(part) if part else None for part in (match[3], match[5]))
            expectations.append(Expectation(text, match[1], match[2], match[4], level, percent))
        return expectations

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of variants that are compared: those of the expectations and those of `compare`."""
        expected = [expectation.variants for expectation in self.expectations if expectation.second]
        return list(dict.fromkeys([*expected, *self.compare]))

    def predecessors(self, name: str | None) -> list[str]:
        """Returns a variant and the variants that must run before it.

        Raises ValueError if there is no such variant, or if variants wait for each other.
        """
        names: list[str] = []
        while name is not None:
            if name not in self.variants:
                raise ValueError(f"there is no variant '{name}' ({did_you_mean(name, self.variants)})")
            if name in names:
                raise ValueError(f"variants wait for each other: {' after '.join([*names, name])}")
            names.append(name)
            name = self.variants[name].after
        return names

    def settings(self, name: str) -> tuple[Path, list[str]]:
        """Returns the configuration file of a variant, and its options --set."""
        return self.variants[name].conf or self.conf, [*self.set, *self.variants[name].set]

    def check_equal(self) -> None:
        """Raises UserError if two variants that are compared differ in a property listed in `equal`."""
        pairs = self.pairs if self.equal else []
        sizes = {name: self.size(name) for name in {name for pair in pairs for name in pair}}
        for one, other in pairs:
            (fewer, latency), (more, other_latency) = sorted((sizes[one], sizes[other]))
            if "parameters" in self.equal and more > (1 + SIZE_TOLERANCE) * fewer:
                raise UserError(f"{self.name}: {one} and {other} have {fewer:,} and {more:,} parameters")
            if "latency" in self.equal and latency != other_latency:
                raise UserError(
                    f"{self.name}: {one} and {other} have latencies of {latency:g} and {other_latency:g} ms"
                )

    def size(self, name: str) -> tuple[int, float]:
        """Returns the number of parameters of a variant, and its largest latency in ms; no weights are allocated."""
        import torch

        from asrtool.models.acoustic import AcousticModel
        from asrtool.models.info import FRAME_MS

        config = load_config(*self.settings(name))
        with torch.device("meta"):
            model = AcousticModel(config.model, config.features.num_bins, UNITS)
        return sum(p.numel() for p in model.parameters()), FRAME_MS * sum(model.latency())


def load_ablation(path: Path, scale: str = "small") -> Ablation:
    """Reads an ablation from a YAML file; for scale "full", its key `full` replaces settings.

    Raises UserError if something is wrong with the file.
    """
    require_file(path, "ablation", "give a YAML file as in --help")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict):
            tree = _scaled(path, tree, scale)
        ablation = Ablation.model_validate(tree)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_explain, error.errors()))}") from error
    variants = {
        name: variant.model_copy(update={"conf": variant.conf and (path.parent / variant.conf).resolve()})
        for name, variant in ablation.variants.items()
    }
    return ablation.model_copy(update={"conf": (path.parent / ablation.conf).resolve(), "variants": variants})


def _scaled(path: Path, tree: dict, scale: str) -> dict:
    full = tree.pop("full", None)
    if scale == "small":
        return tree
    if not isinstance(full, dict):
        raise UserError(f"{path} has no settings 'full' for --scale full")
    tree = merge(tree, full) | {"name": f"{tree.get('name')}, full scale"}
    for variant in tree["variants"].values():
        variant.pop("minutes", None)  # of the small scale
    return tree


def _explain(error: dict) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        valid = (Variant if error["loc"][0] == "variants" else Ablation).model_fields
        return f"unknown key '{where}' ({did_you_mean(str(error['loc'][-1]), valid)})"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}".removeprefix(": ")
