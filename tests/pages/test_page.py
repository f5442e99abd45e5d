"""A page is one file that loads nothing, and holds texts of strangers as data."""

import base64
import hashlib
import json
import re

import pytest

from asrtool.errors import UserError
from asrtool.pages import page as module
from asrtool.pages.elements import section, text
from asrtool.pages.page import Page, json_in_html, render_page, write_page
from tests.pages.conftest import EVIL


def content(html):
    """Returns the data of a page."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(data)


@pytest.mark.parametrize("value", [EVIL, "<!--", "]]>", "a\u2028b\u2029", "\ud800", "$title ${data}", "é 中 &amp;"])
def test_any_text_survives_as_data_and_ends_no_element(value):
    encoded = json_in_html({"text": value})
    assert json.loads(encoded) == {"text": value}
    assert encoded.isascii() and not re.search("[<>&]", encoded)
    html = render_page(Page(value, value, [section("a", value, [text(value)])]))
    assert content(html)["sections"][0]["elements"][0]["text"] == value
    assert html.count("<script") == 2 and "<img" not in html
    html.encode()


def test_numbers_that_are_not_finite_become_null():
    assert json.loads(json_in_html([float("nan"), float("inf"), 1.5])) == [None, None, 1.5]


def test_the_policy_allows_exactly_the_scripts_and_the_style_of_the_page():
    html = render_page(Page("a", "b", [section("a", "A", [text("t")])]))
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;") and "unsafe" not in policy
    assert not re.search(r"(src|href)=\"?(https?:)?//", html)


def test_empty_sections_and_elements_are_left_out():
    html = render_page(Page("a", "b", [section("a", "A", [None]), section("b", "B", [None, text("t")])]))
    assert [(s["name"], len(s["elements"])) for s in content(html)["sections"]] == [("b", 1)]


def test_a_page_that_is_too_large_is_refused_and_not_written(tmp_path, monkeypatch):
    page = Page("a", "b", [section("a", "A", [text("t")])])
    size = write_page(tmp_path / "a.html", page)
    assert size == (tmp_path / "a.html").stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", size - 1)
    with pytest.raises(UserError, match="MB"):
        write_page(tmp_path / "b.html", page)
    assert not (tmp_path / "b.html").exists()
