"""Checks of the experiment folder, dry runs, and initial weights of a training with other units."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import asrtool
from asrtool import checkpoint
from asrtool.config_file import save_config
from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.packs.pack import PackSettings, write_pack
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import PhoneTokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.experiment_folder import prepare_experiment, require_experiment_folder
from asrtool.training.loss_plot import plot_losses
from asrtool.training.resume import InitialWeights
from asrtool.training.train import dry_run, train
from tests.tiny import WORDS, make_config, tone

ROOT = str(Path(asrtool.__file__).parents[1])


@pytest.fixture(scope="module")
def finished(corpus, tokenizer_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "exp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asrtool.data.statistics.STATISTICS_SECONDS", 30.0)
        patch.setattr("asrtool.training.train.plot_losses", lambda *_: None)
        train(make_config(corpus, tokenizer_file), folder, device="cpu")
    return folder


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name, text", [("thesis.txt", "mine"), ("config.yaml", "seed: 2\n"), (".hidden", "x")])
@pytest.mark.parametrize("start", [train, dry_run])
def test_a_folder_with_other_files_is_refused_and_stays_unchanged(tiny_config, tmp_path, name, text, start):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(UserError, match="give another --exp"):
        start(tiny_config(), tmp_path / "docs", device="cpu")
    assert content(tmp_path) == before


@pytest.mark.parametrize("rank", [1, 3])
def test_no_rank_writes_its_log_into_a_folder_with_other_files(tiny_config, tmp_path, monkeypatch, rank):
    ranks = Ranks(rank=rank, world_size=4, local_rank=rank, local_world_size=4)
    monkeypatch.setattr("asrtool.training.train.this_rank", lambda: ranks)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="give another --exp"):
        train(tiny_config(), tmp_path, device="cpu")
    assert list(content(tmp_path)) == [Path("thesis.txt")]


def test_a_file_as_experiment_folder_is_refused(tiny_config, tmp_path):
    (tmp_path / "exp").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        train(tiny_config(), tmp_path / "exp", device="cpu")


def test_an_experiment_may_contain_its_warmup_and_be_started_again(tiny_config, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "exp/warmup")
    (tmp_path / "exp/logs").mkdir()
    train(
        tiny_config(),
        tmp_path / "exp",
        device="cpu",
        initial=InitialWeights(tmp_path / "exp/warmup/checkpoints/averaged.pt"),
    )
    shutil.rmtree(tmp_path / "exp/checkpoints")  # as if it had been interrupted before its first checkpoint
    train(tiny_config(), tmp_path / "exp", device="cpu")


@pytest.mark.parametrize(
    "step", ["experiment_folder.save_config", "experiment_folder.save_tokenizer", "start.scan_manifests"]
)
def test_a_training_that_is_killed_as_it_begins_can_be_started_again(tiny_config, tmp_path, monkeypatch, step):
    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"asrtool.training.{step}", killed)
        train(tiny_config(), tmp_path / "exp", device="cpu")
    require_experiment_folder(tmp_path / "exp")
    prepare_experiment(tiny_config(), tmp_path / "exp", resume=False)


@pytest.mark.parametrize("name", ["priors.json", "unit_ngram.json"])
def test_counts_over_the_data_are_kept_from_the_first_checkpoint_on(tiny_config, tmp_path, finished, name):
    """Before it, manifest and settings may be others at the next start."""
    experiment = shutil.copytree(finished, tmp_path / "exp")
    (experiment / name).write_text("[]")
    prepare_experiment(tiny_config(), experiment, resume=True)
    assert (experiment / name).is_file()
    shutil.rmtree(experiment / "checkpoints")
    prepare_experiment(tiny_config(objective={"ngram_order": 2}), experiment, resume=True)
    assert not (experiment / name).exists()


def saved_lexicon(path, words, phones="abcd", silence=None):
    """Writes a phone tokenizer with pronunciations {"one": ("a b", 1.0)}; returns its path."""
    prons = {word: (tuple(pron.split()),) for word, (pron, _) in words.items()}
    probabilities = {(word, prons[word][0]): share for word, (_, share) in words.items() if share < 1}
    save_tokenizer(PhoneTokenizer(["<blank>", *phones], Lexicon(prons, probabilities), silence), path)
    return path


LEXICON = {"one": ("a b", 1.0), "two": ("c", 1.0)}


@pytest.mark.parametrize(("words", "options"), [
    (LEXICON, {"phones": "abcde"}),
    (LEXICON, {"phones": "bacd"}),
    (LEXICON, {"silence": "d"}),
    (LEXICON | {"one": ("a d", 1.0)}, {}),
    (LEXICON | {"two": ("c", 0.5)}, {}),
])  # fmt: skip
def test_a_training_is_not_resumed_with_another_lexicon(tiny_config, tmp_path, finished, words, options):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    config = tiny_config(data={"tokenizer": str(tmp_path / "phones.json")})
    save_config(config, experiment / "config.yaml")
    saved_lexicon(experiment / "tokenizer.json", LEXICON)
    saved_lexicon(tmp_path / "phones.json", LEXICON)
    assert prepare_experiment(config, experiment, resume=True).symbols == ["<blank>", *"abcd"]
    saved_lexicon(tmp_path / "phones.json", words, **options)
    before = content(experiment)
    with pytest.raises(UserError, match="started with other units .* give another --exp"):
        prepare_experiment(config, experiment, resume=True)
    assert content(experiment) == before


@pytest.mark.parametrize("kind", ["word", "char"])
def test_a_training_is_not_resumed_with_units_of_other_words_or_another_type(tiny_config, tmp_path, finished, kind):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    config = tiny_config(data={"tokenizer": str(tmp_path / "units.json")})
    save_config(config, experiment / "config.yaml")
    save_tokenizer(train_tokenizer(kind, [*WORDS, "five"]), tmp_path / "units.json")
    with pytest.raises(UserError, match="started with other units"):
        prepare_experiment(config, experiment, resume=True)


def test_a_training_is_resumed_with_more_words_of_a_language_model_or_without_its_tokenizer_file(
    tiny_config, tmp_path, finished
):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    config = tiny_config(data={"tokenizer": str(tmp_path / "phones.json")})
    save_config(config, experiment / "config.yaml")
    saved_lexicon(experiment / "tokenizer.json", LEXICON)
    saved_lexicon(tmp_path / "phones.json", LEXICON | {"three": ("d", 1.0)})
    prepare_experiment(config, experiment, resume=True)
    (tmp_path / "phones.json").unlink()
    prepare_experiment(config, experiment, resume=True)


def test_a_training_is_not_resumed_with_other_speaker_transforms(tiny_config, tmp_path, finished):
    transforms = tmp_path / "train.pt"
    transforms.write_bytes(b"one")
    config = tiny_config(data={"speaker_transforms": str(transforms)})
    prepare_experiment(config, tmp_path / "exp", resume=False)
    shutil.copytree(finished / "checkpoints", tmp_path / "exp/checkpoints")
    prepare_experiment(config, tmp_path / "exp", resume=True)
    transforms.write_bytes(b"two")
    with pytest.raises(UserError, match="started with other speaker transforms .* give another --exp"):
        prepare_experiment(config, tmp_path / "exp", resume=True)


def test_a_folder_in_which_another_training_begins_is_an_experiment(tiny_config, tmp_path, monkeypatch):
    """The other one writes its files after this one has seen an empty folder."""
    experiment = tmp_path / "exp"
    experiment.mkdir()
    is_file = Path.is_file

    def begun(path):
        found = is_file(path)
        if path == experiment / "config.yaml" and not found:
            prepare_experiment(tiny_config(), experiment, resume=False)
        return found

    monkeypatch.setattr(Path, "is_file", begun)
    require_experiment_folder(experiment)
    assert sorted(os.listdir(experiment)) == ["config.yaml", "tokenizer.json"]


def test_a_dry_run_leaves_no_files_and_names_none_in_its_log(tiny_config, tmp_path, capfd):
    (tmp_path / "docs.dry_run").mkdir()
    (tmp_path / "docs.dry_run/notes.txt").write_text("mine")
    before = content(tmp_path)
    dry_run(tiny_config(), tmp_path / "docs", "cpu")
    assert content(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["docs.dry_run"]
    stderr = capfd.readouterr().err
    assert "dry run: all is well" in stderr and "loss.png" not in stderr and str(tmp_path) not in stderr


@pytest.mark.parametrize("kept", [["averaged.pt"], ["best.pt"], ["averaged.pt", "best.pt"], ["warmup.pt"]])
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("start", [train, dry_run])
def test_a_training_without_its_step_checkpoints_is_not_overwritten(
    tiny_config, tmp_path, finished, kept, resume, start
):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    shutil.copy(experiment / "checkpoints/best.pt", experiment / "checkpoints/warmup.pt")
    for path in (experiment / "checkpoints").iterdir():
        if path.name not in kept:
            path.unlink()
    before = content(experiment)
    message = rf"already holds a training \({', '.join(kept)}\), whose step checkpoints are gone; give another --exp"
    with pytest.raises(UserError, match=message):
        start(tiny_config(model={"dim": 32}), experiment, resume=resume, device="cpu")
    assert content(experiment) == before


@pytest.mark.parametrize(
    ("resume", "changes", "message"),
    [
        (False, {}, "already holds a training; give --resume"),
        (True, {"training": {"lr": 0.5}}, "was started with other settings"),
        (True, {}, None),
    ],
)
def test_a_dry_run_refuses_what_a_training_in_the_folder_would_refuse(
    tiny_config, tmp_path, finished, capfd, resume, changes, message
):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    before = content(experiment)
    if message:
        with pytest.raises(UserError, match=message):
            dry_run(tiny_config(**changes), experiment, "cpu", resume=resume)
    else:
        gone = InitialWeights(tmp_path / "gone.pt")  # which a training that is resumed does not read
        dry_run(tiny_config(), experiment, "cpu", gone, resume)
        assert "dry run: all is well" in capfd.readouterr().err
    assert content(experiment) == before


def test_a_dry_run_creates_no_parent_folders(tiny_config, tmp_path):
    dry_run(tiny_config(), tmp_path / "a/b/exp", "cpu")
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from asrtool.locks import write_lock
with write_lock(sys.argv[1], "asrtool train"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_trainings_cannot_use_one_folder(tiny_config, tmp_path):
    """The error of the second names the first; when the first was killed, the folder is free."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "exp")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"in use by asrtool train \(process {holder.pid} on "):
            train(tiny_config(), tmp_path / "exp", device="cpu")
        assert os.listdir(tmp_path / "exp") == [".lock"]
    finally:
        holder.kill()
        holder.wait()
    train(tiny_config(), tmp_path / "exp", device="cpu")


@pytest.fixture(scope="module")
def other_units(tmp_path_factory):
    """other_units([...]) -> the file of a tokenizer of other words"""

    def make(words):
        path = tmp_path_factory.mktemp("units") / "tokenizer.json"
        save_tokenizer(train_tokenizer("word", words), path)
        return path

    return make


@pytest.fixture(scope="module")
def spanish(tmp_path_factory):
    """The manifest of three utterances with words that the tiny corpus has not."""
    import soundfile

    folder = tmp_path_factory.mktemp("spanish")
    utterances = []
    for number, text in enumerate(["uno dos", "dos tres", "tres cinco"]):
        soundfile.write(folder / f"{number}.flac", tone(500.0 + 300 * number, 1.5), 16000)
        utterances.append(Utterance(f"s{number}", str(folder / f"{number}.flac"), text, speaker="s"))
    write_manifest(utterances, folder / "cuts.jsonl.gz")
    return folder / "cuts.jsonl.gz"


def test_the_same_number_of_units_in_another_order_is_refused(tiny_config, tmp_path, finished, tokenizer_file):
    """Without the check the words would be mistaken for each other."""
    content = json.loads(tokenizer_file.read_text())
    content["symbols"][1:] = content["symbols"][:0:-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    config = tiny_config(data={"tokenizer": str(tmp_path / "tokenizer.json")})
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "exp", device="cpu", initial=InitialWeights(finished / "checkpoints/averaged.pt"))
    message = str(caught.value)
    assert "unit 1 of 5 is 'four' there, and 'two' of 5 here; --new-output" in message and "\n" not in message


@pytest.mark.parametrize("words, shown", [(list(WORDS)[:3], "'four'"), ([*WORDS, "zero"], "and 'zero' of 6 here")])
def test_an_error_about_fewer_or_more_units_names_the_first_difference(tmp_path, words, shown, other_units):
    from asrtool.text.tokenizer import load_tokenizer

    state = {"units": load_tokenizer(other_units(WORDS)).symbols}
    with pytest.raises(UserError, match=shown):
        checkpoint.require_same_units(state, load_tokenizer(other_units(words)).symbols, tmp_path / "a.pt", "hint")


@pytest.mark.parametrize("words", [["uno", "dos", "tres", "cinco"], ["uno", "dos", "tres", "cinco", "seis", "siete"]])
@pytest.mark.parametrize("intermediate", [0.0, 0.3])
def test_new_output_keeps_all_weights_but_the_output_layer(
    tmp_path, tiny_config, finished, other_units, spanish, state, words, intermediate, capfd
):
    before = checkpoint.load_checkpoint(finished / "checkpoints/averaged.pt")["model"]
    config = tiny_config(
        data={"tokenizer": str(other_units(words)), "train": str(spanish), "dev": str(spanish)},
        training={"max_steps": 1, "validate_every": 1, "warmup_steps": 0, "schedule": "none", "lr": 1e-4},
        objective={"intermediate_ctc": intermediate},
    )
    initial = InitialWeights(finished / "checkpoints/averaged.pt", new_output=True)
    train(config, tmp_path / "exp", device="cpu", initial=initial)
    assert "its weights with a new output layer" in capfd.readouterr().err
    after = state(tmp_path / "exp")["model"]
    assert after["output.weight"].shape == (len(words) + 1, 16)
    for name, weight in before.items():
        if not name.startswith("output."):
            torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-3, msg=name)
    again = train(config, tmp_path / "again", device="cpu", initial=initial)
    assert again is None and torch.equal(state(tmp_path / "again")["model"]["output.weight"], after["output.weight"])


