"""A fixture that writes configuration files, and the error line of one that is refused."""

from pathlib import Path

import pytest

from asrtool.config_file import load_config
from asrtool.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Puts text into a YAML file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def error_of(path, *overrides) -> str:
    """Returns the error line of loading a configuration; it names the file."""
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)
