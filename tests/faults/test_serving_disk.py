"""A full disk, where uploads are stored or where audio is kept, is a clear error to those concerned and to no other."""

import resource
import shutil

import numpy as np
import pytest

from tests.faults.commands import until
from tests.faults.serving import GoodStream, Server, said, tone_system, wav
from tests.faults.test_disk import fill
from tests.serve.page.tones import spoken
from tests.serve.running import http

__all__ = ["tone_system"]

pytestmark = pytest.mark.slow


def posts(url, content):
    """The answers to an upload as a body, as a form, and as a form of OpenAI."""
    files = {"file": ("talk.wav", content)}
    with http(url) as client:
        yield client.post("/v1/transcribe", content=content)
        yield client.post("/v1/transcribe", files=files)
        yield client.post("/v1/audio/transcriptions", files=files, data={"model": "any"})


@pytest.mark.parametrize("left", [0, 300_000])
def test_a_full_disk_refuses_uploads_and_harms_no_stream(tone_system, tmp_path, mount, left):
    disk = mount("8m")
    content = wav(np.concatenate([spoken(["one", "two"] * 20, 3)] * 4))  # 2.5 MB
    with Server(tone_system, tmp_path, TMPDIR=str(disk)) as server, GoodStream(server.url):
        for answer in posts(server.url, content):
            assert answer.status_code == 200, answer.text
        fill(disk, left)
        for _ in range(2):
            for answer in posts(server.url, content):
                error = answer.json()["error"]
                assert answer.status_code in (503, 507) and error["code"] == "disk_full", answer.text
                assert "space" in error["message"] and "\n" not in error["message"]
                assert str(disk) not in error["message"]  # a client need not know
        assert said(server.url, spoken(["three", "two"], 5)) == "three two"
        assert [path.name for path in disk.iterdir()] == ["other"]
        (disk / "other").unlink()
        for answer in posts(server.url, content):
            assert answer.status_code == 200, answer.text
        server.recognises()
    assert "Traceback" not in server.log


@pytest.mark.parametrize("left", [0, 20_000, 60_000])
def test_a_full_disk_ends_what_is_kept_and_harms_neither_streams_nor_uploads(tone_system, tmp_path, mount, left):
    disk = mount("4m")
    with Server(tone_system, tmp_path, "--keep-audio", disk / "kept") as server:
        server.recognises()
        kept = {path.suffix for path in (disk / "kept").iterdir()}
        assert kept == {".wav", ".json", ".audio"}
        fill(disk, left)
        with GoodStream(server.url):  # its audio is more than what is left
            assert until(lambda: shutil.disk_usage(disk).free < 4096, 20) or left
            server.recognises()
            server.recognises()
        (disk / "other").unlink()
        assert until(server.is_idle, 60)  # what is kept is written after the last message
        before = len(list((disk / "kept").iterdir()))
        server.recognises()
        assert until(server.is_idle, 60)
        assert len(list((disk / "kept").iterdir())) == before + 4
    assert "--keep-audio" in server.log and "space" in server.log
    assert "Traceback" not in server.log, server.log
    assert not [path for path in (disk / "kept").iterdir() if path.name.startswith(".tmp")]


def test_a_folder_that_vanishes_or_cannot_be_written_harms_no_stream(tone_system, tmp_path):
    kept = tmp_path / "kept"
    with Server(tone_system, tmp_path, "--keep-audio", kept) as server:
        shutil.rmtree(kept)
        kept.write_text("a file, not a folder")
        server.recognises()
        assert "--keep-audio" in server.log and "Traceback" not in server.log, server.log


def test_files_larger_than_allowed_are_refused(tone_system, tmp_path):
    """As under `ulimit -f`: SIGXFSZ must not end the server."""
    content = wav(np.concatenate([spoken(["one"] * 40, 3)] * 4))
    with Server(tone_system, tmp_path) as server:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        for answer in posts(server.url, content):
            assert answer.status_code in (503, 507), answer.text
            assert answer.json()["error"]["code"] == "disk_full"
        server.recognises()
