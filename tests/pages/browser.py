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
    """Yields a Chromium of playwright; skips the test where either is missing."""
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
def open_page(browser, path: Path, viewport: dict = DESKTOP, scheme: str = "light") -> Iterator:
    """Yields the page of a file. When it is closed, fails for messages on the console, errors, and requests."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: _note_request(request.url, path, problems))
    page.goto(path.absolute().as_uri())
    yield page
    context.close()
    assert not problems, problems


def _note_request(url: str, path: Path, problems: list[str]) -> None:
    if url.partition("#")[0] != path.absolute().as_uri() and not url.startswith("data:"):
        problems.append(f"request: {url}")


def check_page(browser, path: Path) -> None:
    """Fails for a page that logs, requests anything, or is wider than a telephone or a screen, light or dark."""
    for viewport in (PHONE, DESKTOP):
        for scheme in ("light", "dark"):
            with open_page(browser, path, viewport, scheme) as page:
                assert page.locator("main section").count() > 0
                for summary in page.locator("summary").all():
                    summary.click()
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, f"{wide} pixels wider than {viewport['width']} ({scheme})"
                assert page.evaluate(CONTRAST_PROBLEMS) == [], scheme


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
