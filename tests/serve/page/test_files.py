"""Files given to the page: recognised one after the other, shown, shaded, and downloaded again."""

import json

import pysubs2
import pytest
import soundfile
from playwright.sync_api import expect

from asrtool.inference.outputs import as_json
from tests.pages.browser import DESKTOP, PHONE, check_layout, check_page
from tests.serve.page.conftest import RATE
from tests.serve.page.tones import spoken

pytestmark = pytest.mark.slow
SECONDS = 60_000  # milliseconds


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings in different formats, and between them a file that is none."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "first talk.flac", folder / "notes.wav", folder / "second.wav"]
    soundfile.write(paths[0], [*spoken(["one", "two", "three"], 1, 1, 2), *spoken(["four", "one"], 2, 1, 1)], RATE)
    paths[1].write_text("these are words, no samples")
    soundfile.write(paths[2], spoken(["two", "two", "four"], 3), RATE)
    return paths


def give(page, paths) -> None:
    """Chooses files, and waits until all are done."""
    page.locator("#files").set_input_files(paths)
    expect(page.locator(".recording-tools:visible")).to_have_count(len(paths), timeout=SECONDS)
    expect(page.locator("progress:visible")).to_have_count(0)


def recording(page, name: str):
    """Returns the element of a recording."""
    return page.locator(".recording", has=page.get_by_role("heading", name=name))


def downloaded(page, name: str, label: str) -> tuple[str, str]:
    """Returns the name and the content of a download of a recording."""
    with page.expect_download() as waiting:
        recording(page, name).get_by_role("button", name=f"Download as {label}").click()
    return waiting.value.suggested_filename, waiting.value.path().read_text(encoding="utf-8")


def test_the_page_without_words_fits_telephone_and_screen(browser, server):
    check_page(browser, server.url)


def test_files_queue_and_have_the_words_of_transcribe(open_served, browser, recordings, model):
    page = open_served(browser, expected="status of 415")  # of the file without audio
    give(page, recordings)
    for path in (recordings[0], recordings[2]):
        expected = model.transcribe(path)
        tree = json.loads(downloaded(page, path.name, "JSON")[1])
        wanted = as_json(expected)
        wanted |= {"recording": path.name, "segments": [part for part in wanted["segments"] if part["words"]]}
        del wanted["asrtool"]
        assert tree == wanted
        rows = recording(page, path.name).locator(".line .text").all_text_contents()
        assert [row.strip() for row in rows] == [segment.text for segment in expected.segments if segment.words]
    failure = recording(page, "notes.wav").locator(".failure p").text_content()
    assert "audio" in failure and "notes.wav" in failure and failure.endswith(".")
    assert recording(page, "notes.wav").get_by_role("button", name="Try again").count() == 0
    shown = page.locator(".recording h3").all_text_contents()
    assert shown == [path.name for path in recordings]  # in the order in which they are recognised


def test_downloads_are_subtitles_and_text(open_served, browser, recordings, model):
    page = open_served(browser)
    give(page, recordings[:1])
    name = recordings[0].name
    words = model.transcribe(recordings[0]).words
    texts = {label: downloaded(page, name, label) for label in ("SRT", "VTT", "Text")}
    assert [file for file, _ in texts.values()] == ["first_talk.srt", "first_talk.vtt", "first_talk.txt"]
    for label in ("SRT", "VTT"):
        cues = pysubs2.SSAFile.from_string(texts[label][1])
        assert " ".join(cue.plaintext for cue in cues) == " ".join(word.text for word in words)
        assert cues[0].start == round(1000 * words[0].start)
        assert all(cue.start < cue.end for cue in cues)
    assert texts["Text"][1].split() == [word.text for word in words]


def answer_with(page, segments) -> None:
    """Lets uploads be answered with these segments, instead of by the server."""
    rows = [{"type": "recording", "seconds": 60}, *segments, {"type": "end", "seconds": 60, "compute_seconds": 3}]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    page.route("**/v1/transcribe*", lambda route: route.fulfill(body=body, content_type="application/jsonl"))