def test_with_a_new_output_layer_training_learns(tmp_path, tiny_config, finished, other_units, spanish, rows):
    units = str(other_units(["uno", "dos", "tres", "cinco"]))
    config = tiny_config(
        data={"tokenizer": units, "train": str(spanish), "dev": str(spanish)},
        training={"max_steps": 60, "validate_every": 30, "lr": 1e-2, "log_every": 5},
    )
    train(
        config,
        tmp_path / "exp",
        device="cpu",
        initial=InitialWeights(finished / "checkpoints/averaged.pt", new_output=True),
    )
    losses = [row["loss"] for row in rows(tmp_path / "exp", "train")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--new-output"], "need --init-from CHECKPOINT"),
        (["--new-output", "--init-from", "x.pt", "--init-optimizer"], "--init-optimizer needs the output layer"),
        (["--warmup-hours", "nan", "--phase", "warmup"], "not a finite number"),
        *[
            (["--device", name], "not a device of asrtool; give auto, cpu")
            for name in ("mps", "xpu", "meta", "cpu:7", "cuda:-1", "")
        ],
        (["--set", "training.lr=.inf"], "training.lr = inf"),
        (["--threads", "0"], "0 is not in the range"),
        (["--probe", "--resume"], "--resume has no effect here: it is for a training, without --probe"),
        (["--probe", "--dry-run"], "--dry-run has no effect here"),
        (["--probe", "--init-from", "x.pt"], "--init-from has no effect here"),
        (["--probe", "--phase", "warmup", "--warmup-hours", "1"], "--phase has no effect here"),
        (["--dry-run", "--phase", "warmup", "--warmup-hours", "1"], "it is for a training, without --dry-run"),
    ],
)
def test_impossible_options_are_one_line(asr, tiny_config, tmp_path, options, message):
    save_config(tiny_config(), tmp_path / "c.yaml")
    status, _, err = asr("train", tmp_path / "c.yaml", "--exp", tmp_path / "exp", *options)
    assert status == 2 and message in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    "variables", [{"RANK": "x"}, {"WORLD_SIZE": "-1"}, {"RANK": "1"}, {"WORLD_SIZE": "0"}, {"LOCAL_RANK": "1e3"}]
)
def test_impossible_ranks_in_the_environment_are_one_line(asr, tiny_config, tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    save_config(tiny_config(), tmp_path / "c.yaml")
    status, _, err = asr("train", tmp_path / "c.yaml", "--exp", tmp_path / "exp")
    assert status == 2 and "the environment has " in err and len(err.splitlines()) == 1, err


def test_decoding_refuses_a_tokenizer_with_other_units(asr, finished, corpus, tmp_path):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    content = json.loads((experiment / "tokenizer.json").read_text())
    content["symbols"][1:3] = content["symbols"][2:0:-1]
    (experiment / "tokenizer.json").write_text(json.dumps(content))
    status, _, err = asr("decode", experiment, corpus)
    assert status == 2 and "has other units than the tokenizer: unit 1 of 5" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"heads": 4}}, "model.heads: 2 -> 4"),
        ({"model": {"activation": "relu"}}, "model.activation: silu -> relu"),
        ({"model": {"mask": "chunk", "chunk_size": 4, "memory": 4}}, "model.mask: full -> chunk"),
        ({"model": {"mask": "sliding", "right_context": 2}}, "model.right_context: None -> 2"),
        ({"model": {"normalise": "utterance"}}, "model.normalise: global -> utterance"),
        ({"model": {"positional_encoding": "none"}}, "model.positional_encoding: sinusoidal -> none"),
        ({"features": {"sampling_rate": 8000}}, "features.sampling_rate: 16000 -> 8000"),
    ],
)
def test_weights_of_another_model_of_the_same_shapes_are_refused(
    asr, tiny_config, finished, corpus, tmp_path, changes, message
):
    """After training, that is; a training that starts from them logs what differs."""
    experiment = shutil.copytree(finished, tmp_path / "exp")
    save_config(tiny_config(**changes), experiment / "config.yaml")
    for options in ([], ["--checkpoint", finished / "checkpoints/best.pt"]):
        status, _, err = asr("decode", experiment, corpus, *options)
        assert status == 2 and message in err and "use the config.yaml it was trained with" in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("changes", [
    {"dropout": 0.5, "ff_dropout": 0.1, "attention_dropout": 0.1, "layer_drop": 0.1, "activation_checkpointing": True},
    {"init": {"scheme": "depth_scaled", "alpha": 0.5, "exponent": 0.25, "scope": "qkv"}},
])  # fmt: skip
def test_settings_that_matter_in_training_alone_may_differ(tiny_config, finished, tmp_path, changes):
    experiment = shutil.copytree(finished, tmp_path / "exp")
    save_config(tiny_config(model=changes), experiment / "config.yaml")
    open_experiment(experiment, device="cpu")


