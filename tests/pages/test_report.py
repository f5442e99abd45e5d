"""`asrtool report --html`: what the page of a tiny experiment holds, and what it says is missing."""

import gzip
import json
import shutil
from dataclasses import replace

import pytest
from lhotse import CutSet

from asrtool.config_file import load_config, save_config
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.pages.recordings import Media, align_references, worst_elements, worst_utterances
from asrtool.pages.report import ReportSettings, report_page, write_report
from asrtool.pages.results import find_results, read_genders, read_result
from asrtool.scoring.folder import score_folder
from tests.pages.conftest import EVIL, add_result, hypothesis_row
from tests.pages.test_page import content


@pytest.fixture(scope="module")
def page(analysed):
    """Returns the sections of the page with everything."""
    return sections(analysed)


@pytest.fixture(scope="module")
def result(analysed):
    return read_result(analysed / "decode/test/greedy")


def sections(experiment, **settings):
    settings = ReportSettings(device="cpu", **settings)
    folder = experiment / "decode/test/greedy"
    results = [read_result(folder, settings.manifests, {"a": "f", "b": "m", "c": "m"}, settings.audio)]
    return {section["name"]: section["elements"] for section in report_page(experiment, results, settings).sections}


def find(elements, kind):
    """Yields the elements of a kind, at any depth."""
    for element in elements:
        if element["kind"] == kind:
            yield element
        for option in element.get("options", ()):
            yield from find(option["elements"], kind)
        yield from find(element.get("elements", ()), kind)


def test_the_page_has_the_error_rate_that_score_writes(analysed, page):
    score_folder(analysed / "decode/test/greedy")
    scored = json.loads((analysed / "decode/test/greedy/wer.json").read_text())
    (table,) = find(page["summary"], "table")
    row = dict(zip([column["name"] for column in table["columns"]], table["rows"][0], strict=True))
    assert row["error rate %"] == scored["wer"] and list(row["95 % interval"]) == scored["wer_interval"]
    assert row["words"] == scored["words"]["length"] and row["sub"] == scored["words"]["substitutions"]


def test_every_part_is_there_where_everything_is_known(page):
    captions = {bars["caption"] for bars in find(page["groups"], "bars")}
    assert captions == {"By length", "By speaking rate", "By estimated SNR", "By gender", "By speaker"}
    (gender,) = (bars for bars in find(page["groups"], "bars") if bars["caption"] == "By gender")
    assert [(item["name"], item["note"]) for item in gender["items"]] == [
        ("female", "20 words, 8 utterances"),  # speaker a
        ("male", "64 words, 16 utterances"),
    ]
    (chart,) = find(page["confidence"], "lines")
    assert chart["diagonal"] and len(chart["series"][0]["points"]) == 15
    assert {lines["caption"] for lines in find(page["training"], "lines")} == {"Loss", "Learning rate", "Gradient norm"}
    assert any("num_bins: 20" in code["text"] for code in find(page["background"], "code"))
    assert not [text for elements in page.values() for text in find(elements, "text") if text["tone"] == "note"]


def test_the_worst_utterances_have_audio_and_units_at_their_times(page, result):
    (shown,) = find(page["worst"], "utterances")
    assert [item["id"] for item in shown["items"]] == [u.id for u in worst_utterances(result.utterances, 20)]
    assert all(item["audio"].startswith("data:audio/ogg;base64,") for item in shown["items"])
    for item in shown["items"]:
        tracks = {track["name"]: track["spans"] for track in item["spectrogram"]["tracks"]}
        words = [word for word, _ in item["hypotheses"][0]["pairs"] if word]
        assert [label for label, *_ in tracks["reference, words"]] == words
        seconds = item["spectrogram"]["seconds"]
        assert all(0 <= begin < end <= seconds + 0.05 for spans in tracks.values() for _, begin, end in spans)
        is_empty = not any(hyp for _, hyp in item["hypotheses"][0]["pairs"])
        assert ({"recognised words", "recognised units"} <= set(tracks)) != is_empty


def test_utterances_with_the_most_errors_come_first_and_right_ones_never(result):
    worst = worst_utterances(result.utterances, 100)
    errors = [utterance.counts.errors for utterance in worst]
    assert errors == sorted(errors, reverse=True) and min(errors) > 0
    assert len(worst) == sum(utterance.counts.errors > 0 for utterance in result.utterances)


