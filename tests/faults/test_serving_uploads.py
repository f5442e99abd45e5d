"""What strangers may upload and ask for: nothing reads other files or addresses, gets past the token, or fails."""

import io
import itertools
import json
import socket
import tarfile
import threading
import zipfile
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

from tests.faults.commands import until
from tests.faults.serving import Server, tone_system, wav
from tests.faults.serving_clients import HANDSHAKE, HOST, Client
from tests.serve.page.tones import spoken
from tests.serve.running import http, open_stream, receive_all
from tests.tiny import RATE

__all__ = ["tone_system"]

TOKEN = "a-token.of_27~characters-ok"


@pytest.fixture(scope="module")
def server(tone_system, tmp_path_factory):
    with Server(tone_system, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with http(server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A recording on the server's disk that no upload may reach: its words are known."""
    path = tmp_path_factory.mktemp("secret") / "secret.wav"
    path.write_bytes(wav(spoken(["four", "four", "two"], 9)))
    return path


def playlists(path, port):
    """Files that name other files or addresses, for FFmpeg's demuxers."""
    addresses = [str(path), f"file:{path}", f"http://127.0.0.1:{port}/x.wav", f"tcp://127.0.0.1:{port}"]
    for address in addresses:
        yield f"ffconcat version 1.0\nfile '{address}'\n".encode()
        yield f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}\n#EXT-X-ENDLIST\n".encode()
        yield f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nconcat:{address}|{address}\n#EXT-X-ENDLIST\n".encode()
        yield f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n".encode()
        yield f'<?xml version="1.0"?><MPD><Period><BaseURL>{address}</BaseURL></Period></MPD>'.encode()
        yield f'<smil><body><audio src="{address}"/></body></smil>'.encode()
        yield f"[playlist]\nFile1={address}\nNumberOfEntries=1\n".encode()
        yield address.encode()


def archives():
    """A zip and a tar with a recording, and one that unpacks to a gigabyte."""
    content = wav(spoken(["one"], 1))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../x.wav", content)
        file.writestr("bomb.wav", bytes(100_000_000))
    yield packed.getvalue()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        entry = tarfile.TarInfo("../../x.wav")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    yield packed.getvalue()


class Listener:
    """A port that counts who connects."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            connection.close()


def test_uploads_read_no_other_file_and_no_address(client, secret):
    listener = Listener()
    names = ("x.m3u8", "x.ffconcat", "x.sdp", "x.mpd", "x.wav", f"{secret}", f"http://127.0.0.1:{listener.port}/")
    contents = itertools.chain(playlists(secret, listener.port), archives())
    for content, name in zip(contents, itertools.cycle(names)):
        answer = client.post(f"/v1/transcribe?name={quote(name, safe='')}", content=content)
        error = answer.json()["error"]
        assert answer.status_code == 415 and error["code"] == "unsupported_audio", (content[:200], answer.text)
        assert "\n" not in error["message"] and "asrtool-audio-" not in error["message"], error
        form = client.post("/v1/audio/transcriptions", files={"file": (name, content)}, data={"model": str(secret)})
        assert form.status_code == 415, form.text
    assert listener.count == 0
    listener.socket.close()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_truncated_and_damaged_files_are_recognised_or_refused(server, client, format):
    file = io.BytesIO()
    soundfile.write(file, spoken(["one", "two", "three"], 4), RATE, format=format)
    content = file.getvalue()
    draw = np.random.default_rng(1)
    for number in range(20):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = draw.integers(0, len(damaged) if number % 2 else 100, 10)
        damaged[places] = draw.integers(0, 256, 10)
        cut = damaged.tobytes()[: draw.integers(1, len(content))]
        answer = client.post("/v1/transcribe", content=cut)
        assert answer.status_code in (200, 413, 415), answer.text
        assert "asrtool-audio-" not in answer.text
    server.recognises()
    assert until(lambda: not list(server.temporary.iterdir()), 10)


NAMES = {
    "lines": "a\r\nX-Injected: 1\r\n\r\nb.wav",
    "a terminal": "\x1b[2J\x07x.wav",
    "another folder": "../../../etc/passwd",
    "Windows": "C:\\secret\\x.wav",
    "long": "x" * 5000 + ".wav",
    "NUL": "x\0y.wav",
    "right to left": "\u202egnp.wav",
    "surrogates": "%ED%A0%80.wav",
    "markup": "<script>alert(1)</script>.wav",
}


@pytest.mark.parametrize("format", ["json", "jsonl", "srt", "vtt", "txt"])
def test_names_of_files_change_nothing_but_the_name_that_is_shown(server, client, format):
    content = wav(spoken(["one", "two"], 4))
    expected = client.post(f"/v1/transcribe?format={format}", content=content)
    for name in NAMES.values():
        for answer in (
            client.post(f"/v1/transcribe?format={format}&name={quote(name)}", content=content),
            client.post(f"/v1/transcribe?format={format}", files={"file": (name, content)}),
        ):
            assert "x-injected" not in answer.headers and "\x1b" not in answer.text and "\0" not in answer.text
            if answer.status_code == 400 and len(name) > 1000:
                continue  # a form whose header is too long
            assert answer.status_code == 200, (name, answer.text)
            assert {**answer.headers, "content-length": 0, "date": 0} == {
                **expected.headers,
                "content-length": 0,
                "date": 0,
            }
            if format == "json":
                assert answer.json()["text"] == "one two" and len(answer.text) < len(expected.text) + 300
    assert "X-Injected" not in server.log and "\x1b" not in server.log and "passwd" not in server.log


@pytest.mark.parametrize(
    "query",
    [
        *("channel=" + text for text in ("-1", "64", "9" * 5000, "1e9", "0x10", "%00", "\u0663", "mix%0d%0a", "")),
        *("format=" + text for text in ("", "exe", "json%00", "../json", "json,srt", "x" * 10_000)),
    ],
)
def test_values_of_the_query_are_checked(client, query):
    answer = client.post(f"/v1/transcribe?{query}", content=b"x")
    if query == "channel=\u0663":
        assert answer.status_code in (415, 422)
    else:
        assert answer.status_code in (400, 422) and len(answer.text) < 1000, answer.text


FIELDS = [
    ("response_format", "x" * 1000),
    ("response_format", "\0"),
    ("stream", "perhaps"),
    ("timestamp_granularities[]", "phone"),
]


@pytest.mark.parametrize("field, value", FIELDS)
def test_values_of_forms_are_checked(client, field, value):
    files = {"file": ("x.wav", wav(spoken(["one"], 1)))}
    answer = client.post("/v1/audio/transcriptions", files=files, data={"model": "m", field: value})
    assert answer.status_code in (400, 422) and len(answer.text) < 1000, answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("/page/../limits.py", "/page/..%2flimits.py", "/page/%2e%2e/limits.py", "/page/..\\limits.py"),
        *("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/__init__.py", "/page/.", "/page/", "/page/%00"),
        *("/page/index.html%00.js", "/page/main.js/", "/page/MAIN.JS", "/page/file:%2f%2f%2fetc%2fpasswd"),
        *("/v1/models/..", "/v1/models/%2e%2e%2f", "//v1/model", "/v1//model", "/v1/model/"),
    ],
)
def test_paths_lead_nowhere_else(server, path):
    with Client(server.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n\r\n")
        answer = client.answer()
        assert answer.code == 404, answer.content
        assert b"import" not in answer.content and b"root:" not in answer.content


PATHS = [
    *("/metrics", "/v1/model", "/v1/models", "/v1/models/exp", "/v1/none"),
    *("/v1/transcribe", "/v1/audio/transcriptions"),
]
WRONG = [
    *(None, "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"),
    *("Bearer \xff\xfe", f"Bearer {TOKEN.upper()}"),
]


def test_nothing_is_served_without_the_token(tone_system, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with Server(tone_system, tmp_path, "--token-file", tmp_path / "token") as server, http(server.url) as client:
        for path, value in itertools.product(PATHS, WRONG):
            headers = {} if value is None else {"Authorization": value.encode("latin-1")}
            method = "POST" if "transcri" in path else "GET"
            answer = client.request(method, path, headers=headers, content=b"RIFF")
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer", (path, value)
        for path in ("/%76%31/model", "/v1/./model", "/v1/transcribe?token=" + TOKEN, "/metrics/"):
            assert client.get(path).status_code in (401, 404)
        wrong = [f"asrtool.token.{TOKEN[:-1]}", f"asrtool.token.{TOKEN}x", "asrtool.token.", TOKEN]
        for name in wrong:
            with open_stream(server.url, subprotocols=["asrtool", name]) as stream:
                (error,) = receive_all(stream)
                assert error["code"] == "unauthorized" and stream.close_code == 1008
                assert stream.subprotocol == "asrtool"
        with Client(server.port) as raw:
            raw.open_stream(b"Authorization: Bearer \xff\xfe\r\n")
            assert raw.answer().code == 1008
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/model", headers=right).status_code == 200
        assert client.post("/v1/transcribe", headers=right, content=wav(spoken(["one"], 1))).json()["text"] == "one"
        for path in ("/", "/health", "/ready", "/openapi.json", "/page/main.js"):
            assert client.get(path).status_code == 200
        assert TOKEN not in server.log and "Traceback" not in server.log


def test_tokens_are_compared_in_constant_time(monkeypatch):
    """Each comparison goes through hmac.compare_digest, with all bytes of both."""
    from asrtool.serve import access

    compared = []
    monkeypatch.setattr(access.hmac, "compare_digest", lambda *both: compared.append(both) or False)
    control = access.AccessControl(TOKEN, (), is_local=True)
    for given in (b"x", TOKEN.encode()):
        scope = {"type": "http", "headers": [(b"authorization", b"Bearer " + given)]}
        with pytest.raises(access.RequestError):
            control.require_token(scope)
    assert compared == [(b"x", TOKEN.encode()), (TOKEN.encode(), TOKEN.encode())]


ORIGINS = [
    *("http://evil.example", "null", "http://[", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", "file://"),
    *("", "http://127.0.0.1@evil.example"),
]


def test_web_pages_of_others_are_refused_everywhere(server):
    for origin in ORIGINS:
        header = f"Origin: {origin}\r\n".encode()
        for request in (
            HANDSHAKE,
            b"GET /v1/model HTTP/1.1\r\n" + HOST + b"\r\n",
            b"POST /v1/transcribe HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
        ):
            with Client(server.port) as client:
                client.send(request.replace(HOST, HOST + header))
                answer = client.answer()
                assert answer.code == 403, (origin, answer.content)
                body = answer.content.partition(b"\r\n\r\n")[2]
                assert json.loads(body)["error"]["code"] == "forbidden"
    for host in ("evil.example", "127.0.0.1.evil.example", "[", "", "127.0.0.1@evil.example"):
        with Client(server.port) as client:
            client.send(f"GET /v1/model HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert client.answer().code in (400, 403), host
    assert "Traceback" not in server.log and "ERROR" not in server.log, server.log[-2000:]
