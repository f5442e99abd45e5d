"""The ablations of the LibriSpeech recipe: all of them are valid, and a tiny one runs from features to a result."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asrtool.training.train import train
from tests.tiny import TINY, make_config, make_corpus, make_tokenizer
from tests.tools.load import load_tool

RECIPE = Path(__file__).parents[2] / "egs" / "librispeech"
FROM = "exp/tiny_phone_seed1"
ABLATIONS = sorted((RECIPE / "ablations").glob("T*.yaml"))


def run(*options: object, status: int = 0) -> str:
    """Runs ablations.sh; returns its output, stdout and stderr together."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(RECIPE / "ablations.sh"), *map(str, options)]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_there_are_twelve_ablations() -> None:
    assert {path.stem for path in ABLATIONS} == {f"T{number}" for number in range(1, 13)}


@pytest.mark.parametrize("scale", ["small", "full"])
def test_ablations_are_valid_consistent_and_compare_matched_systems(
    scale: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = load_tool("ablations", monkeypatch)
    words = [*map(str, ABLATIONS), "--work", str(tmp_path), "--scale", scale, "--seeds", "1"]
    arguments = tool.options().parse_args(words)
    known = {}
    for path in ABLATIONS:
        ablation = tool.load_ablation(path, scale)
        assert tool.make_runs(ablation, arguments, known)  # valid settings, the same for variants of the same name
        ablation.check_equal()
        assert ablation.expect and set(ablation.explanation) == {"supported", "inconclusive", "refuted"}
        assert len(ablation.seeds) >= 3
        if path.stem not in ("T1", "T3"):  # these compare no variants
            assert "parameters" in ablation.equal
        assert ("latency" in ablation.equal) == (path.stem in ("T8", "T9", "T10"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a recipe whose stages 0 to 4 are done, with a corpus of tones."""
    folder = tmp_path_factory.mktemp("my ablations")
    (folder / "data" / "lang_phone").mkdir(parents=True)
    (folder / "data" / "fbank").mkdir()
    corpus = make_corpus(folder)
    make_tokenizer(folder / "data" / "lang_phone")
    for name in ("train", "dev"):  # features are computed on the fly
        (folder / "data" / "fbank" / f"{name}.jsonl.gz").write_bytes(corpus.read_bytes())
    tokenizer = folder / "data" / "lang_phone" / "tokenizer.json"
    train(make_config(corpus, tokenizer), folder / FROM, device="cpu")
    return folder


@pytest.fixture(scope="module")
def ablations(work: Path) -> Path:
    """A folder with one ablation that takes seconds."""
    sets = {"train": "data/ablations/train.jsonl.gz", "dev": "data/ablations/dev.jsonl.gz"}
    data = TINY["data"] | sets | {"tokenizer": "data/lang_phone/tokenizer.json"}
    (work / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"data": data, "objective": {"kind": "ce"}}))
    ablation = {"name": "T1: tones", "hypothesis": "they are learnt", "seeds": [1], "conf": "tiny.yaml"}
    ablation |= {"variants": {"one": {}}, "expect": ["one < 1000"]}
    ablation["explanation"] = {"supported": "Any loss is below that."}
    (work / "T1.yaml").write_text(yaml.safe_dump(ablation))
    return work


@pytest.mark.slow
def test_an_ablation_runs_from_features_to_picture_and_result(work: Path, ablations: Path) -> None:
    output = run("--ablations", ablations, "--work", work, "--from", FROM, "--minutes", 0.3, "--only", "T1")
    assert "of 3 speakers" in output and "one, seed 1: finished" in output
    results = (work / "RESULTS.md").read_text()
    assert "**Result: supported** (`one < 1000` supported, 1 of 1 seeds). Any loss is below that." in results
    assert "bash egs/librispeech/ablations.sh --only T1 --scale small" in results
    assert "![dev losses of T1: tones](pictures/T1.png)" in results
    assert (work / "pictures" / "T1.png").read_bytes().startswith(b"\x89PNG")


def test_list_trains_nothing(work: Path, ablations: Path) -> None:
    output = run("--ablations", ablations, "--work", work, "--minutes", 1, "--list", "true")
    assert "| T1 | one |" in output and not (work / "exp" / "ablations_1").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "T13"], "there is no ablation 'T13'"),
        (["--scale", "huge"], "--scale is small or full"),
        (["--jobs", "0"], "--jobs"),
        (["--work", "/nowhere"], "run.sh --units phone --stop-stage 4"),
        (["--ablations", "/nowhere"], "no ablations in '/nowhere'"),
        (["--onyl", "T1"], "unknown option"),
    ],
)
def test_a_wrong_option_prints_one_line_and_exits_with_status_2(options: list, message: str) -> None:
    output = run(*options, status=2)
    assert len(output.splitlines()) == 1 and message in output


@pytest.mark.parametrize(("minutes", "data"), [(60, "ablations"), (0.3, "ablations_0.3")])
def test_data_that_another_run_trains_on_are_not_replaced(tmp_path: Path, minutes: float, data: str) -> None:
    for name in ("data/fbank/train.jsonl.gz", "data/fbank/dev.jsonl.gz", "data/lang_phone/tokenizer.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "exp/old/checkpoints").mkdir(parents=True)
    (tmp_path / "exp/old/checkpoints/averaged.pt").touch()
    (tmp_path / "data" / data).mkdir()
    (tmp_path / "data" / data / "made_from").write_text("others")
    with open(tmp_path / f"data/{data}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as the other run does
        output = run("--work", tmp_path, "--from", "exp/old", "--minutes", minutes, status=2)
    assert len(output.splitlines()) == 1 and f"another ablations.sh uses {tmp_path}/data/{data}: wait" in output
    assert (tmp_path / "data" / data / "made_from").read_text() == "others"


def test_missing_features_are_named(tmp_path: Path) -> None:
    output = run("--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and f"data/fbank/train.jsonl.gz is missing in {tmp_path}" in output


@pytest.fixture
def choose_cuts(monkeypatch: pytest.MonkeyPatch):
    """local/choose_cuts.py as a module."""
    monkeypatch.syspath_prepend(str(RECIPE / "local"))
    import choose_cuts

    return choose_cuts


def test_cuts_are_chosen_evenly_over_speakers_and_reproducibly(choose_cuts) -> None:
    speakers = {f"{speaker}-{number}": speaker for speaker in "abc" for number in range(90 if speaker == "a" else 30)}
    seconds = {name: 10.0 + int(name[2:]) % 5 for name in speakers}
    chosen = choose_cuts.choose(seconds, speakers, 600.0)
    chosen_seconds = {one: sum(seconds[name] for name in chosen if speakers[name] == one) for one in "abc"}
    assert (
        600 <= sum(chosen_seconds.values()) < 615 and max(chosen_seconds.values()) - min(chosen_seconds.values()) <= 14
    )
    assert chosen == choose_cuts.choose(dict(reversed(seconds.items())), speakers, 600.0)
    assert chosen < choose_cuts.choose(seconds, speakers, 700.0)
    with pytest.raises(choose_cuts.UserError, match="minutes in all"):
        choose_cuts.choose(seconds, speakers, 1e6)
