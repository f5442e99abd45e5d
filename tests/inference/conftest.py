"""Fixtures that inference shares with the tests of decoding."""

from tests.decoding.conftest import experiment, stream_experiment

__all__ = ["experiment", "stream_experiment"]
