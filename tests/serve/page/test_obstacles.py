"""What the page says when it cannot listen: no microphone, no permission, no secure address, a token, silence."""

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

from tests.pages.browser import open_another, open_page
from tests.serve.page.conftest import FAKE_MICROPHONE, NO_UPLOADS, RATE, running_server

pytestmark = pytest.mark.slow


def press_speak(page) -> str:
    """Presses Speak; returns the notice that comes."""
    page.get_by_role("button", name="Speak").click()
    page.get_by_role("alert").wait_for()
    return page.locator("#notice-text").text_content()


def test_denied_permission_is_explained(open_served, browser):
    with open_another(browser, "--use-fake-device-for-media-stream", "--deny-permission-prompts") as opened:
        page = open_served(opened)
        assert "does not let this page use the microphone" in press_speak(page)
        assert page.locator("#speak-label").text_content() == "Speak"
        assert page.locator(".recording").count() == 0


def test_a_missing_microphone_is_explained(open_served, browser):
    with open_another(browser, "--use-fake-ui-for-media-stream") as opened:
        assert "has no microphone" in press_speak(open_served(opened))


def test_a_muted_microphone_is_noticed(open_served, browser, tmp_path):
    soundfile.write(tmp_path / "zeros.wav", np.zeros(30 * RATE), RATE)
    file = f"--use-file-for-fake-audio-capture={tmp_path}/zeros.wav%noloop"
    with open_another(browser, *FAKE_MICROPHONE, file) as opened:
        page = open_served(opened)
        assert "gives no sound" in press_speak(page)
        page.keyboard.press("Escape")
        expect(page.locator("#speak-label")).to_have_text("Speak")
        expect(page.locator(".failure")).to_have_text("No words were recognised in this audio.")


def test_an_insecure_address_is_explained_and_files_are_not_offered_without_uploads(browser, tone_system):
    rules = "--host-resolver-rules=MAP speech.test 127.0.0.1"
    with (
        running_server(tone_system, *NO_UPLOADS, "--allow-origin", "http://speech.test") as server,
        open_another(browser, *FAKE_MICROPHONE, rules) as opened,
        open_page(opened, server.url.replace("localhost", "speech.test")) as page,
    ):
        expect(page.locator("#speak-hint")).to_contain_text("only to pages over https or from localhost")
        expect(page.locator("#speak")).to_have_attribute("aria-disabled", "true")
        page.locator("#speak").click(force=True)
        assert page.locator(".recording").count() == 0
        expect(page.locator("#drop")).to_be_hidden()


def test_a_token_is_asked_for_and_kept_in_memory_only(speaking_browser, tone_system, tmp_path):
    token = "correct-horse-battery-staple"
    (tmp_path / "token").write_text(token)
    with (
        running_server(tone_system, *NO_UPLOADS, "--token-file", str(tmp_path / "token")) as server,
        open_page(speaking_browser, server.url, expected="status of 401") as page,
    ):
        field = page.get_by_label("Access token")
        field.fill("not-the-token-of-the-server")
        field.press("Enter")
        expect(page.locator("#notice-text")).to_have_text("The server does not accept this token.")
        field.fill(token)
        field.press("Enter")
        expect(field).to_be_hidden()
        page.get_by_role("button", name="Speak").click()
        page.locator(".line .word").first.wait_for(timeout=60_000)
        page.keyboard.press("Escape")
        expect(page.locator("#speak-label")).to_have_text("Speak")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert page.url == f"{server.url}/"


def reload_with(page, **changes) -> None:
    """Loads the page again, from a server whose description of the model is changed."""

    def answer(route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | changes)

    page.route("**/v1/model", answer)
    page.reload()


def test_the_page_says_whether_sound_is_kept(open_served, browser):
    page = open_served(browser)
    expect(page.locator("#privacy")).to_contain_text("keeps none of it")
    reload_with(page, keeps_audio=True)
    expect(page.locator("#privacy")).to_contain_text("which keeps it")


def test_a_model_that_does_not_stream_takes_files_only(open_served, speaking_browser):
    page = open_served(speaking_browser)
    reload_with(page, streams=False, chunk_seconds=None, latency_seconds=None, hotwords=False)
    expect(page.locator("#speak-hint")).to_contain_text("needs whole recordings")
    expect(page.locator("#speak")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#hotwords-box")).to_be_hidden()
    expect(page.locator("#files")).to_be_enabled()


def test_speak_pressed_before_the_model_is_known_is_not_lost(open_served, speaking_browser):
    page = open_served(speaking_browser)
    held = []
    page.route("**/v1/model", lambda route: held.append(route))
    page.reload()
    expect(page.locator("#speak")).to_be_focused()
    expect(page.locator("#speak")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Space")
    assert page.locator(".recording").count() == 0
    held[0].continue_()
    expect(page.locator(".state")).to_have_text("listening", timeout=60_000)


def test_speaking_to_a_server_that_has_gone_is_explained(speaking_browser, tone_system):
    with (
        running_server(tone_system, *NO_UPLOADS) as gone,
        open_page(speaking_browser, gone.url, expected="ERR_CONNECTION_REFUSED") as page,
    ):
        expect(page.locator("#speak")).to_have_attribute("aria-disabled", "false")
        gone.process.kill()
        gone.wait()
        assert press_speak(page) == "The server cannot be reached; is it still running?"
        assert page.get_by_role("button", name="Try again").is_visible()
        assert page.locator(".recording").count() == 0
