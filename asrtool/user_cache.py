"""The folder of the user's cache: what can be computed again, and saves time when it is there."""

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Returns the folder for what can be computed again: $XDG_CACHE_HOME/asrtool, or ~/.cache/asrtool.

    Returns None for a user without a home folder, as in a container with a user id of its own: nothing is kept then.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "asrtool"
    try:
        return Path.home() / ".cache" / "asrtool"
    except RuntimeError:
        return None
