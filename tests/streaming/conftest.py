"""Fixtures that streaming shares with the tests of models and of decoding."""

from tests.decoding.conftest import experiment, stream_experiment
from tests.models.conftest import make_model, make_preset, streaming_kind, streaming_models

__all__ = ["experiment", "make_model", "make_preset", "stream_experiment", "streaming_kind", "streaming_models"]
