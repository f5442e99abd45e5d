"""asrtool: Transformer acoustic models for large-scale speech recognition.

The Python interface (docs/python.md):

    import asrtool

    model = asrtool.load("exp/mine")
    print(model.transcribe("talk.mp3").text)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asrtool.inference.model import Model, load
    from asrtool.inference.results import Alternative, Segment, Transcript, Word

__version__ = "0.1.0"

# The names of the Python interface, and their modules: these import torch, which takes seconds, so they are imported
# when a name is used for the first time.
_MODULES = {
    "load": "asrtool.inference.model",
    "Model": "asrtool.inference.model",
    "Alternative": "asrtool.inference.results",
    "Segment": "asrtool.inference.results",
    "Transcript": "asrtool.inference.results",
    "Word": "asrtool.inference.results",
}
__all__ = ["Alternative", "Model", "Segment", "Transcript", "Word", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Returns a name of the Python interface (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns all names, also of what was not imported yet."""
    return sorted({*globals(), *_MODULES})