def test_a_training_that_starts_from_another_model_logs_what_differs(tiny_config, finished, tmp_path, capfd):
    config = tiny_config(model={"heads": 4, "activation": "relu", "dropout": 0.5})
    dry_run(config, tmp_path / "exp", "cpu", InitialWeights(finished / "checkpoints/averaged.pt"))
    assert "its model was another one: model.heads: 2 -> 4; model.activation: silu -> relu\n" in capfd.readouterr().err


TO_ALL = "subprocess.run(['bash', '-c', 'trap : TERM; kill -TERM 0'])"  # also to the loader process


@pytest.mark.parametrize(
    "send, signal, status",
    [
        ("signal.raise_signal(signal.SIGINT)", "SIGINT", 130),
        ("signal.raise_signal(signal.SIGTERM)", "SIGTERM", 143),
        (TO_ALL, "SIGTERM", 143),
    ],
)
def test_the_exit_status_shows_which_signal_ended_training(train_process, tiny_config, tmp_path, send, signal, status):
    """After the step, with a checkpoint to go on from."""
    code = (
        "import os, signal, subprocess\nfrom asrtool.training import train as module\nreal = module.training_step\n"
        f"os.setpgrp()\ndef step(*a):\n    {send}\n    return real(*a)\nmodule.training_step = step"
    )
    done = train_process(tiny_config(data={"workers": 1}), tmp_path / "exp", code)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "exp/checkpoints/step-00000001.pt").is_file()
    word = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[signal]
    expected = [f"{word}: stopping after this step", "continue with --resume", f"asrtool: error: {word}"]
    places = [done.stderr.find(text) for text in expected]
    assert -1 not in places and places == sorted(places), done.stderr


