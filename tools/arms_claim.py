"""A claim and the experiment about it, as a YAML file says them: see tools/arms.py."""

import math
import re
import statistics
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from asrtool.config import Count, Positive, Section
from asrtool.config_file import load_config, merge
from asrtool.errors import UserError, did_you_mean, require_file

CONFIRMED, NOT_CONFIRMED, CONTRADICTED = "confirmed", "not confirmed at this scale", "contradicted"
OPEN = "open"
EQUAL = 0.05  # share by which the parameters of equal models may differ: widths are whole numbers of heads
UNITS = 40  # as many as there are phones, for counting parameters; all arms of a claim have the same
NOTHING = (-math.inf, math.inf)  # the interval of what nothing is known of
NAME = r"\w[\w.+-]*"
EXPECTATION = re.compile(rf"({NAME}) ([<>=]) (?:(\d+(?:\.\d+)?)|({NAME}))(?: within (\d+(?:\.\d+)?) %)?")


class Expectation(NamedTuple):
    """What a claim says of one arm and a level, or of two arms."""

    text: str
    first: str
    sign: str  # "<", ">", "="
    second: str | None  # an arm, or
    level: float | None
    percent: float | None  # of the second's mean, for "="

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the one or two."""
        return (self.first, self.second) if self.second else (self.first,)

    def verdict(self, losses: dict[str, dict[int, float]]) -> tuple[str, str]:
        """The verdict and its figures, from the loss of each arm and seed (infinite: it failed).

        Of two arms, the 95 % interval of the difference, seed by seed, decides. "<" is confirmed where all of it is
        below zero and contradicted where all is above; ">" the other way round; "=" is confirmed where all of it is
        within the margin, and contradicted where all is outside on one side. Of an arm and a level every seed decides:
        all must be on the right side. "<", that an arm learns, is contradicted where all seeds failed, for not to
        learn in a few steps proves nothing; ">", that it does not, where all are below.
        """
        if self.second is None:
            values = [*losses[self.first].values()]
            right = [value < self.level if self.sign == "<" else value > self.level for value in values]
            wrong = [math.isinf(value) if self.sign == "<" else value < self.level for value in values]
            return _of(all(right), all(wrong)), f"{sum(right)} of {len(right)} seeds"
        first, second = losses[self.first], losses[self.second]
        low, high = interval([first[seed] - second[seed] for seed in first])
        if self.sign == "=":
            margin = self.percent / 100 * statistics.fmean(second.values())
            verdict = _of(-margin < low and high < margin, low > margin or high < -margin)
        else:
            below, above = high < 0, low > 0
            verdict = _of(below, above) if self.sign == "<" else _of(above, below)
        return verdict, "no interval" if (low, high) == NOTHING else f"difference [{low:.3g}, {high:.3g}]"


def _of(right: bool, wrong: bool) -> str:
    return CONFIRMED if right else CONTRADICTED if wrong else NOT_CONFIRMED


def interval(values: list[float]) -> tuple[float, float]:
    """95 % by Student's t; of values that are not all finite, the least and the greatest; all there is of one alone."""
    from scipy.stats import t

    if len(values) < 2 or any(map(math.isnan, values)):  # nan: both of a pair failed
        return NOTHING
    if not all(map(math.isfinite, values)):
        return min(values), max(values)
    mean = statistics.fmean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def overall(verdicts: list[str]) -> str:
    """Of a claim from those of its expectations: what contradicts one contradicts it, and all must be confirmed."""
    for verdict in (OPEN, CONTRADICTED, NOT_CONFIRMED):
        if verdict in verdicts:
            return verdict
    return CONFIRMED