def test_audio_is_left_out_where_the_page_would_become_too_large(result):
    media = Media(bytes_left=30_000)
    (shown, *_) = worst_elements(result, 8, media, None)
    with_audio = [bool(item["audio"]) for item in shown["items"]]
    assert any(with_audio) and not all(with_audio)
    (note,) = media.notes()
    assert note["text"].startswith(f"The audio of {with_audio.count(False)} utterances is left out")


def test_a_reference_that_cannot_be_written_in_units_is_a_note_and_others_are_aligned(analysed, result):
    first, second = result.utterances[:2]
    line = first.cut.entry.line.replace(f'"text": "{first.ref}"'.encode(), b'"text": "unknown words"')
    unknown = replace(first, cut=replace(first.cut, entry=replace(first.cut.entry, line=line)))
    notes = []
    rows = align_references([unknown, second], open_experiment(analysed, device="cpu"), notes)
    assert list(rows) == [second.id]
    assert len(notes) == 1 and "words without units" in notes[0]["text"]


def test_without_audio_nothing_of_it_is_read_or_shown(analysed):
    page = sections(analysed, audio=False)
    (shown,) = find(page["worst"], "utterances")
    assert all(item["audio"] is None and item["spectrogram"] is None for item in shown["items"])
    assert "By estimated SNR" not in {bars["caption"] for bars in find(page["groups"], "bars")}


def test_what_has_moved_is_noted_and_the_rest_is_shown(analysed, tmp_path):
    shutil.copytree(analysed, tmp_path / "exp")
    experiment = tmp_path / "exp"
    (experiment / "checkpoints/best.pt").unlink()
    (experiment / "log.jsonl").unlink()
    add_result(experiment, tmp_path / "gone.jsonl.gz", rows=[{"id": "u", "ref": "a b", "hyp": "a c"}])
    page = sections(experiment)
    notes = {name: [t["text"] for t in find(e, "text") if t["tone"] == "note"] for name, e in page.items()}
    assert "gone.jsonl.gz" in notes["summary"][0] and "--cuts" in notes["summary"][1]
    assert "not aligned" in notes["worst"][0] and "no log.jsonl" in notes["training"][0]
    assert "no confidences" in notes["confidence"][0]


def test_audio_that_cannot_be_read_is_noted_with_its_reason(analysed, tmp_path, corpus):
    shutil.copytree(analysed, tmp_path / "exp")
    with gzip.open(corpus, "rt") as file:
        lines = file.read().replace("/a-00.flac", "/gone.flac")
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write(lines)
    (note,) = read_result(tmp_path / "exp/decode/test/greedy", [tmp_path / "cuts.jsonl.gz"]).notes
    assert note.startswith("The audio of 1 utterance could not be read") and "gone.flac" in note


def test_an_experiment_stands_for_all_methods_of_every_set(analysed, tmp_path, corpus):
    shutil.copytree(analysed, tmp_path / "exp")
    add_result(tmp_path / "exp", corpus, method="graph")
    experiment, groups = find_results([tmp_path / "exp"])
    names = [[str(folder.relative_to(experiment)) for folder in group] for group in groups]
    assert names == [["decode/evil/greedy"], ["decode/test/graph", "decode/test/greedy"]]
    _, groups = find_results([tmp_path / "exp/decode/test/greedy", tmp_path / "exp/decode/test/greedy"])
    assert groups == [[tmp_path / "exp/decode/test/greedy"]]


def test_the_summary_lists_all_methods_and_the_rest_is_about_the_lowest_rate(analysed, tmp_path, corpus):
    shutil.copytree(analysed, tmp_path / "exp")
    shutil.rmtree(tmp_path / "exp/decode/evil")
    rows = [json.loads(line) for line in (analysed / "decode/test/greedy/hyps.jsonl").read_text().splitlines()]
    add_result(tmp_path / "exp", corpus, method="graph", rows=[row | {"hyp": ""} for row in rows])
    phones = [row | {"hyp": row["ref"], "token_type": "phones"} for row in rows]  # another rate: words come first
    add_result(tmp_path / "exp", corpus, method="phones", rows=phones)
    summary = write_report([tmp_path / "exp"], tmp_path / "page.html", ReportSettings(audio=False))
    assert "test, greedy (" in summary and "graph" not in summary
    page = {own["name"]: own["elements"] for own in content((tmp_path / "page.html").read_text())["sections"]}
    (table,) = find(page["summary"], "table")
    assert [row[1] for row in table["rows"]] == ["graph", "greedy", "phones"]
    assert table["rows"][0][2] == 100 and table["rows"][2][2] == 0
    (tiles,) = find(page["summary"], "tiles")
    assert [item[0] for item in tiles["items"]] == ["WER, test, greedy"]
    assert any("lowest error rate" in own["text"] for own in find(page["summary"], "text"))


