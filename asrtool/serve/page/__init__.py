"""The page that `asrtool serve` shows: its files, and the headers they are sent with.

index.html is the page; the browser asks for the others as page/NAME. One style sheet and two scripts are
shared with the other pages of asrtool (asrtool/pages/assets).
"""

from functools import cache
from importlib.resources import files

INDEX = "index.html"
SHARED_FILES = {"base.css": "page.css", "dom.js": "dom.js", "theme.js": "theme.js"}  # the name here: in asrtool.pages
SCRIPTS = (
    *("capture.js", "connection.js", "delay.js", "display.js", "dom.js", "formats.js", "level.js", "main.js"),
    *("microphone.js", "recording.js", "speech.js", "theme.js", "uploads.js", "words.js"),
)
PAGE_FILES = {  # the media type of each file
    INDEX: "text/html; charset=utf-8",
    "base.css": "text/css; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8"),
}
# Nothing from another host, no script or style in the page itself, no page of others around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # after an update of the server no script meets one of an older version
}


@cache
def page_file(name: str) -> bytes:
    """Returns the content of a file of PAGE_FILES. Raises KeyError for another name."""
    if name not in PAGE_FILES:
        raise KeyError(name)
    if name in SHARED_FILES:
        return (files("asrtool.pages") / "assets" / SHARED_FILES[name]).read_bytes()
    return (files(__name__) / name).read_bytes()
