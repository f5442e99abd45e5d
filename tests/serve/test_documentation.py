"""docs/serving.md: its programs and commands work, and its tables agree with the code."""

import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import soundfile

from asrtool.serve.errors import KINDS
from asrtool.serve.limits import Limits
from tests.docs.pages import ROOT, blocks
from tests.serve.running import http
from tests.tiny import RATE

PAGE = ROOT / "docs/serving.md"
ADDRESS = "127.0.0.1:8750"


@pytest.fixture(scope="module")
def folder(sound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    soundfile.write(folder / "talk.wav", sound(3.0), RATE, subtype="PCM_16")
    return folder


def here(text, url):
    assert ADDRESS in text
    return text.replace(ADDRESS, url.removeprefix("http://"))


def test_the_client_prints_the_words(upload_server, model, folder):
    (program,) = [block.text for block in blocks(PAGE, ("python",)) if "websockets" in block.text]
    command = [sys.executable, "-c", here(program, upload_server.url)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    samples, _ = soundfile.read(folder / "talk.wav", dtype="int16")
    expected = [result.text for result in model.stream().results([samples]) if result.is_final]
    assert done.stdout.splitlines() == expected and expected[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_curl_give_the_words(upload_server, model, folder):
    (commands,) = [block.text for block in blocks(PAGE) if "curl" in block.text]
    first = model.transcribe(folder / "talk.wav").words[0].text
    for command in commands.strip().splitlines():
        done = subprocess.run(["bash", "-c", here(command, upload_server.url)], cwd=folder, capture_output=True)
        assert done.returncode == 0 and first.encode() in done.stdout, (command, done)


def test_the_table_of_limits_is_complete():
    section = PAGE.read_text(encoding="utf-8").partition("## Limits")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", section, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == {name: float(v) for name, v in asdict(Limits()).items()}


def test_the_metrics_and_codes_are_described(upload_server):
    text = PAGE.read_text(encoding="utf-8")
    with http(upload_server.url) as client:
        names = re.findall(r"^# TYPE (asrtool_\w+) (\w+)$", client.get("/metrics").text, re.MULTILINE)
    names = [name for name, kind in names if not name.endswith("_created")]
    assert len(names) > 10 and not [name for name in names if f"`{name}`" not in text]
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}|) \| (\d{4}|) \|", text.partition("## Protocol")[2], re.MULTILINE)
    assert sorted(code for code, *_ in rows) == sorted(KINDS)
    for code, status, close in rows:
        assert status in ("", str(KINDS[code].status)) and close in ("", str(KINDS[code].close)) and status + close
