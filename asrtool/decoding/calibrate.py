"""Fitting the calibration of a system on a dev set: `asrtool calibrate`.

The set is recognised as by `asrtool decode`. Each word is correct or not by the alignment with its transcript, and a
logistic regression with weights that are not negative maps its posteriors to the probability that it is correct.
Which posteriors the map reads is decided by cross-validation over speakers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asrtool.data.batch import Batch
from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.calibration import (
    FORMAT,
    HINT,
    FeatureName,
    MethodCalibration,
    UtteranceMap,
    WordMap,
    mean_confidence,
    read_calibration,
    word_feature,
)
from asrtool.decoding.confidence import WordEvidence, clipped_logit
from asrtool.decoding.decode import hypothesis_row
from asrtool.decoding.hypothesis import Search
from asrtool.decoding.logistic import fit_logistic
from asrtool.decoding.options import Options
from asrtool.decoding.runs import method_label
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.system_options import with_lattices
from asrtool.decoding.words import UtteranceEvidence, WordDescriber
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import require_same_kind, write_json
from asrtool.pack_manifest import is_pack
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.readers import read_json
from asrtool.scoring.confidence import ConfidenceQuality, confidence_quality, quality_dict, words_correct
from asrtool.scoring.utterance_confidence import (
    UtteranceErrors,
    UtteranceQuality,
    utterance_errors,
    utterance_quality,
    utterance_quality_dict,
)
from asrtool.system_files import CALIBRATION

# Words that must be correct, and that must not be, for a map to be fitted: its weights are then known to about a third.
# With fewer, a calibration would be worse than none.
MIN_OF_EACH = 10
MIN_UTTERANCES = 20  # for a map of utterances, by the same reasoning
MEAN_OF_WORDS = UtteranceMap(intercept=0.0, weight=1.0, length_weight=0.0)  # leaves the mean of the words as it is
NUM_FOLDS = 5  # of the cross-validation, fewer where there are fewer speakers
# The features of words that are tried, in order: a later one needs a lower cross-entropy.
ACOUSTIC_FEATURES: tuple[tuple[FeatureName, ...], ...] = (("acoustic",), ("acoustic", "units"))
LATTICE_FEATURES: tuple[tuple[FeatureName, ...], ...] = (
    ("posterior",),
    ("posterior", "units"),
    ("posterior", "acoustic"),
    ("posterior", "acoustic", "units"),
)


@dataclass(frozen=True)
class DevUtterance:
    """An utterance of the dev set: its evidence, whether each word is correct, and its word errors."""

    evidence: UtteranceEvidence
    words_correct: list[bool]
    outcome: UtteranceErrors
    speaker: str | None


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration, and the quality of confidences that it has for speakers (or utterances) it was not fitted on."""

    calibration: MethodCalibration
    words: ConfidenceQuality
    utterances: UtteranceQuality
    raw: ConfidenceQuality  # of the posteriors of words, as they are without a calibration

    def facts(self) -> dict:
        """Returns the quality in plain values for JSON."""
        utterances = utterance_quality_dict(self.utterances)
        return {"words": quality_dict(self.words), "utterances": utterances, "raw": quality_dict(self.raw)}


def calibrate(
    experiment: Experiment,
    cuts: Path,
    method: str,
    options: Options,
    out: Path | None = None,
    jobs: int = 1,
    batch_seconds: float = 200.0,
    workers: int = 1,
) -> tuple[str, FittedCalibration]:
    """Fits the calibration of a search method on a manifest with transcripts, and writes it.

    `options` are what `search_options` returns. `out` is by default EXP/calibration.json, which all commands read.
    Returns the method's name in the file and what was fitted. Raises UserError for a pack without `out`, since the
    files of a pack do not change, and for a set with too few words.
    """
    path = out or experiment.folder / CALIBRATION
    if out is None and is_pack(experiment.folder):
        hint = "calibrate the experiment, and pack it again, or write the calibration elsewhere with --out"
        raise UserError(f"{experiment.folder} is a pack, whose files do not change; {hint}")
    require_same_kind(path, "a calibration", read_calibration)
    options = with_lattices(method, options)
    search, settings, graph = open_search(
        method, experiment.tokenizer, options, jobs, experiment.config.objective.topology
    )
    describer = WordDescriber(experiment, graph)
    utterances = collect_evidence(experiment, cuts, search, describer, batch_seconds, workers)
    fitted = fit_calibration(utterances, output_type(experiment, method))
    label = method_label(method, options)
    facts = {"cuts": str(cuts), "checkpoint": experiment.checkpoint.name, "settings": settings}
    facts |= {"precision": experiment.computed_precision}
    write_calibration(path, label, fitted, facts)
    return label, fitted


