"""Speaking to the page in Chromium, whose microphone plays a recording."""

import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.pages.browser import DESKTOP, PHONE, check_layout, open_page
from tests.serve.page.conftest import NO_UPLOADS, running_server

pytestmark = pytest.mark.slow
SPOKEN = ["one three two four", "four four one"]
UNFINISHED = ".line :is(.settled, .pending):not(:empty)"  # words of an utterance that goes on; either may have none yet
SECONDS = 60_000  # milliseconds: a machine that does other things may take long


class Traffic:
    """What the page sends and receives over its WebSockets."""

    def __init__(self, page):
        self.audio = b""
        self.sent: list[dict] = []
        self.received: list[dict] = []
        page.on("websocket", self._watch)

    def _watch(self, socket) -> None:
        socket.on("framesent", self._add_sent)
        socket.on("framereceived", lambda payload: self.received.append(json.loads(payload)))

    def _add_sent(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            self.audio += payload
        else:
            self.sent.append(json.loads(payload))

    def of_type(self, name: str) -> list[dict]:
        """Returns the received messages of a type."""
        return [message for message in self.received if message["type"] == name]


def lines(page) -> list[str]:
    """Returns the texts of the lines whose words are final."""
    rows = page.locator(".line:has(.word) .text").all_text_contents()
    return [" ".join(row.split()) for row in rows]


def wait_for_lines(page, count: int) -> None:
    """Waits until so many utterances have ended."""
    expect(page.locator(".line:has(.word)")).to_have_count(count, timeout=SECONDS)


def stop(page) -> None:
    """Presses Escape, and waits for the last results."""
    page.keyboard.press("Escape")
    expect(page.locator("#speak-label")).to_have_text("Speak", timeout=SECONDS)


def stream_of(model, audio: bytes, rate: int):
    """Returns the final results with words that `asrtool.Model.stream` gives for 16-bit samples."""
    pieces = np.array_split(np.frombuffer(audio, np.int16), 50)
    return [result for result in model.stream(rate).results(pieces) if result.is_final and result.words]


def test_the_words_are_those_of_a_stream_of_the_same_audio(open_served, speaking_browser, model):
    page = open_served(speaking_browser)
    traffic = Traffic(page)
    page.get_by_role("button", name="Speak").click()
    page.locator(UNFINISHED).first.wait_for()
    assert page.locator("#speak-label").text_content() == "Stop"
    wait_for_lines(page, 2)
    stop(page)
    start = traffic.sent[0]
    assert traffic.sent == [start, {"type": "end"}]
    assert start == {"type": "start", "rate": start["rate"], "format": "s16le", "channels": 1}
    expected = stream_of(model, traffic.audio, start["rate"])
    assert lines(page) == [result.text for result in expected] == SPOKEN
    titles = page.locator(".word").evaluate_all("(words) => words.map((word) => word.title)")
    assert titles == [
        f"{word.start:.2f} to {word.end:.2f} s, confidence {100 * word.confidence:.0f} %"
        for result in expected
        for word in result.words
    ]
    assert page.locator("#spoken p").all_text_contents() == SPOKEN  # what a screen reader says: final lines only
    assert page.locator("#notice").is_hidden()


def test_words_are_shown_before_their_utterance_ends_and_settle(open_served, speaking_browser):
    page = open_served(speaking_browser)
    traffic = Traffic(page)
    page.evaluate(
        """() => {
          window.seen = [];
          const texts = (name) => [...document.querySelectorAll(name)].map((node) => node.textContent).join(" ");
          const note = () => seen.push([texts(".line .settled"), texts(".line .pending"), texts(".line .word")]);
          new MutationObserver(note).observe(document.getElementById("recordings"), {childList: true, subtree: true});
        }"""
    )
    page.get_by_role("button", name="Speak").click()
    wait_for_lines(page, 1)
    stop(page)
    seen = page.evaluate("seen")
    before = [f"{settled} {pending}".split() for settled, pending, final in seen if not final]
    assert ["one"] in before and ["one", "three", "two"] in before
    shown = {(settled, pending) for settled, pending, final in seen}
    for message in traffic.of_type("partial"):
        texts = [word["text"] for word in message["words"]]
        if texts:
            number = message["num_final"]
            assert (" ".join(texts[:number]), " ".join(texts[number:])) in shown


def test_delay_and_real_time_factor_are_shown(open_served, speaking_browser):
    page = open_served(speaking_browser)
    traffic = Traffic(page)
    page.get_by_role("button", name="Speak").click()
    wait_for_lines(page, 1)
    assert re.fullmatch(r"\d+\.\d\d s", page.locator("#delay").text_content())
    stop(page)
    (end,) = traffic.of_type("end")
    assert page.locator("#rtf").text_content() == f"{end['compute_seconds'] / end['audio_seconds']:.3f}"
    assert end["audio_seconds"] > 0 and end["compute_seconds"] > 0


def test_the_page_is_used_by_keyboard_alone(open_served, speaking_browser):
    page = open_served(speaking_browser, viewport=DESKTOP)
    press = page.keyboard.press
    focused = "document.activeElement.textContent"
    expect(page.locator("#speak")).to_be_focused()
    press("Space")
    wait_for_lines(page, 2)
    press("Enter")
    expect(page.locator("#speak-label")).to_have_text("Speak", timeout=SECONDS)
    expect(page.locator("#speak")).to_be_focused()
    for _ in range(20):
        press("Tab")
        if page.evaluate("document.activeElement.className").startswith("word"):
            break
    walk = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "Home", "End", "ArrowUp"):
        press(key)
        walk.append(page.evaluate(focused))
    assert walk == ["three", "four", "four", "one", "one", "four"]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"  # the focus is visible
    press("Enter")
    facts = page.locator(".word-facts").text_content()
    assert facts == "four" + page.evaluate("document.activeElement.title")
    press("Tab")
    while page.evaluate(focused) != "SRT":
        press("Tab")
    with page.expect_download() as download:
        press("Enter")
    assert download.value.suggested_filename.endswith(".srt")


