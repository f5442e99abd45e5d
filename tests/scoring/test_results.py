"""`asrtool report`: its tables show the content of the experiments' files, and "-" for anything else."""

import json

import pytest

from asrtool.config_file import save_config
from asrtool.files import write_jsonl
from asrtool.scoring.folder import score_folder
from asrtool.scoring.results import write_section
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer

GIT = {"commit": "0123456789abcdef", "dirty": False}
START = {"event": "start", "step": 0, "command": "asrtool train a.yaml --exp exp/a", "git": GIT}
START |= {"device": "CPU X, 2 threads", "parameters": 1_234_567}
LOG = [
    START | {"ranks": 2},
    {"event": "train", "step": 1000, "hours": 9.5, "peak_memory_gb": 1.5},
    {"event": "finished", "step": 1000, "hours": 9.75, "device_hours": 0.3, "peak_memory_gb": 1.25},
]
DECODED = {"audio_seconds": 100.0, "rtf": 0.01, "device": "CPU X, 2 threads", "batch_seconds": 200.0}
STREAMED = {
    "rtf": 0.25,
    "device": "CPU X, 1 threads",
    "chunk_ms": 160.0,
    "compute_ms": {"mean": 19.4, "median": 19.0, "p95": 31.0, "max": 66.6},
    "emission": {"words": 9, "final_ms": {"mean": 89.0, "median": 82.5, "p95": 306.3, "max": 915.0}},
    "latency_ms": {"max": 167.5, "mean": 107.5},
    "offline": {"recordings": 4, "words": 16, "same_percent": 99.95},
}


@pytest.fixture
def make_experiment(tmp_path, tiny_config, tokenizer_file):
    """make_experiment("exp", LOG) -> an experiment folder with this log, not decoded"""

    def make(name="a", log=(), **changes):
        folder = tmp_path / name
        save_config(tiny_config(**changes), folder / "config.yaml")
        save_tokenizer(load_tokenizer(tokenizer_file), folder / "tokenizer.json")
        write_jsonl(folder / "log.jsonl", log)
        return folder

    return make


def add_result(experiment, where="decode/test/greedy", errors=1, token_type="words", scored=True, **facts):
    """Adds a result with four utterances of four words; the first utterance has `errors` deletions."""
    folder = experiment / where
    hyps = [" ".join("abcd"[errors if not number else 0 :]) for number in range(4)]
    rows = [{"id": f"{i}", "ref": "a b c d", "hyp": hyp, "token_type": token_type} for i, hyp in enumerate(hyps)]
    write_jsonl(folder / "hyps.jsonl", rows)
    if facts:
        kind = where.split("/")[0]
        (folder / f"{kind}.json").write_text(json.dumps(facts))
    if scored:
        score_folder(folder)
    return experiment


def cells(page, row, column):
    """Returns the cells in `column` of all tables' rows that begin with `row`."""
    cells_in_column = []
    head = []
    for line in page.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        words = [word.strip() for word in line.strip("|").split("|")]
        head = head or words
        if words[0] == row and column in head:
            cells_in_column.append(words[head.index(column)])
    return cells_in_column


def cell(page, row, column):
    """Returns the only such cell."""
    (only_cell,) = cells(page, row, column)
    return only_cell


@pytest.fixture
def page(asr):
    """page(exp, ...) -> the output of `asrtool report`"""

    def report(*arguments):
        status, out, err = asr("report", *arguments)
        assert (status, err) == (0, "")
        return out

    return report


def test_a_row_describes_a_system_and_its_training(make_experiment, page):
    objective = {"kind": "mmi", "ce_weight": 0.5, "intermediate_ctc": 0.3}
    out = page(add_result(make_experiment(log=LOG, objective=objective)), "--title", "All")
    assert out.startswith("## All\n")
    expected = {
        "git": "0123456789",
        "units": "5 word",
        "objective": "MMI + 0.1 CTC + 0.5 CE, intermediate CTC 0.3",
        "parameters": "1.23 M",
        "steps": "1,000",
        "hours of audio": "9.75",
        "device-hours": "0.30",
        "hardware": "2 x CPU X, 2 threads",
        "peak memory": "1.50 GB",
    }
    assert {column: cell(out, "`a`", column) for column in expected} == expected
    assert "# a\nasrtool train a.yaml --exp exp/a\n" in out


