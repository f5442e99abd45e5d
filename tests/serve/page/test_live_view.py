"""Where the newest words are on the page: in view, whatever the size of the window and the length of the transcript."""

import json

import pytest
from playwright.sync_api import expect

from tests.pages.browser import check_layout

pytestmark = pytest.mark.slow
SIZES = [(1200, 800), (1366, 768), (390, 844), (844, 390)]
TEXT = ["they", "walked", "along", "the", "river", "until", "the", "evening", "came", "and", "it", "was", "dark"]


def message(number: int, count: int, **fields) -> str:
    """Returns a result of the utterance of this number: so many words."""
    start = 8.0 * number
    words = [
        {"text": text, "start": start + 0.3 * n, "end": start + 0.3 * n + 0.2, "confidence": 0.99}
        for n, text in enumerate(TEXT[:count])
    ]
    end = start + 0.3 * count
    texts = {"text": " ".join(TEXT[:count]), "words": words, "audio_seconds": end, "compute_seconds": end / 50}
    return json.dumps({"start": start, "end": end, **texts, **fields})


class Speaker:
    """Answers a stream of the page as the server does, one message when it is told to."""

    def __init__(self, page):
        self._socket = None
        page.route_web_socket("**/v1/stream", self._open)

    def _open(self, socket) -> None:
        self._socket = socket
        socket.on_message(self._receive)

    def _receive(self, content) -> None:
        if isinstance(content, str) and json.loads(content)["type"] == "start":
            ready = {"type": "ready", "stream": "x", "chunk_seconds": 0.3, "latency_seconds": 0.1}
            self._socket.send(json.dumps(ready))

    def final(self, number: int) -> None:
        self._socket.send(message(number, len(TEXT), type="final", confidence=0.9))

    def partial(self, number: int, count: int) -> None:
        self._socket.send(message(number, count, type="partial", num_final=count - 1))


def speak(page) -> Speaker:
    """Starts to speak; eight utterances end, and a ninth begins."""
    speaker = Speaker(page)
    page.get_by_role("button", name="Speak").click()
    expect(page.locator(".state")).to_have_text("listening")
    for number in range(8):
        speaker.final(number)
    speaker.partial(8, 3)
    page.locator(".line .pending").wait_for()
    return speaker


def is_seen(page, selector: str) -> bool:
    """True if the middle of the last element is in the window, and nothing is over it."""
    return page.locator(selector).last.evaluate(
        """(node) => {
          const box = node.getBoundingClientRect();
          const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
          return box.bottom <= innerHeight && (node === top || node.contains(top));
        }"""
    )


@pytest.mark.parametrize("size", SIZES, ids=[f"{width}x{height}" for width, height in SIZES])
def test_the_newest_words_are_in_view(open_served, speaking_browser, size):
    page = open_served(speaking_browser, viewport={"width": size[0], "height": size[1]})
    speaker = speak(page)
    for count in (3, 9, len(TEXT)):
        speaker.partial(8, count)
        expect(page.locator(".line .pending")).to_have_text(TEXT[count - 1])
        assert is_seen(page, ".line .pending")
        assert size[1] < 600 or is_seen(page, "#speak")  # what stops; a telephone on its side has no place for both
    speaker.final(8)
    expect(page.locator(".line:has(.word)")).to_have_count(9)
    assert is_seen(page, ".word")
    check_layout(page)


def test_who_reads_older_words_is_left_alone(open_served, speaking_browser):
    page = open_served(speaking_browser, viewport={"width": 1366, "height": 768})
    speaker = speak(page)
    place = "document.getElementById('transcripts').scrollTop"
    page.evaluate(f"{place} = 0")
    speaker.final(8)
    speaker.partial(9, 5)
    expect(page.locator(".line .pending")).to_have_text(TEXT[4])
    assert page.evaluate(place) == 0
    page.evaluate(f"{place} = 1e6")
    speaker.final(9)
    speaker.partial(10, 2)
    expect(page.locator(".line .pending")).to_have_text(TEXT[1])
    assert is_seen(page, ".line .pending")
