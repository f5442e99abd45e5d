"""`asrtool report`: what stands in an experiment's files is what the page says, and nothing else."""

import json

import pytest

from asrtool.config_file import save_config
from asrtool.files import write_jsonl
from asrtool.models.acoustic import AcousticModel
from asrtool.scoring.folder import score_folder
from asrtool.scoring.results import write_section
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer

GIT = {"commit": "0123456789abcdef", "dirty": False}
START = {"event": "start", "step": 0, "command": "asrtool train a.yaml --exp exp/a", "git": GIT}
START |= {"device": "CPU X, 2 threads"}
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
def make(tmp_path, tiny_config, tokenizer_file):
    """make("exp", LOG) -> an experiment folder with this log, not decoded"""

    def made(name="a", log=(), **changes):
        folder = tmp_path / name
        save_config(tiny_config(**changes), folder / "config.yaml")
        save_tokenizer(load_tokenizer(tokenizer_file), folder / "tokenizer.json")
        write_jsonl(folder / "log.jsonl", log)
        return folder

    return made


def decoded(experiment, where="decode/test/greedy", errors=1, of="words", scored=True, **facts):
    """Four utterances of four words, of which the first one has so many wrong."""
    folder = experiment / where
    hyps = [" ".join("abcd"[errors if not number else 0 :]) for number in range(4)]
    rows = [{"id": str(number), "ref": "a b c d", "hyp": hyp, "of": of} for number, hyp in enumerate(hyps)]
    write_jsonl(folder / "hyps.jsonl", rows)
    if facts:
        kind = where.split("/")[0]
        (folder / f"{kind}.json").write_text(json.dumps(facts))
    if scored:
        score_folder(folder)
    return experiment


def cells(page, row, column):
    """What the page's tables say in `column` of the rows that begin with `row`."""
    found, head = [], []
    for line in page.splitlines():
        words = [word.strip() for word in line.strip("|").split("|")] if line.startswith("|") else []
        head = words if words and not head else head if words else []
        if words[:1] == [row] and column in head:
            found.append(words[head.index(column)])
    return found


def cell(page, row, column):
    """The only one."""
    (found,) = cells(page, row, column)
    return found


@pytest.fixture
def page(asr):
    """page(exp, ...) -> what `asrtool report` prints"""

    def printed(*arguments):
        status, out, err = asr("report", *arguments)
        assert (status, err) == (0, "")
        return out

    return printed


def test_a_row_says_what_a_system_is_and_what_it_took(make, page):
    out = page(
        decoded(make(log=LOG, objective={"kind": "mmi", "ce_weight": 0.5, "intermediate_ctc": 0.3})), "--title", "All"
    )
    assert out.startswith("## All\n")
    expected = {
        "git": "0123456789",
        "units": "5 word",
        "objective": "MMI + 0.1 CTC + 0.5 CE, 0.3 of it CTC in the middle",
        "steps": "1,000",
        "hours of audio": "9.75",
        "device-hours": "0.30",
        "on": "2 x CPU X, 2 threads",
        "peak memory": "1.50 GB",
    }
    assert {column: cell(out, "`a`", column) for column in expected} == expected
    assert "# a\nasrtool train a.yaml --exp exp/a\n" in out


def test_parameters_are_all_weights_of_the_model(make, page, tiny_config):
    model = {"dim": 64, "layers": 3}
    weights = sum(p.numel() for p in AcousticModel(tiny_config(model=model), 5).parameters())
    assert cell(page(decoded(make(model=model))), "`a`", "parameters") == f"{weights / 1e6:.2f} M"


def test_what_was_not_recorded_is_a_dash(make, page):
    old = [{"event": "train", "step": 950, "hours": 9.2, "memory_gb": 1.0}, {"event": "finished", "step": 1000}]
    out = page(decoded(make(log=old)))
    for column in ("git", "hours of audio", "device-hours", "on", "peak memory"):
        assert cell(out, "`a`", column) == "-", column  # the hours of an earlier step are not those of the last one
    assert "Real-time" not in out and "Streaming" not in out and "# a: not recorded" in out


