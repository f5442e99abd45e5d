"""Combination of systems: alignments against an exhaustive search, votes, times, and results that do not fit."""

import json
from functools import cache

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from asrtool.cli import cli
from asrtool.decoding.combination import combine_folders, combine_rows
from asrtool.decoding.confusion_network import INSERT, MATCH, NO_WORD, SKIP, Alternative, ConfusionNetwork, align
from asrtool.errors import DataError, UserError
from asrtool.scoring.folder import read_hypotheses, score_folder

WORDS = st.lists(st.sampled_from("ABC"), max_size=4)
SLOTS = st.lists(
    st.dictionaries(st.sampled_from(["A", "B", NO_WORD]), st.sampled_from([0.25, 0.5]), min_size=1), max_size=4
)


def errors(slot, total, word):
    return total - (slot[word].probability if word in slot else 0.0)


def fewest_expected_errors(slots, total, words):
    """Over all alignments, by recursion."""

    @cache
    def least(slot, word):
        costs = [0.0] if (slot, word) == (len(slots), len(words)) else []
        if slot < len(slots):
            costs.append(errors(slots[slot], total, NO_WORD) + least(slot + 1, word))
        if word < len(words):
            costs.append(total + least(slot, word + 1))
        if slot < len(slots) and word < len(words):
            costs.append(errors(slots[slot], total, words[word]) + least(slot + 1, word + 1))
        return min(costs)

    return least(0, 0)


@given(SLOTS, WORDS)
def test_an_alignment_has_the_fewest_expected_errors(probabilities, words):
    slots = [{word: Alternative(value) for word, value in slot.items()} for slot in probabilities]
    steps = align(slots, 1.0, words)
    cost = {
        MATCH: lambda slot, word: errors(slots[slot], 1.0, words[word]),
        SKIP: lambda slot, _: errors(slots[slot], 1.0, NO_WORD),
        INSERT: lambda *_: 1.0,
    }
    assert sum(cost[kind](slot, word) for kind, slot, word in steps) == fewest_expected_errors(slots, 1.0, words)
    assert [slot for kind, slot, _ in steps if kind != INSERT] == list(range(len(slots)))
    assert [word for kind, _, word in steps if kind != SKIP] == list(range(len(words)))


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_probabilities_of_each_slot_sum_to_one_and_a_sentence_alone_stays(sentences):
    network = ConfusionNetwork()
    for number, words in enumerate(sentences, 1):
        network.add(words, 1.0)
        assert network.total == number
        assert all(sum(one.probability for one in slot.values()) == number for slot in network.slots)
    only = ConfusionNetwork()
    only.add(sentences[0], 0.3)
    assert [word.text for word in only.best_words()] == sentences[0]


def row(hyp, **more):
    return {"id": "u1", "speaker": "s", "ref": "THE CAT SAT DOWN", "hyp": hyp} | more


def timed(*words):
    return [[word, 0.5 * place, 0.5 * place + 0.4, 0.9] for place, word in enumerate(words)]


def test_a_majority_wins_in_each_place_and_may_be_a_sentence_of_no_system():
    made = combine_rows([row("THE CAT SANG DOWN"), row("A CAT SAT DOWN"), row("THE HAT SAT")], [1, 1, 1])
    assert made["hyp"] == "THE CAT SAT DOWN" and made["id"] == "u1" and made["speaker"] == "s"
    assert made["confidence"] == pytest.approx(2 / 3, abs=1e-3)


def test_weights_decide_where_systems_disagree():
    rows = [row("THE CAT"), row("A CAT SAT")]
    assert combine_rows(rows, [2, 1])["hyp"] == "THE CAT"
    assert combine_rows(rows, [1, 2])["hyp"] == "A CAT SAT"
    assert combine_rows(rows, [1, 0])["hyp"] == "THE CAT"


def test_a_list_of_hypotheses_counts_by_its_scores():
    unsure = row("A", nbest=[{"hyp": "A", "score": -1.0}, {"hyp": "B", "score": -1.1}, {"hyp": "C", "score": -90.0}])
    other = row("B")
    assert combine_rows([unsure, other], [1, 0.9])["hyp"] == "B"  # A has 0.52 of 1, B 0.48 of 1 and 0.9
    assert combine_rows([row("A"), other], [1, 0.9])["hyp"] == "A"
    assert combine_rows([unsure, other], [1, 0.01], scale=100.0)["hyp"] == "A"


def test_words_have_the_times_of_the_most_probable_hypothesis_that_has_them():
    first = row("THE CAT", words=timed("THE", "CAT"))
    second = row("THE HAT SAT", words=[["THE", 0.1, 0.2, 0.9], ["HAT", 0.3, 0.4, 0.9], ["SAT", 1.0, 1.4, 0.9]])
    made = combine_rows([first, second, row("CAT SAT")], [1.1, 1, 1])
    assert [entry[:3] for entry in made["words"]] == [["THE", 0.0, 0.4], ["CAT", 0.5, 0.9], ["SAT", 1.0, 1.4]]
    assert [entry[3] for entry in made["words"]] == pytest.approx([2.1 / 3.1, 2.1 / 3.1, 2 / 3.1], abs=1e-3)
    assert "words" not in combine_rows([row("THE"), row("THE", words=[["THE", 0.1]])], [1, 1])