def segment(words, start=0.0, step=0.4) -> dict:
    """Returns a segment of (text, confidence) at even times."""
    rows = [
        {"text": text, "start": start + n * step, "end": start + (n + 1) * step, "confidence": confidence}
        for n, (text, confidence) in enumerate(words)
    ]
    return {"type": "segment", "start": start, "end": rows[-1]["end"], "confidence": 0.5, "words": rows}


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_doubtful_words_are_shaded_and_underlined(open_served, browser, recordings, viewport, scheme):
    page = open_served(browser, viewport=viewport, scheme=scheme)
    words = [("sure", 0.99), ("likely", 0.8), ("doubtful", 0.6), ("unsure", 0.3), ("unknown", None), ("w" * 200, 0.1)]
    answer_with(page, [segment(words)])
    give(page, recordings[:1])
    check_layout(page)
    shown = page.locator(".word")
    look = "(node) => [getComputedStyle(node).backgroundColor, getComputedStyle(node).textDecorationLine]"
    grounds, lines = zip(*[shown.nth(n).evaluate(look) for n in range(5)], strict=True)
    assert len({*grounds[:4]}) == 4 and grounds[4] == grounds[0]
    assert list(lines) == ["none", "none", "none", "underline", "none"]
    assert shown.nth(3).get_attribute("title") == "1.20 to 1.60 s, confidence 30 %"
    legend = page.locator(".swatch").evaluate_all("(nodes) => nodes.map((n) => getComputedStyle(n).backgroundColor)")
    assert legend == list(grounds[:4])


def test_texts_that_look_like_html_are_shown_and_do_nothing(open_served, browser, recordings):
    page = open_served(browser)
    evil = "<img src=x onerror=alert(1)>"
    answer_with(page, [segment([(evil, 0.2)])])
    give(page, recordings[:1])
    assert page.locator(".word").text_content() == evil and page.locator("img").count() == 0


def test_long_speech_becomes_subtitles_of_two_short_lines(open_served, browser, recordings):
    page = open_served(browser)
    answer_with(page, [segment([("word-of-speech", 0.9)] * 60), segment([("end", None)] * 3, 24.1)])
    give(page, recordings[:1])
    text = downloaded(page, recordings[0].name, "SRT")[1]
    cues = [block.split("\n") for block in text.strip().split("\n\n")]
    assert all(len(cue) <= 4 and max(map(len, cue[2:])) <= 42 for cue in cues)
    parsed = list(pysubs2.SSAFile.from_string(text))
    assert sum(len(cue.plaintext.split()) for cue in parsed) == 63
    assert all(cue.end - cue.start <= 7000 for cue in parsed)
    assert all(one.end <= next_one.start for one, next_one in zip(parsed, parsed[1:], strict=False))


def test_a_lost_connection_keeps_the_words_of_a_file_and_tries_again(open_served, browser, recordings):
    page = open_served(browser)
    rows = [{"type": "recording", "seconds": 9}, segment([("one", 0.9)])]
    body = "".join(json.dumps(row) + "\n" for row in rows)  # without the line that ends it
    page.route("**/v1/transcribe*", lambda route: route.fulfill(body=body, content_type="application/jsonl"))
    give(page, recordings[2:])
    failure = page.locator(".failure")
    assert failure.locator("p").text_content() == (
        "The connection to the server was lost; what was recognised is below."
    )
    assert page.locator(".word").all_text_contents() == ["one"]
    page.unroute("**/v1/transcribe*")
    failure.get_by_role("button", name="Try again").click()
    expect(page.locator(".word")).to_have_text(["two", "two", "four"], timeout=SECONDS)
    expect(failure).to_be_hidden()


def test_a_file_that_is_dropped_is_recognised(open_served, browser, recordings):
    page = open_served(browser)
    data = list(recordings[2].read_bytes())
    page.evaluate(
        """(data) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], "dropped.wav"));
          const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
          for (const name of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(name, options));
        }""",
        data,
    )
    expect(recording(page, "dropped.wav").locator(".word")).to_have_text(["two", "two", "four"], timeout=SECONDS)
