"""Fixtures that deployment shares with the tests of models and of decoding."""

from tests.decoding.conftest import experiment, stream_experiment
from tests.models.conftest import kind, make_model, streaming_kind

__all__ = ["experiment", "kind", "make_model", "stream_experiment", "streaming_kind"]
