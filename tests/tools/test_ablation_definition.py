"""The result of an expectation follows from the losses by the documented rules."""

import math

import pytest

from tests.tools.load import load_tool

INFINITE = math.inf  # the loss of a run that failed


@pytest.mark.parametrize(
    ("expected", "first", "second", "result"),
    [
        ("a < b", [1.0, 1.1, 1.0], [2.0, 2.2, 2.1], "supported"),
        ("a < b", [2.0, 2.2, 2.1], [1.0, 1.1, 1.0], "refuted"),
        ("a < b", [1.0, 1.1, 1.0], [1.1, 0.9, 1.1], "inconclusive"),
        ("a > b", [2.0, 2.2, 2.1], [1.0, 1.1, 1.0], "supported"),
        ("a < b", [1.0], [2.0], "inconclusive"),  # one seed has no interval
        ("a < b", [1.0, 1.0], [INFINITE, INFINITE], "supported"),  # the other failed each time
        ("a < b", [1.0, INFINITE], [INFINITE, 1.0], "inconclusive"),
        ("a < b", [INFINITE, INFINITE], [INFINITE, INFINITE], "inconclusive"),
        ("a = b within 10 %", [1.0, 1.01, 1.02], [1.02, 1.0, 1.01], "supported"),
        ("a = b within 1 %", [1.2, 1.21, 1.22], [1.0, 1.02, 1.01], "refuted"),
        ("a = b within 1 %", [1.0, 1.1, 1.2], [1.2, 1.0, 1.1], "inconclusive"),
        ("a < 2", [1.0, 1.9], [], "supported"),
        ("a < 2", [1.0, 2.1], [], "inconclusive"),
        ("a < 2", [2.1, 2.1], [], "inconclusive"),  # not to learn in a few steps proves nothing
        ("a < 2", [INFINITE, INFINITE], [], "refuted"),
        ("a > 2", [2.1, INFINITE], [], "supported"),
        ("a > 2", [1.0, 1.5], [], "refuted"),
        ("a > 2", [1.0, 2.5], [], "inconclusive"),
    ],
)
def test_the_result_follows_from_the_losses(
    monkeypatch: pytest.MonkeyPatch, expected: str, first: list[float], second: list[float], result: str
) -> None:
    module = load_tool("ablation_definition", monkeypatch)
    ablation = module.Ablation(
        name="A", hypothesis="", seeds=[1], conf="x", variants={"a": {}, "b": {}}, expect=[expected]
    )
    losses = {"a": dict(enumerate(first)), "b": dict(enumerate(second))}
    assert ablation.expectations[0].result(losses)[0] == result
