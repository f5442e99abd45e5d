"""The calibration of a system: small monotone maps from posteriors to probabilities, in calibration.json.

    word         sigmoid(intercept + sum of weight * feature), features:
                     posterior   the logit of the word's posterior in the lattice
                     acoustic    the logit of its posterior by the acoustic model alone
                     units       the log of its number of units
    utterance    sigmoid(intercept + weight * logit of the mean of the words' probabilities
                         + length_weight * log(1 + number of words))

The weights of posteriors are not negative, so a higher posterior never lowers a confidence. This is Platt's scaling
(Platt 1999); lattice posteriors alone are too high, since a lattice lacks most competitors (Wessel et al. 2001).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asrtool.decoding.confidence import WordEvidence, clipped_logit
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import file_hash
from asrtool.readers import read_json

FORMAT = 2
MAX_WEIGHT = 1e3  # of a map: logits are within +-14, and a probability is 0 or 1 in float64 beyond 40
MAX_METHODS = 100  # search methods in a file; there are a handful
MAX_TEXT = 10_000  # characters of a name
HINT = "create it with `asrtool calibrate`"
FeatureName = Literal["posterior", "acoustic", "units"]
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
PositiveWeight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)


class WordMap(_Strict):
    """The map of words: the weight of each feature that it has. `units` is the only one that may be negative."""

    intercept: Weight
    posterior: PositiveWeight | None = None
    acoustic: PositiveWeight | None = None
    units: Weight | None = None

    def features(self) -> list[FeatureName]:
        """Returns the names of the features that the map reads."""
        names: tuple[FeatureName, ...] = ("posterior", "acoustic", "units")
        return [name for name in names if getattr(self, name) is not None]

    def confidence(self, evidence: WordEvidence) -> float:
        """Returns the probability that the word is correct. The evidence has a posterior if the map reads one."""
        total = self.intercept
        for name in self.features():
            total += getattr(self, name) * word_feature(evidence, name)
        return sigmoid(total)


class UtteranceMap(_Strict):
    """The map of utterances, from the mean of the probabilities of the words to the expected word accuracy."""

    intercept: Weight
    weight: PositiveWeight
    length_weight: Weight

    def confidence(self, mean: float, num_words: int) -> float:
        """Returns the expected word accuracy of an utterance with `num_words` words in its hypothesis."""
        return sigmoid(
            self.intercept + self.weight * clipped_logit(mean) + self.length_weight * math.log(1 + num_words)
        )


class MethodCalibration(_Strict):
    """The maps of one search method. `words`: of several maps the first one whose features there are is applied."""

    words: list[WordMap] = Field(min_length=1, max_length=10)
    utterances: UtteranceMap

    def word_confidence(self, evidence: WordEvidence) -> float | None:
        """Returns the probability that a word is correct; None where no map can read the evidence."""
        for word_map in self.words:
            if evidence.posterior is not None or word_map.posterior is None:
                return word_map.confidence(evidence)
        return None


class _File(_Strict):
    """calibration.json."""

    format: Literal[2]
    methods: dict[Annotated[str, Field(max_length=MAX_TEXT)], MethodCalibration] = Field(max_length=MAX_METHODS)


def word_feature(evidence: WordEvidence, name: FeatureName) -> float:
    """Returns the value of a feature; see the module."""
    if name == "units":
        return math.log(max(1, evidence.num_units))
    value = evidence.posterior if name == "posterior" else evidence.acoustic
    assert value is not None
    return clipped_logit(value)


def sigmoid(value: float) -> float:
    """Returns 1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def read_calibration(path: Path) -> Mapping[str, MethodCalibration]:
    """Returns the calibration of each search method in a file. Raises UserError for anything else."""
    content = read_json(path, "calibration", HINT)
    try:
        return _File.model_validate(content).methods
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100] or "all of it"
        raise UserError(f"{path} is not a calibration: {where}: {first['msg'][:200]}; {HINT}") from error


def open_calibration(experiment: Experiment, label: str) -> tuple[MethodCalibration | None, dict[str, str]]:
    """Returns the calibration of a method that a system carries, if there is one, and the setting that records it.

    `label` is the method's name in results: "rescored" for graph search with rescoring. Raises UserError for a damaged
    file.
    """
    path = experiment.files.verified("calibration")
    calibration = read_calibration(path).get(label) if path else None
    return calibration, {"calibration": file_hash(path)} if path and calibration else {}


def mean_confidence(confidences: Sequence[float], empty: float) -> float:
    """Returns the mean of the probabilities of the words of an utterance; `empty` without words.

    This is the expected share of correct words in the hypothesis.
    """
    return sum(confidences) / len(confidences) if confidences else empty
