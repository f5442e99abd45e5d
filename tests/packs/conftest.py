"""Fixtures that packs share with the tests of decoding."""

from tests.decoding.conftest import experiment, stream_experiment

__all__ = ["experiment", "stream_experiment"]
