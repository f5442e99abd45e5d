"""The folder of the user's cache: what can be computed again, and saves time when it is there."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Returns the folder for what can be computed again: $XDG_CACHE_HOME/asrtool, or ~/.cache/asrtool."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asrtool"
