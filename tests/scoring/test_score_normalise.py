"""Results that were scored with rules of normalisation: reports, pages and comparisons show the same rates."""

import json

import pytest

from asrtool.errors import UserError
from asrtool.pages.comparison import compare_systems
from asrtool.pages.results import read_errors, total_counts
from asrtool.scoring.folder import compare_folders, score_folder
from asrtool.scoring.results import normalisation_note
from asrtool.scoring.systems import DecodingSummary, SystemSummary, read_results
from asrtool.text.normalisation_rules import load_rules


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("case: lower\n")
    return load_rules(path)


@pytest.fixture
def results(tmp_path):
    """Two results of one set whose hypotheses differ from the references in case."""
    folders = [tmp_path / name / "decode" / "test" / "greedy" for name in ("one", "two")]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        rows = [{"id": f"u{n}", "ref": "The cat", "hyp": "the CAT" if n else f"the dog{number}"} for n in range(3)]
        (folder / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folders


def test_pages_show_the_rate_of_the_score(results, rules):
    score = score_folder(results[0], rules=rules)
    page = read_errors(results[0])
    assert total_counts(page.utterances) == score.words and "normalised" in page.notes[0]
    assert total_counts(read_errors(results[1]).utterances) != score.words


def test_comparisons_normalise_as_the_results_were_scored(results, rules):
    rates = [score_folder(folder, rules=rules).wer for folder in results]
    [comparison] = compare_systems(results)
    assert comparison.rates == pytest.approx(rates) and "normalised" in comparison.notes[-1]


def test_results_of_different_rules_are_not_compared(results, rules):
    score_folder(results[0], rules=rules)
    score_folder(results[1])
    with pytest.raises(UserError, match="different rules"):
        compare_systems(results)
    with pytest.raises(UserError, match="other rules"):
        compare_folders(results[:1], results[1:], rules)
    with pytest.raises(UserError, match="other rules"):
        compare_folders(results[1:], results[:1])
    score_folder(results[1], rules=rules)
    assert compare_folders(results[:1], results[1:], rules).difference == pytest.approx(0)


def system(folder):
    decodings: list[DecodingSummary] = read_results(folder.parents[1])
    return SystemSummary("name", "", "", None, decodings, [])


def test_the_markdown_says_how_a_set_was_normalised(results, rules):
    score_folder(results[0])
    score_folder(results[1])
    assert not normalisation_note([system(folder) for folder in results], "test")
    score_folder(results[0], rules=rules)
    assert "cannot be compared" in normalisation_note([system(folder) for folder in results], "test")
    score_folder(results[1], rules=rules)
    assert "were normalised" in normalisation_note([system(folder) for folder in results], "test")


@pytest.mark.parametrize("stored", [3, {"case": "odd"}, ["lower"]])
def test_damaged_rules_are_one_line(results, rules, stored):
    score_folder(results[0], rules=rules)
    path = results[0] / "wer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalised_by": stored}))
    with pytest.raises(UserError, match="no rules of"):
        read_errors(results[0])