def test_relative_manifests_are_looked_for_above_the_experiment(analysed, tmp_path, corpus, monkeypatch, caplog):
    experiment = tmp_path / "work/exp/mine"
    shutil.copytree(analysed, experiment)
    config = load_config(experiment / "config.yaml", ["data.train=data/train.jsonl.gz"])
    save_config(config, experiment / "config.yaml")
    (tmp_path / "work/data").mkdir()
    shutil.copy(corpus, tmp_path / "work/data/train.jsonl.gz")
    folder = add_result(
        experiment, "data/train.jsonl.gz", rows=[hypothesis_row(next(iter(CutSet.from_file(corpus))), 0)]
    )
    monkeypatch.chdir(tmp_path)
    write_report([folder], tmp_path / "page.html", ReportSettings(audio=False))
    assert "The training transcripts have" in (tmp_path / "page.html").read_text()
    assert read_result(folder, with_audio=False).utterances[0].seconds > 0
    (tmp_path / "work/data/train.jsonl.gz").unlink()
    write_report([folder], tmp_path / "page.html", ReportSettings(audio=False))
    (warning,) = [record.message for record in caplog.records if "training counts" in record.message]
    assert f"data/train.jsonl.gz is in none of the folders {tmp_path}, " in warning and warning.endswith(
        f"{tmp_path}/work"
    )
    assert "asrtool prepare" not in warning


def test_results_of_two_experiments_and_none_are_refused(analysed, tmp_path):
    shutil.copytree(analysed, tmp_path / "other")
    with pytest.raises(UserError, match="one experiment"):
        find_results([analysed, tmp_path / "other"])
    with pytest.raises(UserError, match="has no results"):
        find_results([tmp_path])
    (tmp_path / "other/config.yaml").unlink()
    with pytest.raises(UserError, match="no config.yaml"):
        find_results([tmp_path / "other"])


def test_results_without_a_reference_word_are_refused(analysed, tmp_path, corpus):
    shutil.copytree(analysed, tmp_path / "exp")
    folder = add_result(tmp_path / "exp", corpus, rows=[{"id": "u", "ref": "", "hyp": "a"}])
    with pytest.raises(UserError, match="needs transcripts"):
        read_result(folder)


def test_genders_are_read_from_kaldis_form(tmp_path):
    path = tmp_path / "spk2gender"
    path.write_text("a f\n\nb m\n")
    assert read_genders(path) == {"a": "f", "b": "m"}
    path.write_text("a f\nb\n")
    with pytest.raises(UserError, match="spk2gender:2"):
        read_genders(path)


def test_the_command_writes_a_page_with_texts_as_they_are(analysed, tmp_path, asr):
    status, out, err = asr("report", analysed, "--html", tmp_path / "page.html", "--device", "cpu")
    assert status == 0, err
    assert "evil, greedy (" in out and "; test, greedy (" in out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert EVIL not in page and EVIL in json.dumps(content(page), ensure_ascii=False).replace('\\"', '"')
    status, _, err = asr("report", analysed, "--html", tmp_path / "page.txt")
    assert status == 2 and ".html" in err
    status, _, err = asr("report", analysed, "--html", tmp_path / "page.html", "--out", tmp_path / "RESULTS.md")
    assert status == 2 and "give one of them" in err


def test_a_log_of_a_stranger_is_no_traceback(analysed, tmp_path):
    shutil.copytree(analysed, tmp_path / "exp")
    rows = '{"event": ["x"], "step": 1}\n{"event": "start", "step": 2, "device": {"a": 1}, "git": 5}\n[1]\n7\n'
    (tmp_path / "exp/log.jsonl").write_text(rows)
    settings = ReportSettings(audio=False)
    assert "MB" in write_report([tmp_path / "exp/decode/evil/greedy"], tmp_path / "page.html", settings)
