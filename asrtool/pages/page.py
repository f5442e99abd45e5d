"""A page as one HTML file: style, scripts, data, audio and pictures are inside, and nothing is loaded from elsewhere.

A content security policy in the file forbids every request and every script but the file's own, so that a text from a
stranger's data could not run even if it were mistaken for HTML.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from asrtool.errors import UserError
from asrtool.files import finite_or_null, write_text
from asrtool.pages.elements import Section

MAX_BYTES = 10_000_000  # of a file: it can still be sent by mail, and a telephone opens it
POLICY = "default-src 'none'; img-src data:; media-src data:"
# in this order
SCRIPTS = ("dom.js", "theme.js", "elements.js", "table.js", "chart.js", "utterance.js", "page.js")


@dataclass(frozen=True)
class Page:
    """What a page shows. `subtitle` is a line below the title, `footer` the last line."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str = ""


def render_page(page: Page) -> str:
    """Returns the HTML of a page."""
    style = _asset("page.css")
    script = "\n".join(map(_asset, SCRIPTS))
    content = {
        "title": page.title,
        "subtitle": page.subtitle,
        "footer": page.footer,
        "sections": [section for section in page.sections if section["elements"]],
    }
    return Template(_asset("page.html")).substitute(
        policy=f"{POLICY}; style-src {_hash(style)}; script-src {_hash(script)}",
        title=html.escape(page.title).encode("utf-8", "replace").decode(),
        style=style,
        script=script,
        data=json_in_html(content),
    )


def write_page(path: str | Path, page: Page) -> int:
    """Writes a page, atomically, and returns its size in bytes. Raises UserError for one above MAX_BYTES."""
    content = render_page(page)
    size = len(content.encode())
    if size > MAX_BYTES:
        raise UserError(f"the page would have {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}; give fewer sets")
    write_text(path, content)
    return size


def json_in_html(value: object) -> str:
    """Returns `value` as JSON that can stand in a <script> element: no "<" in it can end the element.

    All characters beyond ASCII are escaped, too: a lone surrogate in a damaged file has no UTF-8. Numbers that are not
    finite become null.
    """
    text = json.dumps(finite_or_null(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files("asrtool.pages") / "assets" / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """Returns the hash by which the policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
