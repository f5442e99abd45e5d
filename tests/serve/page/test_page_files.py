"""The files of the page: all are listed, and what one of them names exists."""

import re
from pathlib import Path

import pytest

from asrtool.serve import page

FOLDER = Path(page.__file__).parent
SCRIPTS = [name for name in page.PAGE_FILES if name.endswith(".js")]


def text_of(name: str) -> str:
    """Returns the text of a file of the page."""
    return page.page_file(name).decode()


def test_every_file_of_the_folder_is_served():
    own = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert own == {*page.PAGE_FILES} - {*page.SHARED_FILES}


def test_what_the_page_and_its_scripts_load_is_served():
    named = re.findall(r'(?:src|href)="page/([^"]+)"', text_of(page.INDEX))
    imported = [
        name for script in SCRIPTS for name in re.findall(r'(?:from|URL\() ?"(?:\./)?(\w+\.js)"', text_of(script))
    ]
    assert {*named, *imported} == {*page.PAGE_FILES} - {page.INDEX}


def test_nothing_is_inline_and_nothing_is_from_another_host():
    html = text_of(page.INDEX)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert re.findall(r"<script(?! src=)", html) == []
    for name in page.PAGE_FILES:
        addresses = {address for address in re.findall(r"https?://[^\s\"')]+", text_of(name))}
        assert addresses <= {"http://www.w3.org/2000/svg"}, name  # the name of a namespace, which nobody loads
    assert "unsafe" not in page.POLICY and page.POLICY.startswith("default-src 'none'")


def test_nothing_is_stored_in_the_browser():
    for name in SCRIPTS:
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text_of(name))


@pytest.mark.parametrize("name", ["", "__init__.py", "../page/main.js", "page.html", "MAIN.JS"])
def test_other_names_are_no_files(name):
    with pytest.raises(KeyError):
        page.page_file(name)
