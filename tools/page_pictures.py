"""Takes the pictures of docs/error_analysis.md: screenshots of a page of `asrtool report --html`.

python3 tools/page_pictures.py report.html docs/pictures

Needs Chromium, playwright and Pillow. The page of docs/ is the report of egs/digits with characters as units.
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

COLOURS = 64  # of a picture, which keeps it small
SHOTS = (  # name, width, height, colour scheme, the element that is at the top
    ("report_summary.png", 1000, 900, "light", "header"),
    ("report_utterance.png", 1000, 560, "light", "#worst .utterance:nth-child(3)"),
    ("report_curves.png", 1000, 640, "dark", "#training"),
    ("report_phone.png", 390, 844, "dark", "#worst h2"),
)


def main() -> None:
    """Writes all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path, help="Page of `asrtool report --html`.")
    parser.add_argument("out", type=Path, help="Folder of the pictures.")
    arguments = parser.parse_args()
    chromium = os.environ.get("ASRTOOL_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, width, height, scheme, top in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(arguments.page.absolute().as_uri())
            save_picture(page, top, arguments.out / name)
            page.close()
        browser.close()


def save_picture(page: Page, top: str, path: Path) -> None:
    """Writes what the window shows when the element `top` is at its top."""
    page.locator(top).first.evaluate("(node) => window.scrollTo(0, node.getBoundingClientRect().top + scrollY - 60)")
    page.wait_for_timeout(300)  # for charts, which are drawn when they have a size
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
