"""The installer of k2 finds the wheel that fits; if there is none, it prints what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINUX, MAC = "manylinux_2_17_x86_64.manylinux2014_x86_64", "macosx_11_0_arm64"
WHEELS = [
    f"k2-{version}+{kind}.torch{torch}-{tag}-{tag}-{platform}.whl"
    for version in ("1.24.4.dev20250714", "1.24.4.dev20241127")
    for kind, torch in [("cpu", "2.7.1"), ("cpu", "2.7.10"), ("cuda12.6", "2.7.1"), ("cuda11.8", "2.7.1")]
    for tag in ("cp311", "cp312")
    for platform in (LINUX, MAC)
]
FAKE = """#!/usr/bin/env bash
case "$1 $2" in
"-c "*torch.version.cuda*) [ -s facts ] && cat facts ;;
"-c "*'version("k2")'*) cat k2 2>/dev/null ;;
"-m pip") echo "$*" >>pip; [ "$3" = uninstall ] && rm k2 || echo "${4#k2==} ${RESULT:-works}" >k2 ;;
*) exec "$REAL" "$@" ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """install("--install") -> the finished process, in a folder with page.html and a python3 that only pretends."""
    links = (f'<a href="https://example.org/{name.replace("+", "%2B")}">{name}</a><br/>' for name in WHEELS)
    (tmp_path / "page.html").write_text("\n".join(links), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(FAKE, encoding="utf-8")
    (tmp_path / "bin" / "python3").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(*options, facts="2.7.1 cpu cp311 linux_x86_64", page="page.html", **variables):
        (tmp_path / "facts").write_text(facts, encoding="utf-8")
        command = ["bash", str(ROOT / "tools" / "install_k2.sh"), *options, *(["--page", page] if page else [])]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
        environment |= {"PATH": path, "REAL": sys.executable, **variables}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    run.folder = tmp_path
    return run


@pytest.mark.parametrize(
    "facts, version",
    [
        ("2.7.1 cpu cp311 linux_x86_64", "1.24.4.dev20250714+cpu.torch2.7.1"),
        ("2.7.10 cpu cp312 linux_x86_64", "1.24.4.dev20250714+cpu.torch2.7.10"),
        ("2.7.1 12.6 cp311 linux_x86_64", "1.24.4.dev20250714+cuda12.6.torch2.7.1"),
        ("2.7.1 cpu cp311 macosx_14_0_arm64", "1.24.4.dev20250714+cpu.torch2.7.1"),
    ],
)
def test_the_newest_wheel_that_fits_is_named_and_nothing_is_installed(install, facts, version):
    done = install(facts=facts)
    assert (done.returncode, done.stdout) == (0, f"python3 -m pip install k2=={version} -f page.html\n")
    assert not (install.folder / "pip").exists()


def test_asked_to_it_installs(install):
    done = install("--install")
    assert done.returncode == 0 and "installed" in done.stderr.splitlines()[-1]
    pip = (install.folder / "pip").read_text().splitlines()
    assert pip == ["-m pip install k2==1.24.4.dev20250714+cpu.torch2.7.1 -f page.html"]


def test_a_k2_that_works_is_left_alone(install):
    (install.folder / "k2").write_text("1.24.4.dev20250714+cpu.torch2.7.1 works\n")
    done = install("--install")
    assert done.returncode == 0 and "nothing to do" in done.stderr
    assert not (install.folder / "pip").exists()


def test_the_wheel_of_the_package_index_has_to_go(install):
    (install.folder / "k2").write_text("1.23.4 broken\n")
    done = install()
    assert "k2 1.23.4 is installed but cannot be imported: it came from the package index" in done.stderr
    assert done.stdout.splitlines()[0] == "python3 -m pip uninstall --yes k2"
    assert install("--install").returncode == 0
    assert [line.split()[2] for line in (install.folder / "pip").read_text().splitlines()] == ["uninstall", "install"]


def test_an_installation_that_cannot_be_imported_is_an_error(install):
    done = install("--install", RESULT="broken")
    assert done.returncode == 2 and "cannot be imported" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "facts", ["2.13.0 cpu cp311 linux_x86_64", "2.7.1 13.0 cp311 linux_x86_64", "2.7.1 cpu cp311 linux_aarch64"]
)
def test_without_a_wheel_the_ways_out_are_said(install, facts):
    done = install("--install", facts=facts)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no wheel on page.html" in done.stderr and "build k2 from its source" in done.stderr.splitlines()[-1]
    assert not (install.folder / "pip").exists()


@pytest.mark.parametrize(
    "options, settings, message",
    [
        ([], {"facts": ""}, "python3 cannot import torch; install it first"),
        ([], {"page": "none.html"}, "cannot read none.html"),
        ([], {"page": "pip.html"}, "pip.html lists no wheels of k2"),
        (["--instal"], {"page": ""}, "unknown option --instal"),
        (["--page"], {"page": ""}, "--page needs a value"),
    ],
)
def test_an_error_is_the_last_line_with_status_2(install, options, settings, message):
    (install.folder / "pip.html").write_text("nothing here")
    done = install(*options, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "page", ["http://k2.example/cpu.html", "ftp://k2.example/x", "HTTP://k2.example/x", "data://x,k2"]
)
def test_a_page_that_does_not_come_by_https_is_refused(install, page):
    done = install("--install", page=page)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        f"install_k2.sh: error: --page {page}: only https://, file:// or a file"
    )


def test_a_page_of_a_file_may_be_a_url_and_its_name_may_have_spaces(install):
    version = "1.24.4.dev20250714+cpu.torch2.7.1"
    page = (install.folder / "page.html").rename(install.folder / "my page;touch PWNED.html")
    done = install("--install", page=page.name)
    assert done.stdout == f"python3 -m pip install k2=={version} -f my\\ page\\;touch\\ PWNED.html\n"
    assert (install.folder / "pip").read_text() == f"-m pip install k2=={version} -f {page.name}\n"
    (install.folder / "k2").unlink()
    url = page.as_uri()
    assert install(page=url).stdout == f"python3 -m pip install k2=={version} -f {url}\n"
    assert not (install.folder / "PWNED").exists()


@pytest.mark.parametrize(
    "evil", ["$(touch PWNED)", ";touch PWNED;", "`touch${IFS}PWNED`", "|touch", "*", "a b", "'x'", "\\n\t"]
)
def test_what_a_page_says_reaches_no_shell_and_no_printed_command(install, evil):
    names = [
        f"k2-9.9{evil}+cpu.torch2.7.1-cp311-cp311-{LINUX}.whl",
        f"k2-{evil}9.9+cpu.torch2.7.1-cp311-cp311-{LINUX}.whl",
    ]
    (install.folder / "evil.html").write_text("\n".join(f'<a href="{name}">{name}</a>' for name in names))
    done = install("--install", page="evil.html")
    assert (done.returncode, done.stdout) == (2, "") and "touch" not in done.stderr
    assert not (install.folder / "PWNED").exists() and not (install.folder / "pip").exists()


def test_a_page_without_hashes_is_said_and_one_with_a_hash_is_not(install):
    assert "has no hash of k2-1.24.4.dev20250714+cpu.torch2.7.1-cp311" in install().stderr
    page = install.folder / "page.html"
    page.write_text(page.read_text().replace('.whl"', f'.whl#sha256={"0" * 64}"'))
    done = install()
    assert done.returncode == 0 and "has no hash" not in done.stderr


def test_help_says_how_it_is_used(install):
    done = install("--help", page="")
    assert done.returncode == 0 and "bash tools/install_k2.sh --install" in done.stdout and "#" not in done.stdout