def test_it_fits_telephone_and_screen_while_words_appear(open_served, speaking_browser):
    for viewport, scheme in ((PHONE, "dark"), (DESKTOP, "light"), (PHONE, "light"), (DESKTOP, "dark")):
        page = open_served(speaking_browser, viewport=viewport, scheme=scheme)
        page.get_by_role("button", name="Speak").click()
        page.locator(UNFINISHED).first.wait_for()
        check_layout(page)
        wait_for_lines(page, 1)
        page.locator(".word").first.click()
        check_layout(page)
        stop(page)
        check_layout(page)
        sizes = page.locator("button:visible:not(.word), label.button").evaluate_all(
            "(nodes) => nodes.map((node) => node.getBoundingClientRect().height)"
        )
        assert len(sizes) >= 9 and min(sizes) >= 44


def test_hotwords_are_sent_and_kept_nowhere(open_served, speaking_browser):
    page = open_served(speaking_browser)
    traffic = Traffic(page)
    page.get_by_text("Words to expect").click()
    page.get_by_label("Names and terms").fill("four one\n\n  two ")
    page.get_by_role("button", name="Speak").click()
    wait_for_lines(page, 1)
    stop(page)
    assert traffic.sent[0]["hotwords"] == ["four one", "two"]
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.search]") == [
        0,
        0,
        "",
        "",
    ]


def test_speaking_again_begins_a_new_transcript_and_removing_keeps_the_others(open_served, speaking_browser):
    page = open_served(speaking_browser)
    for _ in range(2):
        page.get_by_role("button", name="Speak").click()
        wait_for_lines(page, page.locator(".recording").count())
        stop(page)
    assert lines(page) == [SPOKEN[0]] * 2
    page.get_by_role("button", name="Remove").first.click()
    assert lines(page) == [SPOKEN[0]]
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#empty")).to_be_visible()


@pytest.mark.parametrize("number", [9, 15])  # SIGKILL, SIGTERM
def test_what_was_recognised_stays_when_the_server_goes_and_one_can_go_on(speaking_browser, tone_system, number):
    with (
        running_server(tone_system, *NO_UPLOADS, "--drain-seconds", "0.1") as first,
        open_page(speaking_browser, first.url) as page,
    ):
        page.get_by_role("button", name="Speak").click()
        wait_for_lines(page, 1)
        page.locator(UNFINISHED).first.wait_for()  # the second utterance has begun
        first.process.send_signal(number)
        first.wait()
        notice = page.get_by_role("alert")
        notice.wait_for()
        stays = lines(page)
        assert stays[0] == SPOKEN[0] and len(stays) == 2
        message = page.locator("#notice-text").text_content()
        assert message.startswith("The ") and message.endswith(".") and message.count(".") == 1
        port = int(first.url.rstrip("/").rpartition(":")[2])
        with running_server(tone_system, *NO_UPLOADS, "--port", str(port)):
            before = page.locator(".line time").last.text_content()
            page.get_by_role("button", name="Go on").click()
            wait_for_lines(page, 3)
            stop(page)
            assert lines(page)[:3] == [*stays, SPOKEN[0]] and page.locator(".recording").count() == 1
            assert page.locator(".line time").nth(2).text_content() > before


def test_a_full_server_is_explained(speaking_browser, tone_system):
    with (
        running_server(tone_system, *NO_UPLOADS, "--max-streams", "1") as server,
        open_page(speaking_browser, server.url) as one,
        open_page(speaking_browser, server.url) as other,
    ):
        one.get_by_role("button", name="Speak").click()
        expect(one.locator(".state")).to_have_text("listening", timeout=SECONDS)
        other.get_by_role("button", name="Speak").click()
        notice = other.get_by_role("alert")
        notice.wait_for()
        assert "stream" in notice.text_content()
        stop(one)
        other.get_by_role("button", name=re.compile("Go on|Try again")).click()
        wait_for_lines(other, 1)
        stop(other)
        assert lines(other) == SPOKEN[:1]
