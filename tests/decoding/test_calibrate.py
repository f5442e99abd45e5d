"""Fitting a calibration, and reading it again."""

import itertools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from asrtool.decoding.calibrate import (
    MIN_UTTERANCES,
    DevUtterance,
    calibrate,
    fit_calibration,
    write_calibration,
)
from asrtool.decoding.calibration import FORMAT, MethodCalibration, UtteranceMap, WordMap, read_calibration, sigmoid
from asrtool.decoding.confidence import WordEvidence
from asrtool.decoding.logistic import fit_logistic
from asrtool.decoding.words import UtteranceEvidence
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.scoring.confidence_score import score_confidences
from asrtool.scoring.utterance_confidence import UtteranceErrors
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer
from tests.tiny import WORDS, make_experiment


def dev_set(seed: int, utterances: int = 300, has_lattice: bool = True, words: int = 8) -> list[DevUtterance]:
    """Words whose probability of being correct is sigmoid(-1 + 0.5 * logit of the posterior); posteriors too high."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(utterances):
        logits = draw.normal(4, 3, words)
        correct = draw.random(words) < 1 / (1 + np.exp(1 - 0.5 * logits))
        evidence = [
            WordEvidence(sigmoid(logit) if has_lattice else None, draw.random() if has_lattice else sigmoid(logit), 3)
            for logit in logits.tolist()
        ]
        speaker = f"speaker {number % 7}"
        outcome = UtteranceErrors(int((~correct).sum()), words)
        made.append(DevUtterance(UtteranceEvidence(evidence, 0.0), correct.tolist(), outcome, speaker))
    return made


@pytest.mark.parametrize("has_lattice", [True, False])
def test_the_map_that_made_the_words_is_found(has_lattice):
    fitted = fit_calibration(dev_set(1, 600, has_lattice))
    word_map = fitted.calibration.words[0]
    weight = word_map.posterior if has_lattice else word_map.acoustic
    assert weight == pytest.approx(0.5, abs=0.06)
    assert sigmoid(-1 + 0.5 * 4) == pytest.approx(
        word_map.confidence(WordEvidence(sigmoid(4) if has_lattice else None, sigmoid(4.0), 3)), abs=0.04
    )
    assert fitted.words.ece < 0.03 < fitted.raw.ece and fitted.words.nce > 0.1 > fitted.raw.nce
    assert fitted.utterances.ece < 0.05 and fitted.utterances.correlation > 0.3
    assert fitted.utterances.expected == pytest.approx(fitted.utterances.accuracy, abs=0.02)


def test_an_utterance_of_which_words_are_missing_is_expected_to_have_errors():
    utterances = [replace(one, outcome=UtteranceErrors(one.outcome.errors + 4, 12)) for one in dev_set(1)]
    fitted = fit_calibration(utterances)
    accuracy = np.mean([one.outcome.accuracy for one in utterances])
    assert fitted.utterances.expected == pytest.approx(accuracy, abs=0.02)
    assert accuracy < np.mean([np.mean(one.words_correct) for one in utterances]) - 0.1


def test_with_few_utterances_the_mean_of_the_words_stays():
    calibration = fit_calibration(dev_set(1, MIN_UTTERANCES - 1)).calibration
    assert calibration.utterances.confidence(0.7, 5) == pytest.approx(0.7)
    assert fit_calibration(dev_set(1, MIN_UTTERANCES)).calibration.utterances.confidence(0.7, 5) != pytest.approx(0.7)


def test_a_confidence_never_falls_where_a_posterior_rises():
    for seed in range(3):
        calibration = fit_calibration(dev_set(seed, 60)).calibration
        values = [1e-9, 0.01, 0.3, 0.8, 0.999, 1.0]
        for low, high in itertools.pairwise(values):
            for other in values:
                for units in (1, 9):
                    assert calibration.word_confidence(WordEvidence(low, other, units)) <= (
                        calibration.word_confidence(WordEvidence(high, other, units))
                    )
                    assert calibration.word_confidence(WordEvidence(other, low, units)) <= (
                        calibration.word_confidence(WordEvidence(other, high, units))
                    )
            assert calibration.utterances.confidence(low, 5) <= calibration.utterances.confidence(high, 5)


def test_posteriors_that_mislead_get_no_weight():
    draw = np.random.default_rng(1)
    values = draw.normal(size=(500, 1))
    correct = draw.random(500) < 1 / (1 + np.exp(values[:, 0]))
    intercept, (weight,) = fit_logistic(values, correct, [False])
    assert weight == 0 and sigmoid(intercept) == pytest.approx(correct.mean(), abs=1e-3)
    assert fit_logistic(values, correct, [True])[1][0] < -0.5


def test_logistic_regression_of_shares_is_that_of_as_many_outcomes():
    values = np.random.default_rng(3).normal(size=(50, 1))
    shares = np.random.default_rng(4).integers(0, 11, 50) / 10
    outcomes = np.concatenate([np.arange(10) < round(10 * share) for share in shares])
    expected = fit_logistic(np.repeat(values, 10, axis=0), outcomes, [True])
    intercept, weights = fit_logistic(np.repeat(values, 10, axis=0), np.repeat(shares, 10), [True])
    assert (intercept, *weights) == pytest.approx((expected[0], *expected[1]), abs=1e-4)


def test_logistic_regression_is_at_the_lowest_loss():
    draw = np.random.default_rng(2)
    values = draw.normal(size=(200, 2))
    correct = draw.random(200) < 0.7
    intercept, weights = fit_logistic(values, correct, [True, True])

    def loss(parameters):
        margins = np.where(correct, 1, -1) * (parameters[0] + values @ parameters[1:])
        return np.log1p(np.exp(-margins)).sum() + 0.5 * (parameters[1:] ** 2).sum() / 9

    best = np.array([intercept, *weights])
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.01:
        assert loss(best) < loss(best + step)


@pytest.mark.parametrize("correct", [True, False])
def test_too_few_words_of_one_kind_are_refused(correct):
    evidence = UtteranceEvidence([WordEvidence(None, 0.9, 1)], 0.0)
    utterances = [DevUtterance(evidence, [correct], UtteranceErrors(int(not correct), 1), None)] * 100
    counts = "100 are correct and 0 wrong" if correct else "0 are correct and 100 wrong"
    for name in ("words", "phones"):
        with pytest.raises(UserError, match=f"100 {name}, of which {counts}: .* 10 of each kind; give .* or leave"):
            fit_calibration(utterances, name)


def test_without_a_lattice_the_map_of_the_acoustic_model_is_applied():
    calibration = fit_calibration(dev_set(1, 60)).calibration
    assert [one.posterior is None for one in calibration.words] == [False, True]
    assert calibration.word_confidence(WordEvidence(None, 0.5, 3)) == calibration.words[1].confidence(
        WordEvidence(0.9, 0.5, 3)
    )
    needs_lattice = MethodCalibration(
        words=[WordMap(intercept=0.0, posterior=1.0)],
        utterances=UtteranceMap(intercept=0.0, weight=1.0, length_weight=0.0),
    )
    assert needs_lattice.word_confidence(WordEvidence(None, 0.5, 3)) is None
    assert needs_lattice.word_confidence(WordEvidence(0.25, 0.5, 3)) == pytest.approx(0.25)


@pytest.mark.parametrize("without", [1, 150])
def test_utterances_without_a_lattice_leave_the_lattice_map_to_the_others(without):
    lattices, acoustic = dev_set(1, 300), dev_set(2, without, has_lattice=False)
    fitted = fit_calibration([*acoustic, *lattices])
    assert fitted.calibration.words[0] == fit_calibration(lattices).calibration.words[0]
    assert [one.posterior is None for one in fitted.calibration.words] == [False, True]
    assert fitted.words.count == 8 * (300 + without)
    assert fitted.utterances.expected == pytest.approx(fitted.utterances.accuracy, abs=0.03)


@pytest.mark.parametrize("with_lattice", [0, 1])
def test_too_few_words_with_posteriors_get_no_lattice_map(with_lattice):
    fitted = fit_calibration([*dev_set(1, with_lattice), *dev_set(2, 60, has_lattice=False)])
    assert [one.posterior for one in fitted.calibration.words] == [None]


def test_calibrations_of_methods_share_a_file(tmp_path):
    path = tmp_path / "calibration.json"
    first, second = fit_calibration(dev_set(1, 60)), fit_calibration(dev_set(2, 60))
    write_calibration(path, "graph", first, {"cuts": "dev"})
    write_calibration(path, "rescored", second, {})
    write_calibration(path, "graph", second, {})
    assert read_calibration(path) == {"graph": second.calibration, "rescored": second.calibration}
    assert json.loads(path.read_text())["methods"]["graph"]["cross_validated"]["words"]["count"] == 480


def damaged(**changes):
    entry = {"words": [{"intercept": 0.0, "acoustic": 1.0}], "utterances": {"intercept": 0.0, "weight": 1.0}}
    entry["utterances"]["length_weight"] = 0.0
    return {"format": FORMAT, "methods": {"greedy": entry | changes}}


@pytest.mark.parametrize("content", [
    [], {}, {"format": 1, "methods": {}}, {"format": FORMAT, "methods": []}, damaged(words=[]), damaged(words=None),
    damaged(words=[{"intercept": "0"}]), damaged(words=[{"intercept": 0.0, "acoustic": -1.0}]),
    damaged(words=[{"intercept": 1e9}]), damaged(utterances={"intercept": 0.0, "weight": -1.0, "length_weight": 0.0}),
    damaged(words=[{"intercept": True}]), damaged(words=[{"intercept": 0.0}] * 11),
])  # fmt: skip
def test_other_content_is_refused_with_one_line(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="calibration.json is not a calibration.*create it with `asrtool calibrate`"):
        read_calibration(path)
    with pytest.raises(UserError, match="not a calibration"):  # and is not replaced
        write_calibration(path, "greedy", fit_calibration(dev_set(1, 60)), {})
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize("value", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_sigmoid_has_no_overflow(value):
    assert sigmoid(value) == pytest.approx(1 / (1 + math.exp(-max(-700.0, min(700.0, value)))))


def test_a_calibrated_system_decodes_with_other_confidences(asr, experiment, corpus, tmp_path):
    system = tmp_path / "exp"
    shutil.copytree(experiment, system)
    options = ("--method", "greedy", "--device", "cpu", "--workers", 0)

    def decode() -> list[dict]:
        status, _, err = asr("decode", system, corpus, *options)
        assert status == 0, err
        lines = (system / "decode/cuts/greedy/hyps.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    before = score_confidences(decode()).words
    status, out, err = asr("calibrate", system, corpus, *options)
    assert status == 0, err
    assert out.startswith("greedy, without calibration: NCE -") and "greedy, cross-validated: NCE " in out
    after = score_confidences(decode()).words
    assert (after.count, after.correct) == (before.count, before.correct)
    assert after.nce > before.nce and after.ece < before.ece  # on the words that it was fitted on


def test_a_pack_is_not_changed(experiment, corpus, tmp_path):
    system = open_experiment(experiment, device="cpu")
    system.folder = tmp_path
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is a pack, whose files do not change; calibrate the experiment, and pack it"):
        calibrate(system, corpus, "greedy", {}, workers=0)


def test_a_system_of_phones_is_calibrated_on_phones(tiny_config, corpus, tmp_path, asr):
    lexicon = Lexicon({word: ((f"P{number}",),) for number, word in enumerate(WORDS)})
    units = tmp_path / "phones.json"
    save_tokenizer(phone_tokenizer(lexicon, WORDS), units)
    system = make_experiment(tmp_path / "exp", tiny_config(data={"tokenizer": str(units)}), units)
    status, out, err = asr("calibrate", system, corpus, "--method", "greedy", "--device", "cpu", "--workers", 0)
    assert status == 0, err
    assert "phones wrong" in out and "phone accuracy" in out and "; PER " in out
    assert "word" not in out and "WER" not in out
