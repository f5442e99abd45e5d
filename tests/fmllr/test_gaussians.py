"""Gaussian mixtures: likelihoods against scipy, EM that never lowers the likelihood, splits and removals."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from asrtool.fmllr.gaussians import MIN_FRAMES, GaussianMixtures


@pytest.fixture
def mixtures() -> GaussianMixtures:
    """Five Gaussians of three states, in no order."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(5, 2, generator=generator)
    variances = torch.rand(5, 2, generator=generator) + 0.5
    weights = torch.tensor([0.25, 1.0, 0.75, 0.4, 0.6])
    return GaussianMixtures(means, variances, weights.log(), torch.tensor([2, 0, 2, 1, 1]), 3)


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randn(50, 2, generator=torch.Generator().manual_seed(2))


def test_log_likelihoods_are_those_of_scipy(mixtures, frames):
    expected = [
        multivariate_normal(mean.numpy(), np.diag(variance.numpy())).logpdf(frames.numpy()) + float(weight)
        for mean, variance, weight in zip(mixtures.means, mixtures.variances, mixtures.log_weights, strict=True)
    ]
    assert np.allclose(mixtures.log_likelihoods(frames).T, expected, atol=1e-4)
    chosen = torch.tensor([3, 1])
    assert torch.allclose(mixtures.log_likelihoods(frames, chosen), mixtures.log_likelihoods(frames)[:, chosen])


def test_the_likelihood_of_a_state_is_that_of_its_best_gaussian(mixtures, frames):
    values = mixtures.log_likelihoods(frames)
    expected = torch.stack([values[:, mixtures.states == state].amax(1) for state in range(3)], dim=1)
    assert torch.allclose(mixtures.state_log_likelihoods(frames), expected)


def test_expected_precisions_follow_the_posteriors(mixtures, frames):
    states = torch.arange(50) % 3
    posteriors = mixtures.log_likelihoods(frames).masked_fill(mixtures.states != states[:, None], -torch.inf).softmax(1)
    precisions, products = mixtures.expected_precisions(frames, states)
    assert torch.allclose(precisions, posteriors @ (1 / mixtures.variances), atol=1e-5)
    assert torch.allclose(products, posteriors @ (mixtures.means / mixtures.variances), atol=1e-5)


def test_em_never_lowers_the_likelihood_and_splits_reach_the_target():
    generator = torch.Generator().manual_seed(3)
    frames = torch.cat([torch.randn(400, 3, generator=generator) + 4 * centre for centre in (-1, 0, 1)])
    states = torch.arange(1200) % 2
    mixtures = GaussianMixtures.of_frames(frames, 2)
    floor = torch.full((3,), 1e-3)
    posteriors = mixtures.update(mixtures.statistics(frames, states), floor)
    for target in (2, 4, 6):
        mixtures.split(target, posteriors)
        assert len(mixtures) == target
        before = -np.inf
        for _ in range(10):
            sums = mixtures.statistics(frames, states)
            assert sums.log_likelihood >= before - 1e-2
            before = sums.log_likelihood
            posteriors = mixtures.update(sums, floor)
    centres = mixtures.means[mixtures.states == 0].mean(1).sort().values
    assert torch.allclose(centres, torch.tensor([-4.0, 0.0, 4.0]), atol=0.5)
    for state in range(2):
        assert float(mixtures.log_weights[mixtures.states == state].exp().sum()) == pytest.approx(1)


def test_rare_gaussians_go_but_a_state_keeps_its_last_one(mixtures):
    frames = mixtures.means[torch.tensor([0] * 100 + [2] * 3)]  # both of state 2; states 0 and 1 have no frame
    sums = mixtures.statistics(frames, torch.full((103,), 2))
    assert float(sums.posteriors[2]) < 100
    kept = mixtures.means[1].clone()
    mixtures.update(sums, torch.full((2,), 0.01))
    assert set(mixtures.states.tolist()) == {0, 1, 2}
    assert torch.equal(mixtures.means[mixtures.states == 0][0], kept)  # without frames its parameters stay
    assert (mixtures.variances >= 0.01 - 1e-6).all()


def test_no_state_is_split_beyond_its_frames():
    mixtures = GaussianMixtures.of_frames(torch.randn(100, 2), 2)
    mixtures.split(50, torch.tensor([2 * MIN_FRAMES, 2 * MIN_FRAMES * 10], dtype=torch.float64))
    assert torch.bincount(mixtures.states).tolist() == [1, 10]
