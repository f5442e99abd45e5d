"""A trained system, servers that recognise with it, and browsers whose microphone plays a recording."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import soundfile

import asrtool
from tests.pages.browser import open_another, open_page
from tests.serve.page.tones import RATE, spoken, train_tone_system
from tests.serve.running import ServerProcess

FAKE_MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
NO_UPLOADS = ("--upload-workers", "0")  # of a server that gets none, and starts sooner
METHOD = "prefix"  # takes hotwords, and needs no graph
RECOGNITION = ("--method", METHOD, "--vad", "none", "--device", "cpu")  # a detector of speech hears none in tones


def running_server(experiment: Path, *options: str) -> ServerProcess:
    """Returns a server in a process of its own, for a page that a browser trusts with the microphone."""
    return ServerProcess(experiment, "--host", "localhost", *RECOGNITION, *options)


@pytest.fixture(scope="session")
def tone_system(tmp_path_factory) -> Path:
    """The folder of a trained system whose words are tones."""
    return train_tone_system(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def model(tone_system) -> asrtool.Model:
    """The same system, for what the page should show."""
    return asrtool.load(tone_system, method=METHOD, device="cpu", vad="none")


@pytest.fixture(scope="session")
def server(tone_system) -> Iterator[ServerProcess]:
    """A server that the tests of this folder share."""
    with running_server(tone_system) as running:
        yield running


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> Path:
    """A WAV of two utterances, with a pause that ends the first one, and a long silence after them."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    first = spoken(["one", "three", "two", "four"], 9001, lead=1.0, trail=2.5)
    second = spoken(["four", "four", "one"], 9002, trail=20.0)
    soundfile.write(path, [*first, *second], RATE)
    return path


@pytest.fixture(scope="module")
def speaking_browser(browser, speech) -> Iterator:
    """A browser whose microphone plays `speech`, once, whenever it is opened."""
    with open_another(browser, *FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={speech}%noloop") as opened:
        yield opened


@pytest.fixture
def open_served(server) -> Iterator[Callable]:
    """open_served(browser, ...) -> the page of the shared server, ready; `open_page` checks it at the end."""
    with ExitStack() as stack:

        def enter(browser, **options):
            page = stack.enter_context(open_page(browser, server.url, **options))
            page.locator("#model", has_text=METHOD).wait_for()
            return page

        yield enter