def confident(**confidences):
    """A row of these words with confidences."""
    words = [[word, 0.5 * place, 0.5 * place + 0.4, value] for place, (word, value) in enumerate(confidences.items())]
    return row(" ".join(confidences), words=words)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (confident(THE=0.9, CAT=0.2), confident(THE=0.9, HAT=0.8), "THE HAT"),
        (confident(THE=0.9, CAT=0.8), confident(THE=0.9, HAT=0.2), "THE CAT"),
        (confident(THE=0.9), confident(THE=0.9, CAT=0.8), "THE CAT"),
        (confident(THE=0.9), confident(THE=0.9, CAT=0.2), "THE"),
        (confident(THE=0.9, BIG=0.1, CAT=0.9), confident(THE=0.9, CAT=0.9), "THE CAT"),
        (confident(THE=0.9), confident(CAT=0.8, THE=0.9), "CAT THE"),
        (row("THE"), row("THE CAT"), "THE CAT"),  # without confidences, a word rather than no word
        (row(""), row("CAT"), "CAT"),
    ],
)
def test_where_two_hypotheses_differ_the_most_confident_word_wins(first, second, words):
    assert combine_rows([first, second], [1, 1])["hyp"] == words
    assert combine_rows([second, first], [1, 1])["hyp"] == words


def test_confidences_do_not_outvote_a_majority():
    unsure = confident(CAT=0.1)
    assert combine_rows([unsure, confident(HAT=1.0), unsure], [1, 1, 1])["hyp"] == "CAT"
    assert combine_rows([unsure, confident(HAT=1.0)], [2, 1])["hyp"] == "CAT"


def result(folder, *rows, **facts):
    folder.mkdir(parents=True)
    (folder / "hyps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "decode.json").write_text(json.dumps({"set": "test", "audio_seconds": 9.0, "rtf": 0.01} | facts))
    return folder


@pytest.fixture
def systems(tmp_path):
    texts = {"a": "THE CAT SANG DOWN", "b": "A CAT SAT DOWN", "c": "THE HAT SAT"}
    return [result(tmp_path / name, row(text), row("YES", id="u2", ref="YES")) for name, text in texts.items()]


def test_a_combined_folder_can_be_scored_and_compared(systems, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["combine", *map(str, systems), "--out", str(out)])
    assert done.exit_code == 0 and "2 utterances of 3 systems" in done.output
    assert [one["hyp"] for one in read_hypotheses(out / "hyps.jsonl")] == ["THE CAT SAT DOWN", "YES"]
    assert score_folder(out).words.errors == 0
    facts = json.loads((out / "decode.json").read_text())
    assert (facts["set"], facts["audio_seconds"], facts["rtf"]) == ("test", 9.0, 0.03)


def test_another_combination_replaces_a_result_only_if_asked(systems, tmp_path):
    combine_folders(systems, tmp_path / "out")
    combine_folders(systems, tmp_path / "out")
    with pytest.raises(UserError, match="--overwrite"):
        combine_folders(systems, tmp_path / "out", [1, 2, 1])
    combine_folders(systems, tmp_path / "out", [1, 9, 1], overwrite=True)
    assert read_hypotheses(tmp_path / "out" / "hyps.jsonl")[0]["hyp"] == "A CAT SAT DOWN"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folders, out: (folders[:1], out), "two or more"),
        (lambda folders, out: ([folders[0], folders[0]], out), "is given twice"),
        (lambda folders, out: (folders, folders[1]), "is one of the results"),
        (lambda folders, out: (folders, out, [1, 2]), "--system-weight is given 2 times for 3 results"),
        (lambda folders, out: (folders, out, [0, 0, 0]), "all weights are 0"),
        (lambda folders, out: ([*folders, result(out.with_name("x"), row("A", token_type="phones"))], out), "one type"),
        (
            lambda folders, out: ([*folders, result(out.with_name("x"), row("A", nbest=[{"hyp": "A"}]))], out),
            "nbest.0.score",
        ),
        (
            lambda folders, out: ([*folders, result(out.with_name("x"), row("A", words=[["A", "now"]]))], out),
            "u1: words.0",
        ),
        (lambda folders, out: ([*folders, out / "missing"], out), "hypotheses"),
    ],
)
def test_what_cannot_be_combined_is_refused(systems, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        combine_folders(*change(systems, tmp_path / "out"))
    assert not (tmp_path / "out" / "hyps.jsonl").exists()


def test_utterances_that_are_not_in_all_results_are_listed(systems, tmp_path):
    other = result(tmp_path / "other", row("A", ref="A CAT"), row("NO", id="u3"))
    with pytest.raises(DataError) as error:
        combine_folders([systems[0], other], tmp_path / "out")
    assert [problem.split(":")[0] for problem in error.value.problems] == ["u1", "u2", "u3"]
