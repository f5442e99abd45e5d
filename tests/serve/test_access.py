"""Who may use the server: tokens, web pages of other servers, TLS; and the headers of answers."""

import logging
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import replace

import pytest

from asrtool.errors import UserError
from asrtool.serve.access import read_token
from asrtool.serve.openapi import schema
from tests.serve.running import NO_UPLOADS, WAIT, finals, http, open_stream, pcm16, receive_all, served, speak

TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def guarded(stream_experiment):
    with served(stream_experiment, limits=NO_UPLOADS, token=TOKEN, origins=("https://example.org",)) as running:
        yield running.url


def test_the_token_is_needed_for_everything_that_recognises(guarded, sound):
    with http(guarded) as client:
        for path in ("/health", "/ready", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/v1/model", "/v1/models", "/metrics", "/v1/nothing"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/model").headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/transcribe", content=b"x").status_code == 401
        assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    options = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
    assert finals(speak(guarded, pcm16(sound(1.0)), options=options))
    options = {"subprotocols": ["asrtool", f"asrtool.token.{TOKEN}"]}
    assert finals(speak(guarded, pcm16(sound(1.0)), options=options))


@pytest.mark.parametrize("protocols", [None, ["asrtool"], ["asrtool", "asrtool.token.wrong"]])
def test_a_stream_without_the_token_is_refused(guarded, protocols):
    with open_stream(guarded, subprotocols=protocols) as stream:
        (error,) = receive_all(stream)
        assert error["code"] == "unauthorized" and stream.close_code == 1008
        assert stream.subprotocol == (protocols and "asrtool")


def test_web_pages_of_other_servers_are_refused(server, guarded):
    with http(server.url) as client:
        own = {"Origin": server.url}
        assert client.get("/v1/model", headers=own).status_code == 200
        for origin in ("https://example.org", "null", "http://127.0.0.1:1"):
            assert client.get("/v1/model", headers={"Origin": origin}).status_code == 403
            assert client.post("/v1/transcribe", headers={"Origin": origin}, content=b"x").status_code == 403
            with pytest.raises(Exception, match="403"):
                open_stream(server.url, origin=origin)
        assert client.get("/v1/model", headers={"Host": "rebound.example.org:80"}).status_code == 403
        assert client.get("/v1/model", headers={"Host": "localhost"}).status_code == 200
    with http(guarded) as client:
        headers = {"Origin": "https://example.org", "Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/model", headers=headers).status_code == 200


def test_answers_have_headers_against_misuse(server):
    with http(server.url) as client:
        for path in ("/health", "/nothing", "/v1/model", "/metrics"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
            assert "default-src" in headers["content-security-policy"] and "server" not in headers
        page = client.get("/")
        assert page.status_code == 200 and "default-src" in page.headers["content-security-policy"]
        for path in ("/page/../__init__.py", "/page/__init__.py", "/page/%2e%2e%2flimits.py"):
            assert client.get(path).status_code == 404


def test_a_token_file_is_checked(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    for text in ("", "short", "has spaces in the middle", "a" * 600, "ümlaut-ümlaut-ümlaut"):
        path.write_text(text)
        with pytest.raises(UserError, match="no token"):
            read_token(path)
    with pytest.raises(UserError, match="not found"):
        read_token(tmp_path / "none")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_tls_encrypts_streams_and_requests(stream_experiment, sound, tmp_path, caplog):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-out", cert, "-keyout", key]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    limits = replace(NO_UPLOADS, header_seconds=1.0)
    with served(stream_experiment, limits=limits, tls_cert=cert, tls_key=key) as running:
        context = ssl.create_default_context(cafile=str(cert))
        assert running.url.startswith("https://")
        with http(running.url, verify=context) as client:
            assert client.get("/ready").status_code == 200
        assert finals(speak(running.url, pcm16(sound(1.0)), options={"ssl": context}))
        with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), WAIT) as silent:
            assert silent.recv(1) == b""  # it does not complete the handshake in the time for a header
        time.sleep(1.5)  # the time for a header is over; the stream ended before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_schema_describes_the_routes(server):
    import schemathesis

    with http(server.url) as client:
        document = client.get("/openapi.json").json()
        assert document == schema()
        loaded = schemathesis.openapi.from_dict(document)
        loaded.validate()
        for path, operations in document["paths"].items():
            for method in operations:
                answer = client.request(method, path.replace("{name}", "x"))
                assert str(answer.status_code) in operations[method]["responses"], path