def test_weights_of_another_sampling_rate_are_refused(tmp_path, tiny_config, finished):
    state = checkpoint.load_checkpoint(finished / "checkpoints/averaged.pt")
    state["config"]["features"]["sampling_rate"] = 8000
    checkpoint.save_checkpoint(tmp_path / "narrow.pt", state)
    with pytest.raises(UserError, match="trained at 8000 Hz, and features.sampling_rate is 16000"):
        train(
            tiny_config(),
            tmp_path / "exp",
            device="cpu",
            initial=InitialWeights(tmp_path / "narrow.pt", new_output=True),
        )


def test_loss_curves_are_drawn_from_a_log_with_odd_lines(tmp_path):
    lines = [
        '{"event": "train", "step": 1, "loss": 2.0, "lr": 0.1}',
        '{"event": "dev", "step": 1, "loss": null}',
        "3",
        "{}",
    ]
    lines += ['{"event": "train", "step": "x", "loss": [1], "lr": true}', '{"event": ["dev"], "step": 2}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    plot_losses(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_does_not_write_into_a_pack(tiny_config, tmp_path, finished, resume):
    pack = tmp_path / "pack"
    write_pack(open_experiment(finished, device="cpu"), pack, {}, PackSettings())
    before = content(pack)
    with pytest.raises(UserError, match="is a pack, which a training would overwrite; give another --exp"):
        train(tiny_config(), pack, resume, device="cpu")
    assert content(pack) == before
