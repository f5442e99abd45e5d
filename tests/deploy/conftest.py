"""Fixtures that the export shares with the tests of models."""

from tests.models.conftest import kind, make_model, streaming_kind

__all__ = ["kind", "make_model", "streaming_kind"]
