"""Scripts under tools/ as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load_tool(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """tools/NAME.py, importable by its name for as long as `patch` lasts; it may import its neighbours."""
    patch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