def test_a_training_that_goes_on_is_marked(make, page):
    experiment = decoded(make(log=LOG[:-1]))
    with open(experiment / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"event": "tra')  # being written
    assert cell(page(experiment), "`a`", "steps") == "1,000, unfinished"
    (experiment / "log.jsonl").unlink()
    assert cell(page(experiment), "`a`", "steps") == "-"


def test_every_start_of_a_training_and_what_decoded_it_are_named(make, page):
    dirty, later = {"git": GIT | {"dirty": True}, "ranks": 1}, {"git": {"commit": "f" * 40, "dirty": False}}
    experiment = make(log=[LOG[0], START | dirty, START | dirty, *LOG[1:]])
    out = page(decoded(experiment, **DECODED, **later, command="asrtool decode exp/a test.jsonl.gz"))
    assert cell(out, "`a`", "git") == "0123456789, 0123456789 dirty; results ffffffffff"
    assert cells(out, "`a`", "on")[0] == "2 x CPU X, 2 threads; 1 x CPU X, 2 threads"
    assert "# a\nasrtool train a.yaml --exp exp/a\nasrtool decode exp/a test.jsonl.gz\n" in out


def test_error_rates_stand_by_set_and_method(make, page):
    first, second = make("a"), make("b")
    for method, errors in (("graph", 1), ("greedy", 4), ("other", 3)):
        decoded(first, f"decode/test/{method}", errors)
    decoded(second, "decode/test/greedy", 2, of="phones")
    decoded(second, "decode/dev/greedy", 0)
    decoded(first, "decode/dev/greedy", scored=False, **DECODED)
    out = page(first, second)
    test = out[out.index("### test, 16 words") : out.index("### Real-time")]
    assert test.splitlines()[2] == "| system | greedy | graph | other |"
    assert cell(test, "`a`", "greedy").startswith("25.00 [0.00, ")
    assert cell(test, "`a`", "graph").startswith("6.25 [0.00, ")
    assert cell(test, "`b`", "greedy").startswith("PER 12.50 [") and cell(test, "`b`", "graph") == "-"
    dev = out[out.index("### dev, 16 words") : out.index("### test")]
    assert cells(dev, "`a`", "greedy") == [] and cell(dev, "`b`", "greedy") == "0.00 [0.00, 0.00]"


def test_real_time_factors_stand_with_what_they_were_measured_on(make, page):
    experiment = decoded(make(), "decode/test/greedy", **DECODED)
    decoded(experiment, "decode/dev/greedy", **DECODED | {"rtf": 0.05})
    decoded(experiment, "decode/test/graph", **DECODED | {"rtf": 0.02, "jobs": 2, "ranks": 3})
    out = page(experiment)
    rows = cells(out, "`a`", "on")[1:]  # behind what it was trained on
    usual = "CPU X, 2 threads, batches of 200 s"
    assert sorted(rows) == [usual, f"{usual}, 3 processes, 2 processes that search"]
    rtf = out[out.index("### Real-time factor") :]
    assert sorted(cells(rtf, "`a`", "greedy")) == ["-", "0.0300"]  # 6 s for 200 s
    assert sorted(cells(rtf, "`a`", "graph")) == ["-", "0.0200"]


def test_streaming_has_its_own_table(make, page):
    experiment = decoded(make(), "stream/test/greedy", 2, **STREAMED)
    decoded(experiment, "stream/dev/graph", scored=False, **STREAMED | {"emission": None, "offline": None})
    nothing = {"recordings": 4, "words": 0, "same_percent": 100.0}
    decoded(experiment, "stream/dev/greedy", scored=False, **STREAMED | {"offline": nothing})
    out = page(experiment)
    assert "### test" not in out
    assert cells(out, "`a`", "set") == ["dev", "dev", "test"]
    assert cells(out, "`a`", "method") == ["greedy", "graph", "greedy"]
    assert cells(out, "`a`", "same words") == ["-", "-", "99.95 %"]
    assert cells(out, "`a`", "WER")[:2] == ["-", "-"] and cells(out, "`a`", "WER")[2].startswith("12.50 [")
    assert cells(out, "`a`", "latency at most / on average") == 3 * ["167.5 / 107.5 ms"]
    assert cells(out, "`a`", "compute") == 3 * ["19.4, 31.0, 66.6 ms"]
    assert cells(out, "`a`", "emission") == ["82, 306 ms", "-", "82, 306 ms"]
    assert cells(out, "`a`", "RTF") == 3 * ["0.2500"]


def test_systems_of_one_name_are_told_apart(make, page):
    out = page(decoded(make("5h/a")), decoded(make("100h/a")))
    assert cell(out, "`5h/a`", "units") == cell(out, "`100h/a`", "units") == "5 word"


def test_the_section_takes_the_place_of_the_old_one_and_nothing_else_changes(make, asr, tmp_path):
    results, experiment = tmp_path / "RESULTS.md", decoded(make(log=LOG))
    results.write_text("# Results\n\nBefore.\n")
    options = ("--out", results, "--title", "One")
    assert asr("report", experiment, *options)[:2] == (0, "")
    first = results.read_text()
    assert first.startswith("# Results\n\nBefore.\n\n<!-- asrtool report: One from here -->\n\n## One\n")
    assert first.endswith("\n\n<!-- asrtool report: One to here -->\n")
    results.write_text(first + "\nAfter.\n")
    write_section(results, "Two", "second")
    decoded(experiment, "decode/later/greedy")
    assert asr("report", experiment, *options)[0] == 0
    text = results.read_text()
    assert text.count("## One") == 1 and "### later" in text[: text.index("After.")]
    assert text.startswith("# Results\n\nBefore.\n\n<!-- asrtool report: One")
    end = "\nAfter.\n\n<!-- asrtool report: Two from here -->\n\nsecond\n\n<!-- asrtool report: Two to here -->\n"
    assert text.endswith(end)


def test_a_cut_of_the_table_cannot_come_from_a_name(make, page):
    facts = DECODED | {"device": "CPU | with a line"}
    assert r"CPU \| with a line, batches of 200 s" in page(decoded(make(), **facts))


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (lambda make, path: path, "is not an experiment: it has no config.yaml"),
        (lambda make, path: make(), "was never scored; run `asrtool decode"),
        (lambda make, path: decoded(make(), scored=False, **DECODED), "was never scored; run `asrtool score"),
        (lambda make, path: _again(decoded(make())), "was made again since it was scored; run `asrtool score"),
        (lambda make, path: _broken(decoded(make()), "wer.json", "[]"), "is not what `asrtool score` writes"),
        (lambda make, path: _broken(decoded(make(), **DECODED), "decode.json", "{"), "decode.json:1: not JSON"),
    ],
)
def test_what_cannot_be_reported_is_one_line(make, asr, tmp_path, prepare, complaint):
    results = tmp_path / "RESULTS.md"
    status, out, err = asr("report", prepare(make, tmp_path), "--out", results)
    assert status == 2 and out == "" and complaint in err and err.count("\n") == 1
    assert not results.exists()


def _again(experiment):
    return decoded(experiment, errors=3, scored=False)


def _broken(experiment, name, text):
    (experiment / "decode/test/greedy" / name).write_text(text)
    return experiment


def test_an_experiment_is_reported_once(make, asr):
    experiment = decoded(make())
    status, _, err = asr("report", experiment, experiment / ".." / experiment.name)
    assert status == 2 and "give each one once" in err


@pytest.mark.parametrize("title", ["", "a\nb", "a --> b"])
def test_a_title_that_would_break_the_page_is_refused(make, asr, tmp_path, title):
    status, _, err = asr("report", decoded(make()), "--out", tmp_path / "page.md", "--title", title)
    assert status == 2 and "--title" in err and not (tmp_path / "page.md").exists()
