"""What a claim expects is decided by the figures alone, by the rules that it states."""

import math

import pytest

from tests.tools.load import load_tool

INFINITE = math.inf  # the loss of a run that failed


@pytest.mark.parametrize(
    ("expected", "first", "second", "verdict"),
    [
        ("a < b", [1.0, 1.1, 1.0], [2.0, 2.2, 2.1], "confirmed"),
        ("a < b", [2.0, 2.2, 2.1], [1.0, 1.1, 1.0], "contradicted"),
        ("a < b", [1.0, 1.1, 1.0], [1.1, 0.9, 1.1], "not confirmed at this scale"),
        ("a > b", [2.0, 2.2, 2.1], [1.0, 1.1, 1.0], "confirmed"),
        ("a < b", [1.0], [2.0], "not confirmed at this scale"),  # one seed has no interval
        ("a < b", [1.0, 1.0], [INFINITE, INFINITE], "confirmed"),  # the other failed each time
        ("a < b", [1.0, INFINITE], [INFINITE, 1.0], "not confirmed at this scale"),
        ("a < b", [INFINITE, INFINITE], [INFINITE, INFINITE], "not confirmed at this scale"),
        ("a = b within 10 %", [1.0, 1.01, 1.02], [1.02, 1.0, 1.01], "confirmed"),
        ("a = b within 1 %", [1.2, 1.21, 1.22], [1.0, 1.02, 1.01], "contradicted"),
        ("a = b within 1 %", [1.0, 1.1, 1.2], [1.2, 1.0, 1.1], "not confirmed at this scale"),
        ("a < 2", [1.0, 1.9], [], "confirmed"),
        ("a < 2", [1.0, 2.1], [], "not confirmed at this scale"),
        ("a < 2", [2.1, 2.1], [], "not confirmed at this scale"),  # not to learn in a few steps proves nothing
        ("a < 2", [INFINITE, INFINITE], [], "contradicted"),
        ("a > 2", [2.1, INFINITE], [], "confirmed"),
        ("a > 2", [1.0, 1.5], [], "contradicted"),
        ("a > 2", [1.0, 2.5], [], "not confirmed at this scale"),
    ],
)
def test_verdict_follows_from_the_figures(
    monkeypatch: pytest.MonkeyPatch, expected: str, first: list[float], second: list[float], verdict: str
) -> None:
    arms = load_tool("arms_claim", monkeypatch)
    claim = arms.Claim(name="A", claim="", seeds=[1], conf="x", arms={"a": {}, "b": {}}, expect=[expected])
    losses = {"a": dict(enumerate(first)), "b": dict(enumerate(second))}
    assert claim.expectations[0].verdict(losses)[0] == verdict
