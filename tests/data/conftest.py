"""What the tests of manifests share: recordings, and a path for a new manifest."""

import pytest


@pytest.fixture
def audio(tmp_path, write_audio):
    """audio(name, ...) writes a recording as `write_audio` does and returns its path as text."""
    return lambda name, *args, **options: str(write_audio(tmp_path / "audio" / name, *args, **options))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "manifests" / "cuts.jsonl.gz"