def collect_evidence(
    experiment: Experiment, cuts: Path, search: Search, describer: WordDescriber, batch_seconds: float, workers: int
) -> list[DevUtterance]:
    """Recognises a manifest, and returns what its confidences are fitted on; cuts without a transcript are left out."""
    utterances: list[DevUtterance] = []
    batches = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(batches, f"decoding {cuts.name}", units="batches"):
        if batch.ids:
            utterances += _collect_batch(experiment, batch, search, describer)
    return utterances


def _collect_batch(
    experiment: Experiment, batch: Batch, search: Search, describer: WordDescriber
) -> list[DevUtterance]:
    log_probs, lens = experiment.log_probs(batch)
    lens = lens.cpu()
    hypotheses = search(log_probs, lens)
    frames = log_probs.float().cpu().numpy()
    utterances = []
    for n, hypothesis in enumerate(hypotheses):
        row = hypothesis_row(experiment.tokenizer, batch.ids[n], batch.texts[n], hypothesis, 0.0, None)
        if row["ref"].split():
            utterances.append(
                DevUtterance(
                    evidence=describer.evidence(hypothesis, frames[n, : lens[n]]),
                    words_correct=words_correct(row["ref"], row["hyp"]),
                    outcome=utterance_errors(row["ref"], row["hyp"]),
                    speaker=batch.speakers[n],
                )
            )
    return utterances


def output_type(experiment: Experiment, method: str) -> str:
    """Returns what a method recognises: "words", or "phones" by a system of phones without a graph."""
    return "words" if method == "graph" else experiment.tokenizer.output_type


def fit_calibration(utterances: Sequence[DevUtterance], name: str = "words") -> FittedCalibration:
    """Returns the calibration that fits a dev set best; `name` is what messages call the words.

    Raises UserError where the set has too few words of either kind.
    """
    correct = [one for utterance in utterances for one in utterance.words_correct]
    if not _are_enough(correct):
        found = f"{len(correct)} {name}, of which {sum(correct)} are correct and {len(correct) - sum(correct)} wrong"
        hint = "give a larger or harder set, or leave the system uncalibrated: its confidences are posteriors then"
        raise UserError(f"the set has {found}: calibration needs {MIN_OF_EACH} of each kind; {hint}")
    folds = _folds(utterances)
    features = [_best_features(utterances, folds, ACOUSTIC_FEATURES)]
    if _are_enough([is_correct for _, is_correct in _labelled_words(utterances, ("posterior",))]):
        features.insert(0, _best_features(utterances, folds, LATTICE_FEATURES))
    calibration = _fit_method(utterances, features)
    held_out = _held_out_confidences(utterances, folds, features)
    evidence = [word for word, _ in _labelled_words(utterances)]
    return FittedCalibration(
        calibration=calibration,
        words=confidence_quality([value for words, _ in held_out for value in words], correct),
        utterances=utterance_quality([value for _, value in held_out], [one.outcome for one in utterances]),
        raw=confidence_quality([word.raw_confidence for word in evidence], correct),
    )


def _are_enough(correct: Sequence[bool]) -> bool:
    """Returns whether a map can be fitted to words, of which it is known whether each is correct."""
    return min(sum(correct), len(correct) - sum(correct)) >= MIN_OF_EACH


def _labelled_words(
    utterances: Sequence[DevUtterance], features: tuple[FeatureName, ...] = ()
) -> list[tuple[WordEvidence, bool]]:
    """Returns the words whose evidence has all `features`, each with whether it is correct.

    The words of an utterance without a lattice have no posterior.
    """
    return [
        (word, is_correct)
        for utterance in utterances
        for word, is_correct in zip(utterance.evidence.words, utterance.words_correct, strict=True)
        if word.posterior is not None or "posterior" not in features
    ]


def _folds(utterances: Sequence[DevUtterance]) -> np.ndarray:
    """Returns the fold of each utterance, (N,); a speaker is in one fold only, where speakers are known."""
    speakers = [utterance.speaker for utterance in utterances]
    if len(set(speakers)) < 2 or None in speakers:
        return np.arange(len(utterances)) % NUM_FOLDS
    order = {speaker: number for number, speaker in enumerate(dict.fromkeys(speakers))}
    return np.array([order[speaker] % NUM_FOLDS for speaker in speakers])


def _best_features(
    utterances: Sequence[DevUtterance], folds: np.ndarray, candidates: Sequence[tuple[FeatureName, ...]]
) -> tuple[FeatureName, ...]:
    """Returns the candidate with the lowest cross-entropy on words of folds that it was not fitted on."""
    return min(candidates, key=lambda features: _cross_entropy(utterances, folds, features))


