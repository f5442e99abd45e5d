"""Pages in headless Chromium: what a reader's browser makes of them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("ASRTOOL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# It neither updates itself nor asks anybody anything: a page must work without a network, and a test must not have one.
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--mute-audio"),
]
PHONE = {"width": 360, "height": 740}  # pixels
DESKTOP = {"width": 1280, "height": 900}


@contextmanager
def open_browser() -> Iterator:
    """Yields a Chromium of playwright; skips the test where either is missing. `open_another` opens further ones."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium in PATH, or its path in ASRTOOL_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_another(browser, *switches: str) -> Iterator:
    """Yields another Chromium, with further switches."""
    opened = browser.browser_type.launch(executable_path=CHROMIUM, args=[*SWITCHES, *switches])
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def open_page(
    browser, page: Path | str, viewport: dict = DESKTOP, scheme: str = "light", expected: str = "", **options
) -> Iterator:
    """Yields the page of a file or an address. When it is closed, fails for messages on the console, errors, requests.

    The page of a file may request nothing; a page of a server may request files of that server. expected: a part of the
    message that the browser logs for an answer that the test causes, such as "status of 415". `options` are those of
    playwright's `new_context`.
    """
    is_file = isinstance(page, Path)
    home = page.absolute().as_uri() if isinstance(page, Path) else page
    context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=is_file, **options)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: problems.append(f"error: {error}"))
    opened.on("request", lambda request: _note_request(request.url, home, is_file, problems))
    opened.goto(home)
    try:
        yield opened
    finally:
        context.close()
    unexpected = [problem for problem in problems if not (expected and expected in problem)]
    assert not unexpected, unexpected


def _note_request(url: str, home: str, is_file: bool, problems: list[str]) -> None:
    is_own = url.partition("#")[0] == home if is_file else url.startswith((home, f"blob:{home}"))
    if not is_own and not url.startswith("data:"):
        problems.append(f"request: {url}")


def check_page(browser, page: Path | str) -> None:
    """Fails for a page that logs, requests anything, or is wider than a telephone or a screen, light or dark."""
    for viewport in (PHONE, DESKTOP):
        for scheme in ("light", "dark"):
            with open_page(browser, page, viewport, scheme) as opened:
                assert opened.locator("main section").count() > 0
                for summary in opened.locator("summary:visible").all():
                    summary.click()
                check_layout(opened)


def check_layout(page) -> None:
    """Fails if the open page is wider than its window, or has texts of little contrast."""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} pixels wider than {page.viewport_size['width']}"
    assert page.evaluate(CONTRAST_PROBLEMS) == []


# The texts with less contrast to the page's ground than 4.5:1 (WCAG 2.1, 1.4.3), as "colour on colour: text".
CONTRAST_PROBLEMS = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => c.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const problems = new Set();
  for (const node of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const text = [...node.childNodes].filter((c) => c.nodeType === 3).map((c) => c.data.trim()).join("");
    if (!text || !node.getClientRects().length || node.disabled) continue;
    const [one, other] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) problems.add(`${ratio.toFixed(1)} ${getComputedStyle(node).color}: ${text.slice(0, 40)}`);
  }
  return [...problems];
}"""
