"""Runs the steps of the Containerfile in a bare folder, where no tool for containers is available.

    python3 tools/run_containerfile.py /tmp/image
    python3 tools/run_containerfile.py /tmp/image --run "bash tests/run.sh"

The folder stands for the root of the image: absolute paths of WORKDIR, COPY and ENV lie below it. COPY takes the files
that git tracks. RUN steps see no variable of this shell other than PATH, HOME and TMPDIR, and the Python of this
machine stands for the base image; steps that install system packages are printed and left out.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_PACKAGES = "apt-get "
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yields keyword and arguments of each instruction, with continued lines joined, and without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, arguments = line.strip().partition(" ")
            yield keyword.upper(), arguments.strip()


class BareFolder:
    """A folder that stands for the root of an image, and the state that instructions change."""

    def __init__(self, root: Path):
        self.root = root
        self.workdir = root
        self.checkout = root  # where the whole checkout was copied to
        self.shell = ["/bin/sh", "-c"]
        self.environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}

    def inside(self, path: str) -> Path:
        """Returns where a path of the image lies; relative ones start in the working folder."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.workdir / path

    def run(self, command: str) -> None:
        """Runs a shell command in the working folder. Raises CalledProcessError if it fails."""
        subprocess.run([*self.shell, command], cwd=self.workdir, env=self.environment, check=True)

    def apply(self, keyword: str, arguments: str) -> None:
        """Carries out one instruction. Raises ValueError for a keyword that is not known here."""
        if keyword == "SHELL":
            self.shell = json.loads(arguments)
        elif keyword == "WORKDIR":
            self.workdir = self.inside(arguments)
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif keyword == "ENV":
            name, _, value = arguments.partition("=")
            self.environment[name] = self._expand(value)
        elif keyword == "COPY":
            *sources, target = shlex.split(arguments)
            self._copy(sources, self.inside(target))
            self.checkout = self.inside(target)
        elif keyword == "RUN" and SYSTEM_PACKAGES in arguments:
            print(f"    left out: {arguments}")
        elif keyword == "RUN":
            self.run(arguments)
        elif keyword not in ("FROM", "ENTRYPOINT"):
            raise ValueError(f"the Containerfile has {keyword}, which this script does not know")

    def _expand(self, value: str) -> str:
        """Returns the value of ENV with variables replaced, and paths of the image as paths of the folder."""
        parts = [str(self.inside(part)) if part.startswith("/") else part for part in value.split(":")]
        return re.sub(r"\$(\w+)", lambda match: self.environment.get(match[1], ""), ":".join(parts))

    def _copy(self, sources: list[str], target: Path) -> None:
        """Copies tracked files: a folder's content, or files, as COPY does."""
        for source in sources:
            listed = subprocess.run(["git", "ls-files", "-z", source], cwd=ROOT, capture_output=True, check=True)
            names = [name for name in listed.stdout.decode().split("\0") if name]
            if not names:
                raise ValueError(f"COPY {source}: git tracks no such file")
            for name in names:
                below = os.path.relpath(name, source) if (ROOT / source).is_dir() else Path(name).name
                (target / below).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / below)


def main() -> None:
    """Parses the command line and runs the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new or empty folder that stands for the root of the image")
    parser.add_argument("--run", help="shell command to run in the image afterwards, in the folder of the checkout")
    options = parser.parse_args()
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty; give a new folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    image = BareFolder(options.folder.resolve())
    for keyword, arguments in instructions((ROOT / "Containerfile").read_text(encoding="utf-8")):
        start = time.monotonic()
        print(f"{keyword} {arguments}", flush=True)
        image.apply(keyword, arguments)
        print(f"    {time.monotonic() - start:.1f} s", flush=True)
    if options.run:
        image.workdir = image.checkout
        image.run(options.run)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"run_containerfile.py: error: {error}")
