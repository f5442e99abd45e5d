"""Fixtures that export shares with the tests of models."""

from tests.models.conftest import make_model, streaming_kind

__all__ = ["make_model", "streaming_kind"]
