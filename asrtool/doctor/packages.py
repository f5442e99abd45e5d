"""Checks of Python, of the installed packages and of torch's build against what asrtool needs."""

import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from asrtool.doctor.findings import Finding, Severity
from asrtool.provenance import CHECKOUT
from asrtool.versions import LIBRARIES, installed_version

OLDEST_PYTHON = (3, 11)
K2_COMMAND = "bash tools/install_k2.sh"
# k2 1.24 is the first k2 that builds with a current torch. The package index has older ones: pip takes 1.23.4, whose
# wheel carries a wrong tag, for Python 3.11; it is built for Python 3.9 and asks for torch 1.13.1.
OLDEST_K2 = Version("1.24")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*(.+?))?\s*\\?$", re.MULTILINE)  # NAME==VERSION ; MARKER
K2_SECONDS = 120.0  # limit for importing k2, which takes some seconds
NVIDIA_SECONDS = 10.0  # limit for nvidia-smi, which can hang on a broken driver

OPTIONAL = {  # module: (what it is for, command that installs it)
    "av": ("m4a, mp4 and other containers, by FFmpeg", "pip install av"),
    "onnxruntime": ("`asrtool export` and fast speech detection", "pip install onnxruntime"),
    "espeakng_loader": ("the voices of egs/digits", "pip install espeakng-loader"),
    "k2": ("k2's decoder, lattices and losses on a GPU", K2_COMMAND),
}


def installed_versions() -> dict[str, str]:
    """Returns the version of every installed package by its canonical name, such as "kaldi-decoder"."""
    pairs = ((item.metadata["Name"], item.version) for item in importlib.metadata.distributions())
    return {canonicalize_name(name): version for name, version in pairs if name}


def asrtool_requirements() -> list[str]:
    """Returns the requirements of the installed asrtool, extras included; empty if it runs from a bare checkout."""
    try:
        return importlib.metadata.requires("asrtool") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def pinned_versions(path: Path = CHECKOUT / "constraints.txt") -> dict[str, str]:
    """Returns the exact versions that a constraints file lists for this Python; empty if there is no such file."""
    if not path.is_file():
        return {}
    pinned: dict[str, str] = {}
    for name, version, marker in PINNED.findall(path.read_text(encoding="utf-8")):
        if not marker or Requirement(f"{name}; {marker}").marker.evaluate():  # type: ignore[union-attr]
            pinned[canonicalize_name(name)] = version
    return pinned


def check_python(
    version: tuple[int, ...] = sys.version_info[:3], bits: int = sys.maxsize.bit_length() + 1
) -> Iterator[Finding]:
    """Yields findings about the interpreter: its version, and the size of its addresses in bits."""
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        remedy = "put a newer python3 first in PATH, delete .venv, and run `. local/path.sh` again"
        yield Finding("old-python", Severity.ERROR, f"Python {shown}", "asrtool needs Python 3.11 or newer", remedy)
    if bits < 64:
        cause = f"this Python is a {bits}-bit build, for which there is no torch"
        yield Finding("python-bits", Severity.ERROR, f"Python {shown}", cause, "install a 64-bit Python")


