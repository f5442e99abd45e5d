"""Groups, words, confidences and curves: they have the figures of the utterances."""

from collections import Counter

import numpy as np
import pytest
from lhotse import CutSet

from asrtool.files import write_jsonl
from asrtool.pages.confidence import reliability
from asrtool.pages.curves import MAX_POINTS, curve_elements, thinned
from asrtool.pages.groups import (
    Group,
    bootstrap_interval,
    group_table,
    groups_by_measure,
    groups_by_name,
    speaker_elements,
)
from asrtool.pages.recordings import utterance_note
from asrtool.pages.results import DecodedUtterance
from asrtool.pages.words import confusions, training_words, word_elements, word_errors
from asrtool.scoring.groups import MIN_UTTERANCES
from asrtool.scoring.wer import align_words, count_word_errors


def utterance(ref, hyp, name="u", **row):
    pairs = align_words(ref, hyp)
    return DecodedUtterance(name, ref, hyp, pairs, count_word_errors(pairs), row)


def test_groups_of_a_measure_are_ordered_complete_and_do_not_divide_equal_values():
    values = [1.0] * 30 + [float(n) for n in range(2, 50)]
    utterances = [utterance("a b", "a b", str(n), value=value) for n, value in enumerate(values)]
    utterances.append(utterance("a", "a", "unknown", value=None))
    groups = groups_by_measure(utterances, lambda u: u.row["value"], "s")
    parts = [[u.row["value"] for u in group.utterances] for group in groups]
    assert sorted(sum(parts, [])) == sorted(values)
    assert all(max(one) < min(other) for one, other in zip(parts, parts[1:], strict=False))
    assert parts[0].count(1.0) == 30 and groups[0].name.startswith("1.0 to ")


def test_equal_values_and_few_utterances_are_no_groups():
    same = [utterance("a", "a", str(n), value=3.0) for n in range(50)]
    few = [utterance("a", "a", str(n), value=n) for n in range(2 * MIN_UTTERANCES - 1)]
    for utterances in (same, few, []):
        assert groups_by_measure(utterances, lambda u: u.row["value"], "s") == []


def test_speakers_are_listed_with_the_highest_rate_first():
    utterances = [utterance("a b", "a b", speaker="x"), utterance("a b", "a c", speaker="y"), utterance("a", "a")]
    groups = groups_by_name(utterances, lambda u: u.speaker)
    assert [group.name for group in groups] == ["x", "y"]
    rows = group_table("Speakers", "speaker", groups, "words")["rows"]
    assert [(row[0], row[2], row[3]) for row in rows] == [("y", 2, 50.0), ("x", 2, 0.0)]


def test_groups_of_phones_are_counted_in_phones():
    utterances = [utterance("a b", "a c", speaker=name, token_type="phones") for name in "xy"]
    bars, details = speaker_elements(groups_by_name(utterances, lambda u: u.speaker), "phones")
    assert bars["value_name"].startswith("PER") and bars["items"][0]["note"] == "2 phones, 1 utterance"
    assert [column["name"] for column in details["elements"][0]["columns"]][2:4] == ["phones", "PER %"]
    assert utterance_note(utterances[0]).startswith("1 error in 2 phones")


def test_an_interval_needs_several_utterances_that_differ():
    assert bootstrap_interval(np.array([1]), np.array([4])) is None
    assert bootstrap_interval(np.array([0, 0, 0]), np.array([4, 5, 6])) is None
    low, high = bootstrap_interval(np.array([0, 2] * 20), np.array([4] * 40))
    assert low < 25 < high and (low + high) / 2 == pytest.approx(25)
    assert Group("a", [utterance("", "a")]).rate is None


def test_confusions_are_counted_with_examples_of_different_utterances():
    utterances = [utterance("a b c d e", "a b x d e", "u1"), utterance("c", "x", "u2"), utterance("c c", "x x", "u3")]
    utterances.append(utterance("a b", "a", "u4"))
    first, second = confusions(utterances)
    assert (first.ref, first.hyp, first.count) == ("c", "x", 4)
    assert first.examples == ["a b [c > x] d e (u1)", "[c > x] (u2)"]
    assert (second.ref, second.hyp, second.examples) == ("b", "", ["a [b > -] (u4)"])