def _cross_entropy(utterances: Sequence[DevUtterance], folds: np.ndarray, features: tuple[FeatureName, ...]) -> float:
    """Returns the cross-entropy of the held-out words that have these features, in nats a word."""
    total = count = 0.0
    for fold in np.unique(folds).tolist():
        word_map = _fit_words(_without_fold(utterances, folds, fold), features)
        for word, is_correct in _labelled_words(_of_fold(utterances, folds, fold), features):
            confidence = word_map.confidence(word)
            total -= np.log(max(confidence if is_correct else 1 - confidence, 1e-12))
            count += 1
    return total / count


def _without_fold(utterances: Sequence[DevUtterance], folds: np.ndarray, fold: int) -> list[DevUtterance]:
    return [utterance for utterance, own in zip(utterances, folds.tolist(), strict=True) if own != fold]


def _of_fold(utterances: Sequence[DevUtterance], folds: np.ndarray, fold: int) -> list[DevUtterance]:
    return [utterance for utterance, own in zip(utterances, folds.tolist(), strict=True) if own == fold]


def _held_out_confidences(
    utterances: Sequence[DevUtterance], folds: np.ndarray, features: Sequence[tuple[FeatureName, ...]]
) -> list[tuple[list[float], float]]:
    """Returns the confidences of the words of each utterance, and its own, by maps fitted without its fold."""
    maps = {fold: _fit_method(_without_fold(utterances, folds, fold), features) for fold in np.unique(folds).tolist()}
    confidences = []
    for utterance, fold in zip(utterances, folds.tolist(), strict=True):
        words = _word_confidences(maps[fold], utterance)
        mean = mean_confidence(words, utterance.evidence.empty)
        confidences.append((words, maps[fold].utterances.confidence(mean, len(words))))
    return confidences


def _fit_method(utterances: Sequence[DevUtterance], features: Sequence[tuple[FeatureName, ...]]) -> MethodCalibration:
    """Returns the calibration with a map of words for each set of features; the last one needs no lattice."""
    word_maps = [_fit_words(utterances, one) for one in features]
    calibration = MethodCalibration(words=word_maps, utterances=MEAN_OF_WORDS)
    return calibration.model_copy(update={"utterances": _fit_utterances(utterances, calibration)})


def _word_confidences(calibration: MethodCalibration, utterance: DevUtterance) -> list[float]:
    """Returns the confidence of each word, by the first map that can read its evidence."""
    confidences = map(calibration.word_confidence, utterance.evidence.words)
    return [confidence for confidence in confidences if confidence is not None]  # the last map reads all words


def _fit_words(utterances: Sequence[DevUtterance], features: tuple[FeatureName, ...]) -> WordMap:
    """Returns the map of words with these features, fitted on the words that have them."""
    words = _labelled_words(utterances, features)
    values = np.array([[word_feature(word, name) for name in features] for word, _ in words])
    correct = np.array([is_correct for _, is_correct in words], dtype=bool)
    may_be_negative = [name == "units" for name in features]
    intercept, weights = fit_logistic(values.reshape(-1, len(features)), correct, may_be_negative)
    return WordMap(intercept=intercept, **dict(zip(features, weights, strict=True)))


def _fit_utterances(utterances: Sequence[DevUtterance], calibration: MethodCalibration) -> UtteranceMap:
    """Returns the map of utterances to their word accuracy; with too few, it leaves the mean of the words as it is.

    `calibration` gives the confidences of the words.
    """
    if len(utterances) < MIN_UTTERANCES:
        return MEAN_OF_WORDS
    rows = []
    for utterance in utterances:
        confidences = _word_confidences(calibration, utterance)
        mean = mean_confidence(confidences, utterance.evidence.empty)
        rows.append([clipped_logit(mean), np.log(1 + len(confidences))])
    accuracies = np.array([utterance.outcome.accuracy for utterance in utterances])
    intercept, (weight, length_weight) = fit_logistic(np.array(rows), accuracies, [False, True])
    return UtteranceMap(intercept=intercept, weight=weight, length_weight=length_weight)


def write_calibration(path: Path, label: str, fitted: FittedCalibration, facts: dict[str, Any]) -> None:
    """Adds the calibration of a method to a file, with what it was fitted on; the maps of other methods stay.

    Raises UserError for a file that is something else.
    """
    require_same_kind(path, "a calibration", read_calibration)
    tree: dict[str, Any] = {"format": FORMAT, "methods": {}}
    if path.is_file() and path.stat().st_size:
        tree = read_json(path, "calibration", HINT)
    entry = fitted.calibration.model_dump(exclude_none=True)
    tree["methods"][label] = entry | {"cross_validated": fitted.facts()} | facts | provenance()
    write_json(path, tree)
