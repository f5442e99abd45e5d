"""What adaptation refuses, leaves alone and says when it breaks."""

import json
import shutil

import pytest
import torch
from lhotse import CutSet

from asrtool import checkpoint
from asrtool.adapted_weights import MARKER, AdaptedWeights, read_adaptation_info, weights_file
from asrtool.data.speaker_transforms import save_transforms
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.training import speaker_trainer as module
from tests.tiny import equal, make_experiment

SPEAKERS = "abc"


@pytest.fixture
def exp(tiny_config, tokenizer_file, tmp_path):
    """An experiment whose configuration names a noise manifest that runs a command."""
    noise = tmp_path / "noise.jsonl"
    source = {"type": "command", "channels": [0], "source": f"touch {tmp_path / 'PWNED'}"}
    recording = {"id": "n", "sources": [source], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    cut = {"id": "n", "start": 0, "duration": 1.0, "channel": 0, "supervisions": [], "recording": recording}
    noise.write_text(json.dumps(cut | {"type": "MonoCut"}) + "\n")
    config = tiny_config(data={"augment": {"noise": str(noise), "noise_probability": 1.0}})
    return make_experiment(tmp_path / "exp", config, tokenizer_file, bias=0.0)


def weights(folder, speaker):
    return checkpoint.load_checkpoint(weights_file(folder, speaker))["model"]


def base_weights(exp):
    return checkpoint.load_checkpoint(exp / "checkpoints/best.pt")["model"]


def test_the_noise_manifest_of_the_training_is_not_opened(asr, exp, corpus, tmp_path):
    status, _, err = asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)
    assert status == 0 and "without the noise that the training had" in err
    assert not (tmp_path / "PWNED").exists()
    status, _, err = asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1, "--noise", tmp_path / "noise.jsonl")
    assert status != 0 and "--allow-commands" in err and not (tmp_path / "PWNED").exists()


def test_noise_given_as_an_option_is_mixed_in(asr, exp, corpus):
    options = ["--workers", 0, "--epochs", 1, "--lr", 1e-2]
    assert asr("adapt", exp, corpus, *options)[0] == 0
    status, _, err = asr("adapt", exp, corpus, *options, "--noise", corpus, "--out", exp / "noisy")
    assert status == 0 and "without the noise" not in err
    assert not equal(weights(exp / "noisy", "a"), weights(exp / "adapted/cuts", "a"))


def test_systems_of_stored_features_adapt_on_audio_and_with_noise(asr, corpus, tiny_config, tokenizer_file, tmp_path):
    """Manifests with stored features and without; the samples of stored ones cannot be augmented."""
    config = tiny_config(features={"source": "stored"})
    exp = make_experiment(tmp_path / "exp", config, tokenizer_file, bias=0.0)
    stored = tmp_path / "stored.jsonl.gz"
    assert asr("features", corpus, stored, "--num-bins", 20)[0] == 0
    options = ["--workers", 0, "--epochs", 1, "--lr", 1e-2]
    runs = [(corpus, []), (stored, []), (stored, ["--noise", corpus])]
    for number, (manifest, noise) in enumerate(runs):
        status, _, err = asr("adapt", exp, manifest, "--out", tmp_path / f"{number}", *options, *noise)
        assert status == 0, err
    assert not equal(weights(tmp_path / "1", "a"), weights(tmp_path / "2", "a"))


def test_transforms_are_refused_where_the_training_changes_the_speed(
    asr, corpus, tiny_config, tokenizer_file, tmp_path
):
    exp = make_experiment(tmp_path / "exp", tiny_config(data={"augment": {"speeds": [0.9, 1.0]}}), tokenizer_file)
    save_transforms(tmp_path / "own.pt", {speaker: torch.eye(20, 21) for speaker in SPEAKERS}, 20, {})
    status, _, err = asr("adapt", exp, corpus, "--transforms", tmp_path / "own.pt")
    assert status == 2 and "speeds 0.9, 1; leave --transforms out" in err and len(err.splitlines()) == 1
    assert not (exp / "adapted").exists()


def break_steps(monkeypatch, *speakers):
    real = module.batch_loss
    monkeypatch.setattr(
        module,
        "batch_loss",
        lambda model, batch, *rest: real(model, batch, *rest) * (torch.nan if batch.ids[0][0] in speakers else 1.0),
    )


def test_a_speaker_whose_training_fails_keeps_the_weights_of_the_model_and_is_logged(asr, exp, corpus, monkeypatch):
    break_steps(monkeypatch, "b")
    status, _, err = asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)
    assert status == 0 and "speaker b: numbers that are not finite; keeps the model's weights" in err
    assert equal(weights(exp / "adapted/cuts", "b"), base_weights(exp))
    assert not equal(weights(exp / "adapted/cuts", "a"), base_weights(exp))
    assert (
        read_adaptation_info(exp / "adapted/cuts", "b").broken
        and not read_adaptation_info(exp / "adapted/cuts", "a").broken
    )


def test_training_that_fails_for_every_speaker_is_an_error_every_time(asr, exp, corpus, monkeypatch):
    break_steps(monkeypatch, *SPEAKERS)
    for _ in range(2):
        status, _, err = asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)
        assert status == 1 and "no speaker was adapted to" in err
    for speaker in SPEAKERS:
        assert equal(weights(exp / "adapted/cuts", speaker), base_weights(exp))


