"""The report of an ablation: a table whose figures can be computed by hand, a result and a picture."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.tools.stub import cells


def test_the_figures_of_the_table_equal_those_computed_by_hand(run: Callable) -> None:
    text = """
threshold: 0.5
variants:
  one: {options: [--finals, "0.1,0.2,0.6"]}
  two: {options: [--finals, "0.5,0.7,0.9"]}
  gone: {options: [--finals, "0.4,nan,0.6"]}
compare: [[one, two], [one, gone]]
"""
    _, table, _, _ = run(text)
    one, two, gone = (cells(table, f"`{name}`") for name in ("one", "two", "gone"))
    # Mean 0.3, deviation sqrt(0.14 / 2) = 0.264575, t(2) = 4.302653, half 0.657242; and 0.7, 0.2, half 0.496828.
    assert one["final dev loss"] == "0.3 [-0.3572, 0.9572]"
    assert two["final dev loss"] == "0.7 [0.2032, 1.197]"
    # Mean 0.5, deviation 0.141421, t(1) = 12.706205, half 1.270620.
    assert gone["final dev loss"] == "0.5 [-0.7706, 1.771], 1 diverged"
    # Differences -0.4, -0.5, -0.3: mean -0.4, deviation 0.1, half 0.248414; and -0.3, 0: mean -0.15, half 1.905931.
    assert cells(table, "`one` - `two`")["final dev loss"] == "-0.4 [-0.6484, -0.1516]"
    assert cells(table, "`one` - `gone`")["final dev loss"] == "-0.15 [-2.056, 1.756], 1 diverged"
    below = "dev loss below 0.5 at step"  # a dev loss of twice the final one at step 100, the final one at 200
    assert (one[below], two[below], gone[below]) == ("100 (2 of 3)", "never (0 of 3)", "never (1 of 3)")
    assert (one["steps"], one["hours of audio"], one["best"], one["failed"]) == ("200", "1.50", "0.1", "0")
    assert "ablations.py" in table and "1 threads" in table
    _, table, _, _ = run(text, "--seeds", "1")
    assert cells(table, "`one`")["final dev loss"] == "0.1 [n/a]"
    assert cells(table, "`one` - `two`")["final dev loss"] == "-0.4 [n/a]"


def test_a_section_is_replaced_and_the_rest_of_the_file_is_unchanged(run: Callable, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    options = ("--results", str(results), "--seeds", "1")
    results.write_text("# Results\n\nBefore.\n")
    run("variants: {one: {}}", *options)
    first = results.read_text()
    assert first.startswith("# Results\n\nBefore.\n\n<!-- ablation: An ablation from here -->\n\n## An ablation\n")
    assert first.endswith("<!-- ablation: An ablation to here -->\n")
    results.write_text(first + "\nAfter.\n")
    run("variants: {one: {}, two: {}}", *options)
    second = results.read_text()
    assert second.startswith("# Results\n\nBefore.\n\n<!-- ablation") and second.endswith("to here -->\n\nAfter.\n")
    assert second.count("from here") == second.count("to here") == 1 and "`two`" in second
    results.write_text("<!-- ablation: An ablation from here -->\nno end\n")
    status, _, error, _ = run("variants: {one: {}}", *options)
    assert status == 2 and "need both" in error
    assert results.read_text() == "<!-- ablation: An ablation from here -->\nno end\n"


def test_the_result_depends_on_all_expectations_and_has_its_explanation(run: Callable) -> None:
    text = """
variants:
  one: {options: [--finals, "0.1,0.2,0.1"]}
  two: {options: [--finals, "0.5,0.7,0.6"]}
  gone: {options: [--end, failed]}
explanation: {supported: So it is., refuted: Who knows.}
"""
    table = run(text + "expect: [one < two]", "--only", "one")[1]
    assert "**Result: pending** (`one < two` pending, 3 of 6 runs to go)." in table
    table = run(text + "expect: [one < two, gone > 2]")[1]
    assert "**Result: supported** (`one < two` supported, difference [" in table
    assert "`gone > 2` supported, 3 of 3 seeds). So it is." in table
    assert "**Result: refuted** (`two < one` refuted" in run(text + "expect: [two < one, one < 2]")[1]
    table = run(text + "expect: [two < one]\nmeasure: mean")[1]  # of two losses, of which the first is twice the last
    assert (
        cells(table, "`one`")["mean dev loss"].startswith("0.2 [")
        and "Mean dev loss: mean over all validations" in table
    )


def test_picture_is_drawn_and_shown_in_the_results(run: Callable, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    text = "variants: {one: {}, gone: {options: [--end, failed]}}\nexpect: [one < 2]"
    run(text, "--seeds", "1,2", "--results", str(results), "--pictures", str(tmp_path / "pictures"))
    assert (tmp_path / "pictures" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "![dev losses of An ablation](pictures/ablation.png)" in results.read_text()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_gradients_of_the_lowest_and_the_highest_block_are_compared(run: Callable, tmp_path: Path) -> None:
    run("variants: {one: {}}", "--seeds", "1")
    with open(tmp_path / "one" / "1" / "log.jsonl", "a") as log:
        for step, low in ((1, 3.0), (2, 1.0)):
            row = {"event": "layers", "step": step, "layer_001": low, "layer_012": 2.0, "output": 9.0}
            log.write(json.dumps(row) + "\n")
    table = run("variants: {one: {}}", "--seeds", "1")[1]
    assert cells(table, "`one`")["lowest / highest gradient"] == "1.5, then 0.5"


def test_results_with_overview_comments_get_a_table_of_all_ablations_by_number(run: Callable, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    begin, end = (f"<!-- ablations: overview {which} here -->" for which in ("from", "to"))
    results.write_text(f"# Results\n\n{begin}\n{end}\n")
    variants = "variants: {one: {options: [--finals, 0.1]}}\nexpect: [one < 2]"
    others = ["name: 'T2: more, of it'\n" + variants, "name: 'T1: less'\n" + variants.replace("<", ">")]
    run("name: T10\n" + variants, "--results", str(results), "--seeds", "1", others=others)
    table = results.read_text().partition(begin)[2].partition(end)[0]
    assert table.strip().splitlines()[2:] == [
        "| [T1: less](#t1-less) | one is better | refuted |",
        "| [T2: more, of it](#t2-more-of-it) | one is better | supported |",
        "| [T10](#t10) | one is better | supported |",
    ]
