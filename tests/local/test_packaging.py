"""What an editable installation imports, and that constraints.txt lists all that asrtool needs, with hashes."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# The extras that local/path.sh installs.
EXTRAS = ("recipes", "audio", "export", "serve", "microphone", "wandb", "mlflow", "tests", "docs")
BUILD = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The files of an editable installation of a clone called asrtool, which lies in the folder above."""
    above = tmp_path_factory.mktemp("above")
    clone, wheels, site = above / "asrtool", above / "wheels", above / "site"
    clone.mkdir()
    wheels.mkdir()
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    shutil.copytree(ROOT / "asrtool", clone / "asrtool", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, wheels], cwd=clone, check=True, capture_output=True)
    zipfile.ZipFile(next(wheels.glob("*.whl"))).extractall(site)
    return site


@pytest.fixture(scope="module")
def pins() -> dict[str, tuple[str, list[str]]]:
    """{name: (version, hashes)} of constraints.txt."""
    text = (ROOT / "constraints.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = (re.match(r"(\S+)==(\S+)", line).groups() + (re.findall(r"--hash=(\S+)", line),) for line in lines)
    return {canonicalize_name(name): (version, hashes) for name, version, hashes in pinned}


@pytest.mark.parametrize("folder", ["above", "clone", "elsewhere"])
def test_asrtool_is_imported_from_the_folder_above_the_clone_as_from_any_other(installed, tmp_path, folder):
    above = installed.parent
    script = f"import site; site.addsitedir({str(installed)!r}); import asrtool; print(asrtool.__version__)"
    where = {"above": above, "clone": above / "asrtool", "elsewhere": tmp_path}[folder]
    # -S: without the site-packages of the interpreter that runs the tests, where asrtool may be installed, too
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=where, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_constraints_fulfil_every_requirement_of_asrtool_and_of_what_it_needs(installed, pins):
    metadata = next(installed.glob("asrtool-*.dist-info")) / "METADATA"
    waiting = [
        (text, extra) for text in Parser().parsestr(metadata.read_text()).get_all("Requires-Dist") for extra in EXTRAS
    ]
    seen = set()
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if (text, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((text, extra))
        name = canonicalize_name(requirement.name)
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":  # the GPU libraries, which torch names exactly
            continue
        assert name in pins and requirement.specifier.contains(pins[name][0]), f"{text}: run tools/lock.sh"
        waiting += [
            (needed, extra) for needed in distribution(name).requires or [] for extra in ("", *requirement.extras)
        ]
    assert len(seen) > 60


def test_every_pin_has_hashes_and_the_build_tool_is_pinned_once(pins):
    assert all(
        hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes) for _, hashes in pins.values()
    )
    assert {"pytest", "pytest-xdist", "setuptools", "torch"} <= set(pins)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert build["requires"] == [f"setuptools=={pins['setuptools'][0]}"]


def test_constraints_say_how_they_are_made_and_name_no_index():
    text = (ROOT / "constraints.txt").read_text()
    assert "bash tools/lock.sh" in text.splitlines()[1]
    assert "://" not in text and "--index" not in text and "--find-links" not in text
