"""Fixtures that live recognition shares with the tests of decoding."""

from tests.decoding.conftest import stream_experiment

__all__ = ["stream_experiment"]