@pytest.mark.parametrize("failing, status", [("first rank", 0), ("both ranks", 1)])
def test_the_last_rank_to_end_judges_over_the_speakers_of_all_ranks(asr, exp, corpus, monkeypatch, failing, status):
    """Each rank has one or two of the three speakers."""
    results = []
    for rank in range(2):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        with monkeypatch.context() as patch:
            if rank == 0 or failing == "both ranks":
                break_steps(patch, *SPEAKERS)
            results.append(asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)[0])
    assert results == [0, status]


def test_weights_that_are_not_finite_after_the_last_step_are_not_written(asr, exp, corpus, monkeypatch):
    real = module.SpeakerTrainer.train

    def learn(self, speaker):
        learnt = real(self, speaker)
        self.experiment.model.output.bias.data.fill_(torch.inf)
        return learnt

    monkeypatch.setattr(module.SpeakerTrainer, "train", learn)
    assert asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)[0] == 1
    assert equal(weights(exp / "adapted/cuts", "a"), base_weights(exp))


@pytest.mark.parametrize(
    "option",
    [
        *(["--lr", "nan"], ["--lr", "inf"], ["--lr", "0"], ["--lr", "-1"], ["--lr", "1e999"], ["--epochs", "nan"]),
        *(["--batch-seconds", "nan"], ["--seed", "-5"], ["--seed", "1e3"], ["--seed", str(10**20)], ["--epochs", "0"]),
        *(["--workers", "100000"], ["--threads", "0"], ["--device", "meta"], ["--checkpoint", "77"]),
    ],
)
def test_impossible_option_values_are_one_line(asr, exp, corpus, option):
    status, _, err = asr("adapt", exp, corpus, *option)
    assert status == 2 and len(err.splitlines()) == 1, err
    assert not (exp / "adapted").exists()


@pytest.mark.parametrize("name", ["x" * 400, "語" * 29, "語" * 200, "..", "a/b", "con ", "é" * 60])
def test_each_speaker_name_has_its_own_file(asr, exp, corpus, tmp_path, name):
    cuts = list(CutSet.from_file(corpus).subset(first=3))
    for cut, speaker in zip(cuts, (name, name + "1", name[:-1] + "2"), strict=True):
        cut.supervisions[0].speaker = speaker
    CutSet.from_cuts(cuts).to_file(tmp_path / "named.jsonl.gz")
    status, _, err = asr("adapt", exp, tmp_path / "named.jsonl.gz", "--workers", 0, "--epochs", 1)
    assert status == 0, err
    files = sorted(path.name for path in (exp / "adapted/named").glob("*.pt"))
    assert len(files) == 3 and all(len(file.encode()) <= 160 for file in files)
    options = ["--adapted", exp / "adapted/named"]
    assert asr("decode", exp, tmp_path / "named.jsonl.gz", *options)[0] == 0


def test_sets_whose_names_differ_after_a_dot_have_separate_folders(asr, exp, corpus, tmp_path):
    for name in ("test.clean", "test.other"):
        shutil.copy(corpus, tmp_path / f"{name}.jsonl.gz")
        asr("adapt", exp, tmp_path / f"{name}.jsonl.gz", "--workers", 0, "--epochs", 1)
    assert {path.name for path in (exp / "adapted").iterdir()} == {"test.clean", "test.other"}


def test_a_folder_with_other_files_is_refused_and_stays_unchanged(asr, exp, corpus, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.json").write_text("mine")
    status, _, err = asr("adapt", exp, corpus, "--out", tmp_path / "docs", "--workers", 0)
    assert status == 2 and "was not written by `asrtool adapt`" in err and len(err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["a.json"]


FACTS = {"speaker": "a", "run": "r", "round": 1, "rank": 0, "seconds": 1.0, "audio_seconds": 9.0, "rtf_before": 0.0}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "3", "{}", b"\xff", "[" * 5000, json.dumps(FACTS), json.dumps(FACTS | {"base": 3})),
        *(
            json.dumps(FACTS | {"base": "x", name: wrong})
            for name in ("round", "rank", "seconds")
            for wrong in ("1", -1, True)
        ),
        json.dumps(FACTS | {"base": "x", "seconds": float("nan")}),
        json.dumps(FACTS | {"base": "x", "speaker": "b"}),
        json.dumps(FACTS | {"base": "x", "command": ["rm"]}),
    ],
)
def test_damaged_facts_and_facts_of_another_speaker_are_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "base.pt").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"a\.json") as caught:
        AdaptedWeights(tmp_path, ["a"], tmp_path / "base.pt")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_complete_facts_are_read(tmp_path):
    (tmp_path / "base.pt").write_bytes(b"weights")
    facts = FACTS | {"base": file_hash(tmp_path / "base.pt"), "more": [1]}
    (tmp_path / "a.json").write_text(json.dumps(facts))
    assert AdaptedWeights(tmp_path, ["a"], tmp_path / "base.pt").rtf == pytest.approx(1 / 9, abs=1e-4)


def test_the_marker_file_names_the_command(asr, exp, corpus):
    asr("adapt", exp, corpus, "--workers", 0, "--epochs", 1)
    assert "asrtool adapt" in (exp / "adapted/cuts" / MARKER).read_text()
