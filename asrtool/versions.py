"""The versions of asrtool, of Python and of the libraries that results depend on, read without importing them."""

import platform
from importlib.metadata import PackageNotFoundError, version

import asrtool
from asrtool.provenance import CHECKOUT, describe_provenance, git_state

# In the order of a recording's way through the system; k2 is optional.
LIBRARIES = (
    *("torch", "lhotse", "soundfile", "soxr", "av", "numpy", "sentencepiece", "pydantic", "click"),
    *("kaldifst", "kaldilm", "kaldi-decoder", "k2", "kaldialign", "onnxruntime"),
)


def installed_version(package: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def version_of(package: str) -> str:
    """Returns the version of an installed package, or "not installed"."""
    return installed_version(package) or "not installed"


def version_lines() -> list[str]:
    """Returns a line for asrtool with the commit that is checked out, for Python, and for each library."""
    git = git_state(CHECKOUT)
    commit = f" ({describe_provenance({'git': git})})" if git else ""
    rows = [("python", platform.python_version()), *((name, version_of(name)) for name in LIBRARIES)]
    return [f"asrtool {asrtool.__version__}{commit}", *(f"{name:14} {number}" for name, number in rows)]