def test_words_are_grouped_by_their_count_in_the_training():
    utterances = [utterance("new often often", "x often y", "u1"), utterance("rare often", "rare often", "u2")]
    errors = word_errors(utterances)
    assert (errors["often"].count, errors["often"].wrong, errors["often"].instead) == (3, 1, {"y": 1})
    line, chart, table = word_elements(utterances, Counter({"often": 50, "rare": 1}))
    assert line["text"].startswith("1 of 5 words (20.00 %)") and "100.0 % of them are wrong" in line["text"]
    bars = {item["name"]: (round(item["value"], 1), item["note"]) for item in chart["items"]}
    expected = {"never (out of vocabulary)": (100.0, "1 word"), "once": (0.0, "1 word")}
    assert bars == expected | {"21 to 100 times": (33.3, "3 words")}
    assert table["rows"][0][:5] == ["often", 3, 1, pytest.approx(100 / 3), 50]
    (only_table,) = word_elements(utterances, None)
    assert len(only_table["columns"]) == 5
    (phones,) = word_elements(utterances, Counter({"often": 50}), "phones")  # no phone is out of a vocabulary of words
    assert phones["caption"] == "Phones with the most errors" and phones["columns"][0]["name"] == "phone"


def test_copies_of_an_utterance_at_other_speeds_count_once_in_the_training(tmp_path, corpus):
    cuts = CutSet.from_file(corpus).to_eager()
    copies = CutSet.from_cuts([*cuts, *cuts.perturb_speed(0.9), *cuts.perturb_speed(1.1)])
    copies.to_file(tmp_path / "copies.jsonl.gz")
    words = Counter(word for cut in cuts for word in cut.supervisions[0].text.split())
    assert training_words([tmp_path / "copies.jsonl.gz"]) == words == training_words([corpus])


@pytest.mark.parametrize("ids", ["a_sp{}", "a_sp{}.0"])
def test_ids_that_end_as_those_of_copies_are_utterances_of_their_own(tmp_path, corpus, ids):
    cuts = CutSet.from_cuts(cut.with_id(ids.format(n)) for n, cut in enumerate(CutSet.from_file(corpus)))
    cuts.to_file(tmp_path / "named.jsonl.gz")
    assert training_words([tmp_path / "named.jsonl.gz"]) == training_words([corpus])


def test_the_reliability_diagram_has_the_share_correct_of_each_confidence():
    confidences = [0.2] * 30 + [0.9] * 30
    is_correct = [True] * 6 + [False] * 24 + [True] * 27 + [False] * 3
    points = reliability(confidences, is_correct)
    assert points[0] == pytest.approx((0.2, 0.2)) and points[-1] == pytest.approx((0.9, 0.9))
    assert len(points) == 15 and reliability([0.5], [True]) == [(0.5, 1.0)]


def charts(folder, rows):
    write_jsonl(folder / "log.jsonl", rows)
    elements = curve_elements(folder / "log.jsonl")
    return {e["caption"]: {s["name"]: s["points"] for s in e["series"]} for e in elements if e["kind"] == "lines"}


def test_curves_have_the_values_of_the_log_and_nothing_else(tmp_path):
    rows = [{"event": "train", "step": n, "loss": 1 / n, "lr": 0.1, "gradient_norm": None} for n in (1, 2, 3)]
    rows += [{"event": "dev", "step": 3, "loss": 0.5}, {"event": "train", "step": "x", "loss": 1}, {"event": "train"}]
    drawn = charts(tmp_path, rows)
    assert drawn["Loss"] == {"training": [[1, 1], [2, 0.5], [3, 1 / 3]], "dev": [[3, 0.5]]}
    assert set(drawn) == {"Loss", "Learning rate"}


def test_each_dev_set_corpus_and_layer_has_its_own_curve(tmp_path):
    rows = [{"event": "dev", "step": 5, "loss": 1.0, "losses": {"clean": 1.0, "noisy": 2.0}}]
    rows += [{"event": "corpora", "step": 5, "loss": {"a": 3.0, "b": 4.0}}]
    rows += [{"event": "layers", "step": 5, **{f"layer_{n:03d}": float(n) for n in range(1, 13)}}]
    drawn = charts(tmp_path, rows)
    assert drawn["Loss"] == {"clean": [[5, 1.0]], "noisy": [[5, 2.0]]}
    assert drawn["Loss of each corpus"] == {"a": [[5, 3.0]], "b": [[5, 4.0]]}
    layers = list(drawn["Gradient norm of layers"])
    assert (layers[0], layers[-1]) == ("layer 001", "layer 012") and len(layers) <= 6


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(float(n), 0.0) for n in range(3 * MAX_POINTS + 1)]
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS + 1 and (kept[0], kept[-1]) == (points[0], points[-1])


def test_an_experiment_without_a_log_has_a_note(tmp_path):
    (element,) = curve_elements(tmp_path / "log.jsonl")
    assert element["tone"] == "note"


def test_a_damaged_log_has_a_note_with_its_place(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step"\n', encoding="utf-8")
    (element,) = curve_elements(tmp_path / "log.jsonl")
    assert element["tone"] == "note" and "log.jsonl:2" in element["text"]
