"""Logistic regression with weights that may be bounded below by zero."""

from collections.abc import Sequence

import numpy as np

from asrtool.decoding.calibration import MAX_WEIGHT

# Standard deviation of the Gaussian prior of the weights, whose usual values are below 1: it decides only where the
# data cannot, such as for a feature that is always the same.
PRIOR_DEVIATION = 3.0


def fit_logistic(values: np.ndarray, targets: np.ndarray, may_be_negative: Sequence[bool]) -> tuple[float, list[float]]:
    """Returns intercept and weights of the logistic regression of `targets` (N,) on `values` (N, F).

    Targets are outcomes (0 or 1), or shares between them (Papke and Wooldridge 1996). It minimises the cross-entropy,
    with a Gaussian prior of PRIOR_DEVIATION on the weights; weights are not negative unless `may_be_negative` (F,).
    """
    from scipy.optimize import minimize

    shares = np.asarray(targets, dtype=np.float64)
    design = np.column_stack([np.ones(len(values)), values])  # (N, 1 + F)
    precision = np.full(design.shape[1], PRIOR_DEVIATION**-2)
    precision[0] = 0.0

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = design @ parameters
        nats = (np.logaddexp(0.0, logits) - shares * logits).sum() + 0.5 * (precision * parameters**2).sum()
        slopes = np.exp(-np.logaddexp(0.0, -logits)) - shares
        return nats, design.T @ slopes + precision * parameters

    bounds = [(-MAX_WEIGHT, MAX_WEIGHT)]
    bounds += [(-MAX_WEIGHT if negative else 0.0, MAX_WEIGHT) for negative in may_be_negative]
    solution = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    intercept, *weights = np.round(solution.x, 6).tolist()
    return intercept, weights
