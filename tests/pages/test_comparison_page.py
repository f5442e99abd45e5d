"""`asrtool compare`: systems are found in experiments and result folders, compared, and shown as a page."""

import json
import os

import pytest

from asrtool.errors import UserError
from asrtool.files import write_jsonl
from asrtool.pages.comparison import compare_systems, write_comparison
from tests.pages.browser import check_page, open_page
from tests.pages.test_page import content

REFS = {"u1": "the cat sat", "u2": "a <b>dog</b> ran", "u3": "yes"}


def write_result(folder, hyps, speakers=("ann", "bob", "ann")):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": name, "ref": REFS[name], "hyp": hyp, "speaker": speaker}
        for (name, hyp), speaker in zip(hyps.items(), speakers, strict=True)
    ]
    (folder / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def systems(tmp_path):
    """Two experiments: both have dev by greedy and graph search, and only one has test."""
    for name in ("base", "other"):
        write_result(tmp_path / name / "decode/dev/greedy", dict(REFS))
    write_result(tmp_path / "base/decode/dev/graph", REFS | {"u1": "the cat", "u3": "no"})
    write_result(tmp_path / "other/decode/dev/graph", REFS | {"u2": "a <b>dog</b> ran <script>alert(1)</script>"})
    write_result(tmp_path / "base/decode/test/graph", dict(REFS))
    return [tmp_path / "base", tmp_path / "other"]


def test_experiments_are_compared_on_common_sets_by_the_method_with_the_lowest_mean_rate(systems):
    (comparison,) = compare_systems(systems)
    assert comparison.set == "dev, greedy" and comparison.rates == [0, 0]
    write_result(systems[0] / "decode/dev/greedy", REFS | {"u1": "", "u2": ""})
    (comparison,) = compare_systems(systems)
    assert comparison.set == "dev, graph" and comparison.systems == ["base", "other"]
    assert comparison.rates == [pytest.approx(100 * 2 / 7), pytest.approx(100 / 7)]
    assert [own.id for own in comparison.others[0].won] == ["u1", "u3"]


def test_result_folders_are_compared_as_they_are(systems):
    folders = [systems[0] / "decode/dev/greedy", systems[0] / "decode/dev/graph", systems[1] / "decode/dev/graph"]
    (comparison,) = compare_systems(folders)
    assert len(comparison.systems) == 3 and comparison.rates[0] == 0


@pytest.mark.parametrize(
    "chosen, reason",
    [
        (["base"], "needs two systems"),
        (["base", "other/decode/dev/graph"], "folders of one kind"),
        (["base", "none"], "has no results"),
    ],
)
def test_what_cannot_be_compared_is_named(systems, tmp_path, chosen, reason):
    with pytest.raises(UserError, match=reason):
        compare_systems([tmp_path / name for name in chosen])


def test_experiments_without_a_common_result_are_listed(systems, tmp_path):
    write_result(tmp_path / "third/decode/test/prefix", dict(REFS))
    with pytest.raises(UserError, match="no set and method in common.*test/prefix"):
        compare_systems([*systems, tmp_path / "third"])


def test_the_command_prints_text_and_json(systems, asr):
    systems = [own / "decode/dev/graph" for own in systems]
    status, text, _ = asr("compare", *systems)
    assert status == 0 and "+0.00" not in text and "-14.29" in text
    status, printed, _ = asr("compare", *systems, "--json")
    (values,) = json.loads(printed)["comparisons"]
    assert values["differences"][0]["won"] == {"u1": 1, "u3": 1}
    assert asr("compare", *systems, "--json", "--html", "a.html")[0] == 2


def test_a_page_is_written_and_the_totals_are_printed(systems, tmp_path, asr):
    folders = [own / "decode/dev/graph" for own in systems]
    _, text, _ = asr("compare", *folders)
    status, printed, _ = asr("compare", *folders, "--html", tmp_path / "page.html")
    totals, wrote = printed.strip().rsplit("\n\n", 1)
    assert status == 0 and wrote.startswith(f"wrote {tmp_path / 'page.html'}") and "-14.29" in totals
    assert text.startswith(totals) and len(text) > len(totals)


def test_charts_show_one_system_that_the_reader_chooses(systems, tmp_path):
    result = systems[0] / "decode/dev"
    third = write_result(systems[0] / "decode/dev/third", REFS | {"u2": "a dog"})
    write_comparison([result / "greedy", result / "graph", third], tmp_path / "page.html")
    page = {own["name"]: own for own in content((tmp_path / "page.html").read_text())["sections"]}
    (per_set,) = page["speakers"]["elements"]
    chosen = per_set["options"][0]["elements"][0]
    drawn = {own["name"]: own["elements"][0]["items"][0] for own in chosen["options"]}
    assert chosen["label"] == "System" and list(drawn) == ["graph", "third"]
    assert (drawn["graph"]["name"], drawn["third"]["name"]) == ("ann", "bob")  # the largest difference of each
    (table,) = (own for own in page["summary"]["elements"][0]["options"][0]["elements"] if own["kind"] == "table")
    (draws,) = (own for own in table["columns"] if own["name"] == "fewer errors in % of draws")
    assert "near 100 it is better" in draws["meaning"]


def test_names_and_texts_of_strangers_do_not_control_the_terminal_and_make_valid_json(tmp_path, asr):
    names = ["a\x1b[2J", os.fsdecode(b"b\xff")]
    for name, hyp in zip(names, ("the \x1b]0;owned\x07 sat", "the cat sat"), strict=True):
        write_result(tmp_path / name / "decode/dev/greedy", REFS | {"u1": hyp})
    folders = [tmp_path / name for name in names]
    status, text, _ = asr("compare", folders[0], write_result(tmp_path / "c/decode/dev/greedy", REFS).parents[2])
    assert status == 0 and "\x1b" not in text and "\x07" not in text
    _, printed, _ = asr("compare", *folders, "--json")
    printed.encode("utf-8")
    assert [own["name"] for own in json.loads(printed)["comparisons"][0]["systems"]] == names


def test_the_page_of_phones_counts_phones(tmp_path):
    for name, hyp in (("a", "k a t"), ("b", "k a d")):
        rows = [{"id": str(n), "ref": "k a d", "hyp": hyp, "token_type": "phones"} for n in range(2)]
        (tmp_path / name / "decode/dev/greedy").mkdir(parents=True)
        write_jsonl(tmp_path / name / "decode/dev/greedy/hyps.jsonl", rows)
    write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Phones of b" in page and "In percent of the reference phones" in page and '"PER ' in page


def test_the_page_shows_gains_and_losses_in_a_browser(systems, tmp_path, browser):
    write_comparison([own / "decode/dev/graph" for own in systems], tmp_path / "compare.html")
    check_page(browser, tmp_path / "compare.html")
    with open_page(browser, tmp_path / "compare.html") as page:
        shown = page.locator("#utterances").inner_text()
        assert "u1" in shown and "<script>alert(1)</script>" in shown  # a word, not a script
        assert page.locator("#summary").inner_text().count("%") >= 3
