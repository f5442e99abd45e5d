"""tools/arms.py with a stand-in for asrtool."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import load_tool
from tests.tools.stub import CLAIM, STUB, calls


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool as a module, with the stand-in for asrtool."""
    module = load_tool("arms", monkeypatch)
    import arms_run

    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "model.yaml").write_text("model: {layers: 2}\n")
    module.real_launcher = arms_run.launcher
    # -S: a Python without site-packages starts sooner.
    monkeypatch.setattr(arms_run, "launcher", lambda processes: [sys.executable, "-S", str(tmp_path / "stub.py")])
    monkeypatch.setattr(arms_run, "POLL", 0.01)
    return module


@pytest.fixture
def run(arms: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> Callable[..., tuple]:
    """run(rest of the claim, options..., others=those of others) -> exit status, stdout, stderr, (arm, seed) of each
    training started."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(text: str, *options: str, others: Sequence[str] = ()) -> tuple:
        claims = {"claim": CLAIM + text} | {f"other{n}": CLAIM + other for n, other in enumerate(others)}
        for name, claim in claims.items():
            (tmp_path / f"{name}.yaml").write_text(claim)
        before = len(calls(tmp_path))
        paths = [str(tmp_path / f"{name}.yaml") for name in claims]
        monkeypatch.setattr(sys, "argv", ["arms.py", *paths, "--work", str(tmp_path), *options])
        status = arms.main()
        out, err = capsys.readouterr()
        return status, out, err, [(arm, seed) for arm, seed, _ in calls(tmp_path)[before:]]

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
