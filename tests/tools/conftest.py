"""tools/ablations.py with a stand-in for asrtool."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import load_tool
from tests.tools.stub import ABLATION, STUB, calls


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool as a module, with the stand-in for asrtool."""
    module = load_tool("ablations", monkeypatch)
    import ablation_runs

    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "model.yaml").write_text("model: {layers: 2}\n")
    module.real_launcher = ablation_runs.launcher
    # -S: a Python without site-packages starts sooner.
    monkeypatch.setattr(ablation_runs, "launcher", lambda processes: [sys.executable, "-S", str(tmp_path / "stub.py")])
    monkeypatch.setattr(ablation_runs, "POLL_SECONDS", 0.01)
    return module


@pytest.fixture
def run(ablations: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> Callable[..., tuple]:
    """run(rest of the YAML text, options..., others=texts of further ablations) runs the tool.

    It returns exit status, stdout, stderr, and (variant, seed) of each training that was started.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(text: str, *options: str, others: Sequence[str] = ()) -> tuple:
        files = {"ablation": ABLATION + text} | {f"other{n}": ABLATION + other for n, other in enumerate(others)}
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        before = len(calls(tmp_path))
        paths = [str(tmp_path / f"{name}.yaml") for name in files]
        monkeypatch.setattr(sys, "argv", ["ablations.py", *paths, "--work", str(tmp_path), *options])
        status = ablations.main()
        out, err = capsys.readouterr()
        return status, out, err, [(variant, seed) for variant, seed, _ in calls(tmp_path)[before:]]

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