def test_figures_that_were_not_recorded_are_dashes(make_experiment, page):
    old = [{"event": "train", "step": 950, "hours": 9.2, "memory_gb": 1.0}, {"event": "finished", "step": 1000}]
    out = page(add_result(make_experiment(log=old)))
    for column in ("git", "parameters", "hours of audio", "device-hours", "hardware", "peak memory"):
        assert cell(out, "`a`", column) == "-", column  # hours that were logged before the last step do not count
    assert "Real-time" not in out and "Streaming" not in out and "# a: not recorded" in out


def test_an_unfinished_training_is_marked(make_experiment, page):
    experiment = add_result(make_experiment(log=LOG[:-1]))
    with open(experiment / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"event": "tra')  # being written
    assert cell(page(experiment), "`a`", "steps") == "1,000, unfinished"
    (experiment / "log.jsonl").unlink()
    assert cell(page(experiment), "`a`", "steps") == "-"


def test_all_revisions_hardware_and_commands_are_listed(make_experiment, page):
    dirty, later = {"git": GIT | {"dirty": True}, "ranks": 1}, {"git": {"commit": "f" * 40, "dirty": False}}
    experiment = make_experiment(log=[LOG[0], START | dirty, START | dirty, *LOG[1:]])
    out = page(add_result(experiment, **DECODED, **later, command="asrtool decode exp/a test.jsonl.gz"))
    assert cell(out, "`a`", "git") == "0123456789, 0123456789 dirty; results ffffffffff"
    assert cells(out, "`a`", "hardware")[0] == "2 x CPU X, 2 threads; 1 x CPU X, 2 threads"
    assert "# a\nasrtool train a.yaml --exp exp/a\nasrtool decode exp/a test.jsonl.gz\n" in out


def test_error_rates_are_listed_by_set_and_method(make_experiment, page):
    first, second = make_experiment("a"), make_experiment("b")
    for method, errors in (("graph", 1), ("greedy", 4), ("other", 3)):
        add_result(first, f"decode/test/{method}", errors)
    add_result(second, "decode/test/greedy", 2, token_type="phones")
    add_result(second, "decode/dev/greedy", 0)
    add_result(first, "decode/dev/greedy", scored=False, **DECODED)
    out = page(first, second)
    test = out[out.index("### test, 16 words") : out.index("### Real-time")]
    assert test.splitlines()[2] == "| system | greedy | graph | other |"
    assert cell(test, "`a`", "greedy").startswith("25.00 [0.00, ")
    assert cell(test, "`a`", "graph").startswith("6.25 [0.00, ")
    assert cell(test, "`b`", "greedy").startswith("PER 12.50 [") and cell(test, "`b`", "graph") == "-"
    dev = out[out.index("### dev, 16 words") : out.index("### test")]
    assert cells(dev, "`a`", "greedy") == [] and cell(dev, "`b`", "greedy") == "0.00 [0.00, 0.00]"


def test_real_time_factors_are_listed_with_their_hardware(make_experiment, page):
    experiment = add_result(make_experiment(), "decode/test/greedy", **DECODED)
    add_result(experiment, "decode/dev/greedy", **DECODED | {"rtf": 0.05})
    add_result(experiment, "decode/test/graph", **DECODED | {"rtf": 0.02, "jobs": 2, "ranks": 3})
    add_result(experiment, "decode/test/prefix", **DECODED | {"precision": "bf16"})
    out = page(experiment)
    rows = cells(out, "`a`", "hardware")[1:]  # after the hardware of the training
    usual = "CPU X, 2 threads, batches of 200 s"
    bf16 = "CPU X, 2 threads, bf16, batches of 200 s"
    assert sorted(rows) == sorted([usual, bf16, f"{usual}, 3 processes, 2 search processes"])
    rtf = out[out.index("### Real-time factor") :]
    assert sorted(cells(rtf, "`a`", "greedy")) == ["-", "-", "0.0300"]  # 6 s for 200 s
    assert sorted(cells(rtf, "`a`", "graph")) == ["-", "-", "0.0200"]


def test_streaming_has_its_own_table(make_experiment, page):
    experiment = add_result(make_experiment(), "stream/test/greedy", 2, **STREAMED)
    add_result(experiment, "stream/dev/graph", scored=False, **STREAMED | {"emission": None, "offline": None})
    nothing = {"recordings": 4, "words": 0, "same_percent": 100.0}
    add_result(experiment, "stream/dev/greedy", scored=False, **STREAMED | {"offline": nothing})
    out = page(experiment)
    assert "### test" not in out
    assert cells(out, "`a`", "set") == ["dev", "dev", "test"]
    assert cells(out, "`a`", "method") == ["greedy", "graph", "greedy"]
    assert cells(out, "`a`", "words as offline") == ["-", "-", "99.95 %"]
    assert cells(out, "`a`", "WER")[:2] == ["-", "-"] and cells(out, "`a`", "WER")[2].startswith("12.50 [")
    assert cells(out, "`a`", "latency max / mean") == 3 * ["167.5 / 107.5 ms"]
    assert cells(out, "`a`", "compute time") == 3 * ["19.4, 31.0, 66.6 ms"]
    assert cells(out, "`a`", "emission delay") == ["82, 306 ms", "-", "82, 306 ms"]
    assert cells(out, "`a`", "RTF") == 3 * ["0.2500"]


def test_systems_with_the_same_folder_name_are_told_apart(make_experiment, page):
    out = page(add_result(make_experiment("5h/a")), add_result(make_experiment("100h/a")))
    assert cell(out, "`5h/a`", "units") == cell(out, "`100h/a`", "units") == "5 word"


def test_a_section_replaces_the_old_one_and_nothing_else_changes(make_experiment, asr, tmp_path):
    results, experiment = tmp_path / "RESULTS.md", add_result(make_experiment(log=LOG))
    results.write_text("# Results\n\nBefore.\n")
    options = ("--out", results, "--title", "One")
    assert asr("report", experiment, *options)[:2] == (0, "")
    first = results.read_text()
    assert first.startswith("# Results\n\nBefore.\n\n<!-- asrtool report: One from here -->\n\n## One\n")
    assert first.endswith("\n\n<!-- asrtool report: One to here -->\n")
    results.write_text(first + "\nAfter.\n")
    write_section(results, "Two", "second")
    add_result(experiment, "decode/later/greedy")
    assert asr("report", experiment, *options)[0] == 0
    text = results.read_text()
    assert text.count("## One") == 1 and "### later" in text[: text.index("After.")]
    assert text.startswith("# Results\n\nBefore.\n\n<!-- asrtool report: One")
    end = "\nAfter.\n\n<!-- asrtool report: Two from here -->\n\nsecond\n\n<!-- asrtool report: Two to here -->\n"
    assert text.endswith(end)


def test_bars_in_names_do_not_break_the_table(make_experiment, page):
    facts = DECODED | {"device": "CPU | with a line"}
    assert r"CPU \| with a line, batches of 200 s" in page(add_result(make_experiment(), **facts))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda make, path: path, "is not an experiment: it has no config.yaml"),
        (lambda make, path: make(), "was never scored; run `asrtool decode"),
        (lambda make, path: add_result(make(), scored=False, **DECODED), "was never scored; run `asrtool score"),
        (lambda make, path: _again(add_result(make())), "has changed since it was scored; run `asrtool score"),
        (lambda make, path: _broken(add_result(make()), "wer.json", "[]"), "is not what `asrtool score` writes"),
        (lambda make, path: _broken(add_result(make(), **DECODED), "decode.json", "{"), "decode.json:1: not JSON"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_refused_in_one_line(make_experiment, asr, tmp_path, prepare, message):
    results = tmp_path / "RESULTS.md"
    status, out, err = asr("report", prepare(make_experiment, tmp_path), "--out", results)
    assert status == 2 and out == "" and message in err and err.count("\n") == 1
    assert not results.exists()


def _again(experiment):
    return add_result(experiment, errors=3, scored=False)


def _broken(experiment, name, text):
    (experiment / "decode/test/greedy" / name).write_text(text)
    return experiment


def test_an_experiment_that_is_given_twice_is_refused(make_experiment, asr):
    experiment = add_result(make_experiment())
    status, _, err = asr("report", experiment, experiment / ".." / experiment.name)
    assert status == 2 and "give each one once" in err


@pytest.mark.parametrize("title", ["", "a\nb", "a --> b"])
def test_a_title_that_would_break_the_page_is_refused(make_experiment, asr, tmp_path, title):
    status, _, err = asr("report", add_result(make_experiment()), "--out", tmp_path / "page.md", "--title", title)
    assert status == 2 and "--title" in err and not (tmp_path / "page.md").exists()