class Arm(Section):
    """What one arm does differently."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    conf: Path | None = None  # instead of the claim's
    set: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: Positive | None = None  # the claim's
    after: str | None = None
    minutes: float | None = None  # that a run should take, for --list


Name = Annotated[str, Field(pattern=rf"^{NAME}$")]  # a folder is called so


class Claim(Section):
    """A claim and the experiment about it."""

    name: Annotated[str, Field(pattern=r"^.+$")]
    claim: str
    seeds: Annotated[frozenset[Count], Field(min_length=1)]
    conf: Path
    set: tuple[str, ...] = ()
    processes: Positive = 1
    threshold: float | None = None
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    compare: tuple[tuple[str, str], ...] = ()
    expect: tuple[str, ...] = ()
    measure: Literal["final", "mean"] = "final"
    equal: tuple[Literal["parameters", "latency"], ...] = ()
    why: dict[Literal[CONFIRMED, NOT_CONFIRMED, CONTRADICTED], str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        for name in [*self.arms, *(name for pair in self.pairs for name in pair)]:
            self.needed(name)
        for name in (expectation.first for expectation in self.expectations):
            self.needed(name)
        return self

    @property
    def expectations(self) -> list[Expectation]:
        """Those of `expect`. Raises ValueError for what is none."""
        found = []
        for text in self.expect:
            match = EXPECTATION.fullmatch(text)
            if not match or (match[2] == "=") != (match[5] is not None) or match[2] == "=" and match[3]:
                raise ValueError(f"expect: '{text}' is not one of 'A < B', 'A > B', 'A = B within 5 %', 'A < 2.5'")
            level, percent = (float(part) if part else None for part in (match[3], match[5]))
            found.append(Expectation(text, match[1], match[2], match[4], level, percent))
        return found

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The arms to compare: those expected to differ or not, and those of `compare`."""
        expected = [expectation.arms for expectation in self.expectations if expectation.second]
        return list(dict.fromkeys([*expected, *self.compare]))

    def needed(self, name: str | None) -> list[str]:
        """An arm and those it comes after. Raises ValueError where there is no such arm, or no first one."""
        names: list[str] = []
        while name is not None:
            if name not in self.arms:
                raise ValueError(f"there is no arm '{name}' ({did_you_mean(name, self.arms)})")
            if name in names:
                raise ValueError(f"arms wait for each other: {' after '.join([*names, name])}")
            names.append(name)
            name = self.arms[name].after
        return names

    def settings(self, name: str) -> tuple[Path, list[str]]:
        """The configuration file of an arm and what --set changes in it."""
        return self.arms[name].conf or self.conf, [*self.set, *self.arms[name].set]

    def check_equal(self) -> None:
        """Raises UserError where two arms that are compared differ in what is `equal`."""
        pairs = self.pairs if self.equal else []
        sizes = {name: self.size(name) for name in {name for pair in pairs for name in pair}}
        for one, other in pairs:
            (few, ms), (many, more_ms) = sorted((sizes[one], sizes[other]))
            if "parameters" in self.equal and many > (1 + EQUAL) * few:
                raise UserError(f"{self.name}: {one} and {other} have {few:,} and {many:,} parameters")
            if "latency" in self.equal and ms != more_ms:
                raise UserError(f"{self.name}: {one} and {other} have latencies of {ms:g} and {more_ms:g} ms")

    def size(self, name: str) -> tuple[int, float]:
        """Parameters of an arm, and the latency in ms of the first frame of a chunk; no memory is taken."""
        import torch

        from asrtool.models.acoustic import AcousticModel
        from asrtool.models.info import FRAME_MS

        with torch.device("meta"):
            model = AcousticModel(load_config(*self.settings(name)), UNITS)
        return sum(p.numel() for p in model.parameters()), FRAME_MS * sum(model.latency())


def load_claim(path: Path, scale: str = "small") -> Claim:
    """The claim in a YAML file; for scale "full", with its `full` laid over it. UserError for what is wrong with it."""
    require_file(path, "claim", "give a YAML file as in --help")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict):
            tree = _scaled(path, tree, scale)
        claim = Claim.model_validate(tree)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_explain, error.errors()))}") from error
    here = path.parent
    arms = {
        name: arm.model_copy(update={"conf": arm.conf and (here / arm.conf).resolve()})
        for name, arm in claim.arms.items()
    }
    return claim.model_copy(update={"conf": (here / claim.conf).resolve(), "arms": arms})


def _scaled(path: Path, tree: dict, scale: str) -> dict:
    full = tree.pop("full", None)
    if scale == "small":
        return tree
    if not isinstance(full, dict):
        raise UserError(f"{path} has no settings 'full' for --scale full")
    tree = merge(tree, full) | {"name": f"{tree.get('name')}, full scale"}
    for arm in tree["arms"].values():
        arm.pop("minutes", None)  # those of the small scale
    return tree


def _explain(error: dict) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        valid = (Arm if error["loc"][0] == "arms" else Claim).model_fields
        return f"unknown key '{where}' ({did_you_mean(str(error['loc'][-1]), valid)})"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}".removeprefix(": ")
