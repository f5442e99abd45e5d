"""Takes the pictures of pages in docs/pictures: of `asrtool report --html`, and of the page of `asrtool serve`.

python3 tools/page_pictures.py report.html docs/pictures
python3 tools/page_pictures.py http://localhost:8750/ docs/pictures --speech talk.wav

Needs Chromium, playwright and Pillow. The report in docs/ is that of egs/digits with characters as units. To the page
of a server the browser plays talk.wav as its microphone; a pause of more than two seconds in it ends an utterance.
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

COLOURS = 64  # of a picture, which keeps it small
SHOTS = (  # name, width, height, colour scheme, the element that is at the top
    ("report_summary.png", 1000, 900, "light", "header"),
    ("report_utterance.png", 1000, 560, "light", "#worst .utterance:nth-child(3)"),
    ("report_curves.png", 1000, 640, "dark", "#training"),
    ("report_phone.png", 390, 844, "dark", "#worst h2"),
)
SWITCHES = ("--no-sandbox", "--disable-gpu")
WAIT = 120_000  # milliseconds for an utterance of the speech


def main() -> None:
    """Writes all pictures of a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", help="Page of `asrtool report --html`, or the address of a server.")
    parser.add_argument("out", type=Path, help="Folder of the pictures.")
    parser.add_argument("--speech", type=Path, help="WAV that the microphone plays to a server: three utterances.")
    arguments = parser.parse_args()
    is_server = arguments.page.startswith(("http://", "https://"))
    if is_server != (arguments.speech is not None):
        parser.error("--speech is given with the address of a server, and only there")
    chromium = os.environ.get("ASRTOOL_CHROMIUM") or shutil.which("chromium")
    switches = [*SWITCHES, *(microphone_switches(arguments.speech) if is_server else ())]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=switches)
        if is_server:
            take_server_pictures(browser, arguments.page, arguments.out)
        else:
            take_report_pictures(browser, Path(arguments.page), arguments.out)
        browser.close()


def microphone_switches(speech: Path) -> list[str]:
    """Returns the switches of a browser whose microphone plays a WAV once whenever it is opened."""
    file = f"--use-file-for-fake-audio-capture={speech.absolute()}%noloop"
    return ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", file]


def take_report_pictures(browser: Browser, page_file: Path, out: Path) -> None:
    """Writes the pictures of a report."""
    for name, width, height, scheme, top in SHOTS:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(page_file.absolute().as_uri())
        page.locator(top).first.evaluate(
            "(node) => window.scrollTo(0, node.getBoundingClientRect().top + scrollY - 60)"
        )
        save_picture(page, out / name)
        page.close()


def take_server_pictures(browser: Browser, address: str, out: Path) -> None:
    """Writes two pictures: on a screen while the third utterance is spoken, and on a telephone after the end."""
    page = start_speaking(browser, address, {"width": 1000, "height": 860}, "light")
    page.locator(".line:has(.word)").nth(1).wait_for(timeout=WAIT)
    page.locator(".line .settled:not(:empty) ~ .pending:not(:empty)").first.wait_for(timeout=WAIT)
    save_picture(page, out / "serve_speaking.png", 0)
    page.close()
    page = start_speaking(browser, address, {"width": 390, "height": 844}, "dark")
    page.locator(".line:has(.word)").nth(1).wait_for(timeout=WAIT)
    page.keyboard.press("Escape")
    page.locator(".recording-tools").wait_for(timeout=WAIT)
    page.locator(".word:not(.shade0)").first.click()
    save_picture(page, out / "serve_phone.png")
    page.close()


def start_speaking(browser: Browser, address: str, viewport: dict, scheme: str) -> Page:
    """Opens the page of a server, and presses Speak as soon as it is ready."""
    page = browser.new_page(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    page.locator("#speak[aria-disabled=false]").click()
    return page


def save_picture(page: Page, path: Path, wait: float = 300) -> None:
    """Writes what the window shows, after `wait` milliseconds: charts are drawn when they have a size."""
    page.wait_for_timeout(wait)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
