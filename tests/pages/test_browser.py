"""The page in a browser: it works on a telephone and a screen, in light and dark, by pointer and by keyboard."""

import re

import numpy as np
import pytest

from asrtool.pages.elements import (
    bar,
    bars,
    code,
    column,
    lines,
    section,
    series,
    spectrogram,
    table,
    utterance,
    utterances,
)
from asrtool.pages.media import spectrogram_uri
from asrtool.pages.page import Page, write_page
from asrtool.pages.report import ReportSettings, write_report
from tests.pages.browser import PHONE, check_page, open_page
from tests.pages.conftest import EVIL

# Resolves when an audio element plays. The page's policy forbids the texts that wait_for_function evaluates.
PLAYS = """(audio) => new Promise((resolve) => {
  const check = () => audio.currentTime > 0 && resolve();
  audio.addEventListener("timeupdate", check);
  check();
})"""


@pytest.fixture(scope="module")
def report(analysed, tmp_path_factory, browser):
    """The page of the tiny experiment."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_report([analysed], path, ReportSettings(device="cpu", worst=4))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory, browser):
    """A page with a chart, a table and bars whose values are known."""
    path = tmp_path_factory.mktemp("small") / "page.html"
    points = [(float(step), 100.0 - step) for step in range(101)]
    rows = [[f"name {n}", (7 * n) % 20, None if n == 3 else n / 2] for n in range(20)]
    elements = [
        lines("Loss", "step", "nats", [series("training", points), series("dev", [(0, 5.0), (100, 1.0)], marks=True)]),
        table("Rows", [column("name"), column("seventh", "number"), column("half", "number", 1)], rows, shown=5),
        bars("Bars", "%", [bar("up", 2.0, (1.0, 3.0)), bar("down", -1.0)], signed=True),
    ]
    write_page(path, Page("Small", "page", [section("all", "All", elements)]))
    return path


def test_the_report_fits_telephone_and_screen_in_light_and_dark_without_a_request(browser, report):
    check_page(browser, report)


def test_what_scrolls_sideways_on_a_telephone_shows_it(browser, tmp_path):
    picture = spectrogram(spectrogram_uri(np.zeros(6 * 8000), 8000), 6.0, 4000.0, [])
    wide = table("Wide", [column(f"a long name {n}") for n in range(9)], [["x"] * 9])
    narrow = table("Narrow", [column("a")], [["x"]])
    elements = [wide, narrow, utterances("Some", [utterance("u", "", [], None, picture)]), code("x" * 200)]
    write_page(tmp_path / "page.html", Page("Wide", "page", [section("all", "All", elements)]))
    shown = "(box) => ['before', 'after'].map((side) => getComputedStyle(box, '::' + side).display != 'none')"
    with open_page(browser, tmp_path / "page.html", PHONE) as page:
        boxes = page.locator("main .scrollbox").all()
        assert [box.evaluate(shown) for box in boxes] == [[False, True], [False, False], [False, True], [False, True]]
        boxes[2].evaluate("(box) => { box.firstChild.scrollLeft = 1e6; }")
        page.wait_for_timeout(100)
        assert boxes[2].evaluate(shown) == [True, False]


def test_texts_that_look_like_html_are_shown_and_do_nothing(browser, report):
    with open_page(browser, report) as page:
        page.get_by_role("group", name="Set").first.get_by_role("button", name="evil, greedy").click()
        assert page.title().startswith("Errors of")
        assert page.locator("img[src=x]").count() == 0
        page.locator("#worst").get_by_role("button", name="evil, greedy").click()
        assert page.locator("#worst h4").first.text_content() == f"0{EVIL}"


def test_audio_plays_from_where_the_spectrogram_is_clicked(browser, report):
    with open_page(browser, report) as page:
        page.locator("#worst").get_by_role("button", name="test, greedy").click()
        picture = page.locator("#worst .strip img").first
        assert picture.evaluate("(image) => image.complete && image.naturalWidth > 10")
        seconds = float(re.search(r"([\d.]+) s,", picture.get_attribute("alt"))[1])
        box = picture.bounding_box()
        picture.click(position={"x": box["width"] / 2, "y": 10})
        audio = page.locator("#worst audio").first
        audio.evaluate(PLAYS)
        assert audio.evaluate("(a) => a.duration") == pytest.approx(seconds, abs=0.1)
        assert page.locator("#worst .playhead").first.is_visible()


def test_a_table_is_sorted_by_its_heads_and_unfolded_by_a_button(browser, small):
    with open_page(browser, small) as page:
        names = page.locator("tbody tr td:first-child")
        assert names.all_text_contents() == [f"name {n}" for n in range(5)]
        page.get_by_role("button", name="seventh").click()
        assert page.locator("tbody tr td:nth-child(2)").all_text_contents() == ["19", "18", "17", "16", "15"]
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        page.get_by_role("button", name="half").click()
        page.get_by_role("button", name="half").click()
        page.get_by_role("button", name="Show all 20 rows").click()
        shown = page.locator("tbody tr td:nth-child(3)").all_text_contents()
        assert shown[:3] == ["0.0", "0.5", "1.0"] and shown[-1] == "-" and len(shown) == 20


def x_labels(page):
    """The numbers at the axis of x, from left to right."""
    labels = page.locator(".chart > svg > text[text-anchor=middle]:not([transform])").all_text_contents()
    return [float(text) for text in labels if re.fullmatch(r"[\d.]+", text)]


def test_a_chart_is_zoomed_by_dragging_and_by_the_keyboard(browser, small):
    with open_page(browser, small) as page:
        chart = page.locator(".chart > svg")
        assert (min(x_labels(page)), max(x_labels(page))) == (0, 100)
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 120, steps=4)
        page.mouse.up()
        assert min(x_labels(page)) > 45 and max(x_labels(page)) < 80
        page.get_by_role("button", name="Show everything").click()
        assert max(x_labels(page)) == 100
        page.mouse.move(0, 0)
        chart.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.locator(".reading").text_content() == "step 1 \u00b7 training 99"
        page.keyboard.press("+")
        page.keyboard.press("+")
        assert max(x_labels(page)) < 50
        page.keyboard.press("0")
        assert max(x_labels(page)) == 100


def test_a_line_is_hidden_by_its_name(browser, small):
    with open_page(browser, small) as page:
        assert page.locator(".chart > svg path").count() == 2
        button = page.get_by_role("button", name="dev")
        button.click()
        assert page.locator(".chart > svg path").count() == 1 and button.get_attribute("aria-pressed") == "false"


def test_the_reader_chooses_light_or_dark(browser, small):
    with open_page(browser, small, scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(ground) != light
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(ground) == light


def test_signed_bars_begin_at_zero(browser, small):
    with open_page(browser, small) as page:
        up, down = (
            page.locator(f".fill.{side}").evaluate("(r) => [r.x.baseVal.value, r.width.baseVal.value]")
            for side in ("above", "below")
        )
        assert up == pytest.approx([25, 50]) and down == pytest.approx([0, 25])
        assert page.locator(".bars .value").all_text_contents() == ["+2.00 [+1.00, +3.00]", "\u22121.00"]
