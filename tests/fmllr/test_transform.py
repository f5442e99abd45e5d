"""fMLLR: the estimate against a numerical optimum, recovery of a known transform, and smoothing."""

import pytest
import torch
from scipy.optimize import minimize

from asrtool.fmllr.gaussians import GaussianMixtures
from asrtool.fmllr.transform import (
    TransformStatistics,
    apply_transform,
    estimate_transform,
    identity_transform,
    log_likelihood_gain,
)

DIMS = 3


def mixtures_of(num_states: int = 8) -> GaussianMixtures:
    generator = torch.Generator().manual_seed(4)
    means = 3 * torch.randn(num_states, DIMS, generator=generator)
    variances = torch.rand(num_states, DIMS, generator=generator) + 0.3
    return GaussianMixtures(means, variances, torch.zeros(num_states), torch.arange(num_states), num_states)


def draw(mixtures: GaussianMixtures, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns frames (T, D) drawn from the mixtures, and the state of each."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randint(len(mixtures), (count,), generator=generator)
    noise = torch.randn(count, DIMS, generator=generator)
    return mixtures.means[states] + mixtures.variances[states].sqrt() * noise, states


def statistics_of(mixtures: GaussianMixtures, frames: torch.Tensor, states: torch.Tensor) -> TransformStatistics:
    sums = TransformStatistics.zeros(DIMS)
    sums.add(frames, *mixtures.expected_precisions(frames, states))
    return sums


def log_likelihood(mixtures: GaussianMixtures, transform: torch.Tensor, frames: torch.Tensor, states) -> torch.Tensor:
    """Returns the log-likelihood of transformed frames with their change of volume, by the definition."""
    moved = frames.double() @ transform[:, :-1].T + transform[:, -1]
    normal = torch.distributions.Normal(mixtures.means.double()[states], mixtures.variances.double()[states].sqrt())
    return normal.log_prob(moved).sum() + len(frames) * torch.linalg.slogdet(transform[:, :-1]).logabsdet


def test_the_estimate_is_the_optimum_that_a_general_optimiser_finds():
    mixtures = mixtures_of()
    frames, states = draw(mixtures, 300, seed=5)
    frames = frames * torch.tensor([1.3, 0.8, 1.1]) + 0.5 * frames[:, [1, 2, 0]] - 1.0
    sums = statistics_of(mixtures, frames, states)
    found = estimate_transform(sums, identity_transform(DIMS))

    def loss(values):
        transform = torch.tensor(values).reshape(DIMS, DIMS + 1).requires_grad_()
        value = -log_likelihood(mixtures, transform, frames, states) / len(frames)
        value.backward()
        return float(value), transform.grad.flatten().numpy()

    best = minimize(loss, identity_transform(DIMS).flatten().numpy(), jac=True, method="BFGS")
    reached = float(log_likelihood(mixtures, found, frames, states)) / len(frames)
    assert reached == pytest.approx(-best.fun, abs=1e-5)
    before = float(log_likelihood(mixtures, identity_transform(DIMS), frames, states)) / len(frames)
    assert log_likelihood_gain(sums, found) == pytest.approx(reached - before, abs=1e-4)


def test_a_known_transform_is_recovered():
    mixtures = mixtures_of()
    frames, states = draw(mixtures, 20_000, seed=6)
    known = identity_transform(DIMS) + 0.2 * torch.randn(DIMS, DIMS + 1, generator=torch.Generator().manual_seed(7))
    inverse = torch.linalg.inv(known[:, :-1]).float()
    spoken = (frames - known[:, -1].float()) @ inverse.T  # apply_transform(known, spoken) are the frames again
    assert torch.allclose(apply_transform(known, spoken), frames, atol=1e-4)
    found = estimate_transform(statistics_of(mixtures, spoken, states), identity_transform(DIMS))
    assert torch.allclose(found, known, atol=0.05)


def test_further_passes_never_lower_the_likelihood():
    mixtures = mixtures_of()
    frames, states = draw(mixtures, 500, seed=8)
    sums = statistics_of(mixtures, 1.5 * frames + 2.0, states)
    transform = identity_transform(DIMS)
    gain = 0.0
    for _ in range(3):
        transform = estimate_transform(sums, transform)
        assert log_likelihood_gain(sums, transform) >= gain - 1e-9
        gain = log_likelihood_gain(sums, transform)
    assert gain > 0.5


def test_smoothing_leads_to_the_identity_where_there_is_little_speech():
    mixtures = mixtures_of()
    average = statistics_of(mixtures, *draw(mixtures, 5000, seed=9))
    frames, states = draw(mixtures, 2000, seed=10)
    distances = []
    for count in (0, 10, 100, 2000):
        own = statistics_of(mixtures, 1.3 * frames[:count] + 1.0, states[:count]).smoothed(average, 200.0)
        assert own.num_frames == count + 200
        found = estimate_transform(own, identity_transform(DIMS))
        distances.append(float((found - identity_transform(DIMS)).norm()))
    assert distances[0] < 0.1  # the average frames are drawn at random
    assert distances == sorted(distances)
    assert distances[-1] > 0.5


def test_the_sums_do_not_depend_on_how_the_frames_are_divided():
    mixtures = mixtures_of()
    frames, states = draw(mixtures, 100, seed=11)
    whole = statistics_of(mixtures, frames, states)
    parts = TransformStatistics.zeros(DIMS)
    for part in (slice(0, 30), slice(30, 100)):
        parts.add(frames[part], *mixtures.expected_precisions(frames[part], states[part]))
    assert torch.allclose(parts.outer, whole.outer, rtol=1e-5)
    assert torch.allclose(parts.linear, whole.linear, rtol=1e-4, atol=1e-2)
    assert parts.num_frames == whole.num_frames == 100
