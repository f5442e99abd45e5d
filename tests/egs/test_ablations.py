"""The paper's claims as a recipe: every one is ready to run, and a tiny one runs from features to a verdict."""

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
CLAIMS = sorted((RECIPE / "claims").glob("T*.yaml"))


def run(*options: object, status: int = 0) -> str:
    """Run ablations.sh; its output, stdout and stderr together."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(RECIPE / "ablations.sh"), *map(str, options)]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_there_are_twelve_claims() -> None:
    assert {path.stem for path in CLAIMS} == {f"T{number}" for number in range(1, 13)}


@pytest.mark.parametrize("scale", ["small", "full"])
def test_claims_load_agree_and_are_equal_in_what_they_say(
    scale: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arms, made = load_tool("arms", monkeypatch), {}
    given = arms.options().parse_args([*map(str, CLAIMS), "--work", str(tmp_path), "--scale", scale, "--seeds", "1"])
    for path in CLAIMS:
        claim = arms.load_claim(path, scale)
        assert arms.make_runs(claim, given, made)  # whose settings are valid, and those of the same arm elsewhere
        claim.check_equal()
        assert claim.expect and set(claim.why) == {"confirmed", "not confirmed at this scale", "contradicted"}
        assert len(claim.seeds) >= 3
        if path.stem not in ("T1", "T3"):  # which compare nothing
            assert "parameters" in claim.equal
        assert ("latency" in claim.equal) == (path.stem in ("T8", "T9", "T10"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a recipe whose stages 0 to 4 are done, of tones."""
    folder = tmp_path_factory.mktemp("my claims")
    (folder / "data" / "lang_phone").mkdir(parents=True)
    (folder / "data" / "fbank").mkdir()
    corpus = make_corpus(folder)
    make_tokenizer(folder / "data" / "lang_phone")
    for name in ("train", "dev"):  # on the fly: a manifest of audio is as good here as one of features
        (folder / "data" / "fbank" / f"{name}.jsonl.gz").write_bytes(corpus.read_bytes())
    tokenizer = folder / "data" / "lang_phone" / "tokenizer.json"
    train(make_config(corpus, tokenizer), folder / FROM, device="cpu")
    return folder


@pytest.fixture(scope="module")
def claims(work: Path) -> Path:
    """A folder of one claim, for seconds."""
    sets = {"train": "data/claims/train.jsonl.gz", "dev": "data/claims/dev.jsonl.gz"}
    data = TINY["data"] | sets | {"tokenizer": "data/lang_phone/tokenizer.json"}
    (work / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"data": data, "objective": {"kind": "ce"}}))
    claim = {"name": "T1: tones", "claim": "they are learnt", "seeds": [1], "conf": "tiny.yaml"}
    claim |= {"arms": {"one": {}}, "expect": ["one < 1000"], "why": {"confirmed": "Anything is below that."}}
    (work / "T1.yaml").write_text(yaml.safe_dump(claim))
    return work


@pytest.mark.slow
def test_a_claim_runs_from_features_to_picture_and_verdict(work: Path, claims: Path) -> None:
    output = run("--claims", claims, "--work", work, "--from", FROM, "--minutes", 0.3, "--only", "T1")
    assert "of 3 speakers" in output and "one, seed 1: finished" in output
    results = (work / "RESULTS.md").read_text()
    assert "**Verdict: confirmed** (`one < 1000` confirmed, 1 of 1 seeds). Anything is below that." in results
    assert "bash egs/librispeech/ablations.sh --only T1 --scale small" in results
    assert "![dev losses of T1: tones](pictures/T1.png)" in results
    assert (work / "pictures" / "T1.png").read_bytes().startswith(b"\x89PNG")


def test_list_trains_nothing(work: Path, claims: Path) -> None:
    output = run("--claims", claims, "--work", work, "--minutes", 1, "--list", "true")
    assert "| T1 | one |" in output and not (work / "exp" / "claims_1").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "T13"], "there is no claim 'T13'"),
        (["--scale", "huge"], "--scale is small or full"),
        (["--jobs", "0"], "--jobs"),
        (["--work", "/nowhere"], "run.sh --units phone --stop-stage 4"),
        (["--claims", "/nowhere"], "no claims in '/nowhere'"),
        (["--onyl", "T1"], "unknown option"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(options: list, message: str) -> None:
    output = run(*options, status=2)
    assert len(output.splitlines()) == 1 and message in output


def test_missing_features_are_named(tmp_path: Path) -> None:
    output = run("--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and f"data/fbank/train.jsonl.gz is missing in {tmp_path}" in output


@pytest.fixture
def choose_cuts(monkeypatch: pytest.MonkeyPatch):
    """local/choose_cuts.py as a module."""
    monkeypatch.syspath_prepend(str(RECIPE / "local"))
    import choose_cuts

    return choose_cuts


def test_speech_is_chosen_evenly_and_always_alike(choose_cuts) -> None:
    speakers = {f"{speaker}-{number}": speaker for speaker in "abc" for number in range(90 if speaker == "a" else 30)}
    seconds = {name: 10.0 + int(name[2:]) % 5 for name in speakers}
    chosen = choose_cuts.choose(seconds, speakers, 600.0)
    heard = {one: sum(seconds[name] for name in chosen if speakers[name] == one) for one in "abc"}
    assert 600 <= sum(heard.values()) < 615 and max(heard.values()) - min(heard.values()) <= 14
    assert chosen == choose_cuts.choose(dict(reversed(seconds.items())), speakers, 600.0)
    assert chosen < choose_cuts.choose(seconds, speakers, 700.0)
    with pytest.raises(choose_cuts.UserError, match="minutes in all"):
        choose_cuts.choose(seconds, speakers, 1e6)
