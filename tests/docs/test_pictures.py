"""The pictures of the documentation: drawn by the code that they show, and readable without a network."""

import importlib.util
from xml.etree import ElementTree

import pytest

from tests.docs.pages import ROOT

PICTURES = ROOT / "docs" / "pictures"


def test_masks_and_chunks_are_drawn_as_the_models_compute_them(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("draw", PICTURES / "draw.py")
    assert spec and spec.loader
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    monkeypatch.setattr(draw, "HERE", tmp_path)
    draw.main()
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn
    for name in drawn:
        assert (tmp_path / name).read_text() == (PICTURES / name).read_text(), (
            f"run python docs/pictures/draw.py: {name}"
        )


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_whole_has_a_title_and_names_no_other_server(picture):
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