def check_requirements(requirements: Iterable[str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yields an error for each required package that is missing or has a version that does not fit.

    A package of an extra counts only if it is installed: it is then compared with its version range.
    """
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        is_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        yield from _check_requirement(requirement, installed, is_extra)


def _check_requirement(requirement: Requirement, installed: Mapping[str, str], is_extra: bool) -> Iterator[Finding]:
    version = installed.get(canonicalize_name(requirement.name))
    wanted = f"{requirement.name}{requirement.specifier}"
    if version is None:
        if not is_extra:
            yield Finding(
                "missing-package",
                Severity.ERROR,
                requirement.name,
                "the package is required, and is not installed",
                f"pip install '{wanted}'",
            )
    elif not requirement.specifier.contains(version, prereleases=True):
        cause = f"version {version} is installed, and asrtool needs {requirement.specifier}"
        yield Finding("wrong-version", Severity.ERROR, requirement.name, cause, f"pip install '{wanted}'")


def check_pinned(pinned: Mapping[str, str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yields a note on the packages whose version differs from the one that asrtool is tested with."""
    others = [
        f"{name}: {installed[name]} installed, {version} tested"
        for name, version in pinned.items()
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    ]
    if others:
        cause = "packages differ from the versions in constraints.txt, which asrtool is tested with"
        remedy = "delete .venv and run `. local/path.sh`, which installs the tested versions"
        yield Finding("untested-versions", Severity.NOTE, "packages", cause, remedy, len(others), tuple(others))


def check_k2(installed: Mapping[str, str], import_error: str | None = None) -> Iterator[Finding]:
    """Yields an error for the k2 that pip takes from the package index, and for a k2 that cannot be imported."""
    version = installed.get("k2")
    if version is None:
        return
    if _parsed(version) < OLDEST_K2:
        cause = f"version {version} is the broken wheel of the package index (built for Python 3.9 and torch 1.13.1)"
    elif import_error:
        cause = f"version {version} cannot be imported: {import_error}"
    else:
        return
    remedy = f"pip uninstall -y k2, then {K2_COMMAND}; without k2, graph search runs on the CPU"
    yield Finding("broken-k2", Severity.ERROR, "k2", cause, remedy)


def check_torchaudio(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yields a warning if torchaudio is of another release than torch: lhotse imports it, and the import may fail."""
    torch, torchaudio = installed.get("torch"), installed.get("torchaudio")
    if not torch or not torchaudio:
        return
    if _parsed(torch).release[:2] != _parsed(torchaudio).release[:2]:
        cause = f"version {torchaudio} does not fit torch {torch}, and asrtool does not need torchaudio"
        yield Finding("torchaudio-mismatch", Severity.WARNING, "torchaudio", cause, "pip uninstall -y torchaudio")


def check_torch_build(
    torch_version: str, cuda_version: str | None, gpus: list[str], usable_gpus: int
) -> Iterator[Finding]:
    """Yields findings if torch cannot use the GPUs of this machine.

    `gpus` are the names that the driver reports, `usable_gpus` the number that torch sees; `cuda_version` is the one
    that torch was built for, None for a build for the CPU.
    """
    if not gpus or usable_gpus:
        return
    subject = f"torch {torch_version}"
    if cuda_version is None:
        cause = f"this is a build for the CPU, and the machine has {len(gpus)} GPUs ({gpus[0]})"
        remedy = "delete .venv and run `. local/path.sh` where nvidia-smi works"
    else:
        cause = f"torch, built for CUDA {cuda_version}, sees none of the {len(gpus)} GPUs of the driver ({gpus[0]})"
        remedy = "update the NVIDIA driver, or install the torch build for the CUDA version that nvidia-smi shows"
    yield Finding("gpu-not-usable", Severity.ERROR, subject, cause, remedy)


def check_optional(is_importable=lambda module: importlib.util.find_spec(module) is not None) -> Iterator[Finding]:
    """Yields a note for each optional package that is not installed, with what it is for."""
    for module, (purpose, command) in OPTIONAL.items():
        if not is_importable(module):
            yield Finding(
                "optional-package", Severity.NOTE, module, f"the package is not installed; it is for {purpose}", command
            )


def driver_gpus() -> list[str]:
    """Returns the names of the GPUs that the NVIDIA driver reports; empty without a driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=NVIDIA_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def k2_import_error() -> str | None:
    """Returns why `import k2` fails, None if it works. It runs in a process of its own, since k2 may abort it."""
    command = [sys.executable, "-c", "import k2"]
    try:
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=K2_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it has not ended after {K2_SECONDS:.0f} s"
    if result.returncode == 0:
        return None
    return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]


def check_packages() -> Iterator[Finding]:
    """Yields the findings of all checks above, for this interpreter and this machine."""
    import torch

    installed = installed_versions()
    yield from check_python()
    yield from check_requirements(asrtool_requirements(), installed)
    yield from check_pinned(pinned_versions(), installed)
    yield from check_k2(installed, k2_import_error() if "k2" in installed else None)
    yield from check_torchaudio(installed)
    yield from check_torch_build(str(torch.__version__), torch.version.cuda, driver_gpus(), torch.cuda.device_count())
    yield from check_optional()


def package_facts() -> dict[str, str]:
    """Returns the versions of Python, asrtool and the main packages for the report."""
    import asrtool

    packages = [f"{name} {version}" for name in LIBRARIES if (version := installed_version(name))]
    return {
        "Python": f"{platform.python_version()}, {sys.executable}",
        "asrtool": f"{asrtool.__version__}, {CHECKOUT}",
        "packages": ", ".join(packages),
    }


def _parsed(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")
