import json
import math
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch

from asrtool.distributed import Ranks, this_rank
from asrtool.errors import UserError
from asrtool.lm.neural_lm import load_neural_lm
from asrtool.lm.sentences import encode_sentences, sentence_batches
from asrtool.lm.transformer_lm import TransformerLmConfig
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training import language_model
from asrtool.training.language_model import perplexity, train_language_model, train_language_model_from_text
from asrtool.training.lm_session import LmSession, LmTrainingConfig
from asrtool.training.parallel import Strategy
from tests.tiny import NUMBERS, counting_sentences

MODEL = TransformerLmConfig(dim=32, layers=2, heads=2, dropout=0.1)
TRAINING = LmTrainingConfig(epochs=2, batch=256, lr=3e-3)


@pytest.fixture(scope="module")
def text():
    return counting_sentences()


@pytest.fixture(scope="module")
def tokenizer(text):
    return train_tokenizer("bpe", map(" ".join, text), 20)


@pytest.fixture(scope="module")
def sentences(text, tokenizer):
    return encode_sentences(text, tokenizer)


@pytest.fixture
def train(sentences, tokenizer, tmp_path):
    """train(name, **options) -> trains a model into tmp_path / name."""

    def run(name="lm.pt", text=sentences, model=MODEL, training=TRAINING, **options):
        train_language_model(text, tokenizer, tmp_path / name, model=model, training=training, device="cpu", **options)

    return run


@pytest.fixture
def session(sentences, tokenizer, tmp_path):
    """A session of lm.pt that has taken and saved one step."""
    session = LmSession(
        sentences=sentences,
        tokenizer=tokenizer,
        model_config=MODEL,
        training=TRAINING,
        ranks=this_rank(),
        device=torch.device("cpu"),
        folder=tmp_path / "lm.training",
    )
    session.meter.add(session.update(next(session.step_batches())))
    session.step += 1
    session.save()
    return session


def weights(path):
    return load_neural_lm(path, "cpu").model.state_dict()


def interrupt_after(monkeypatch, steps):
    """Requests a stop after so many steps."""

    class Interrupts(language_model.Interrupts):
        asked = 0

        @property
        def requested(self):
            Interrupts.asked += 1
            return Interrupts.asked == steps

        @requested.setter
        def requested(self, value):
            pass

    monkeypatch.setattr(language_model, "Interrupts", Interrupts)


@pytest.mark.slow
def test_a_model_with_a_context_learns_from_the_sentences_before(tokenizer, train, tmp_path):
    """Each sentence is the next number, so that all but the first are certain."""
    text = [[NUMBERS[place % len(NUMBERS)]] for place in range(300)]
    model = TransformerLmConfig(32, 2, 2, dropout=0, context=24)
    training = LmTrainingConfig(epochs=20, batch=96, lr=1e-2)
    train(text=encode_sentences(text, tokenizer), model=model, training=training, dev=text[:20])
    lm = load_neural_lm(tmp_path / "lm.pt", "cpu")
    after, alone = (-np.concatenate(list(scores)) for scores in (lm.text_logprobs(text[:60]), lm.logprobs(text[:60])))
    assert after[2:].mean() < 0.1 and alone.mean() > 0.5


def test_it_learns_the_probabilities_of_the_text(train, text, tmp_path, capsys):
    """The first word is one of six, all others are certain: e ** (ln 6 / (words + 1)) is the least perplexity."""
    training = LmTrainingConfig(epochs=20, batch=256, lr=1e-2)
    train(model=TransformerLmConfig(32, 2, 2, dropout=0), training=training, dev=text[:50])
    logprobs = np.concatenate(list(load_neural_lm(tmp_path / "lm.pt", "cpu").logprobs(text)))
    least = len(text) * np.log(6)
    assert least * 0.97 < -logprobs.sum() < least * 1.1
    assert capsys.readouterr().err.count("dev perplexity") == 20
    assert not (tmp_path / "lm.training" / "checkpoints").exists()


def test_the_learning_rate_rises_for_a_twentieth_of_the_steps_and_falls_to_zero(session):
    assert session.config.warmup_steps == session.max_steps // 20
    rates = []
    session.config = session.config.model_copy(update={"warmup_steps": 5, "max_steps": 100, "lr": 1.0})
    for step in range(100):
        session.step = step
        rates.append(session.update(np.array([0]))["lr"])
    assert rates[0] == pytest.approx(0.2) and rates[4] == 1.0 and 0 < rates[-1] < 0.001
    assert sorted(rates[4:], reverse=True) == rates[4:]


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 7])
def test_the_steps_of_an_epoch_have_all_of_its_batches(sentences, tokenizer, tmp_path, monkeypatch, processes):
    """Also where the batches do not divide among the processes."""
    monkeypatch.setattr("asrtool.training.lm_session.Ddp", Strategy)
    seen = set()
    for rank in range(processes):
        session = LmSession(
            sentences=sentences,
            tokenizer=tokenizer,
            model_config=MODEL,
            training=TRAINING,
            ranks=Ranks(rank=rank, world_size=processes),
            device=torch.device("cpu"),
            folder=tmp_path,
        )
        seen |= {batch.tobytes() for batch in islice(session.step_batches(), session.epoch_steps)}
    batches = sentence_batches(session.sentences, session.rank_units, TRAINING.seed)
    assert seen == {batch.tobytes() for batch in batches}


def test_the_log_has_a_row_with_loss_rate_and_time(train, text, tmp_path):
    train(training=LmTrainingConfig(epochs=20, batch=256), dev=text[:5])
    rows = [json.loads(line) for line in (tmp_path / "lm.training/log.jsonl").read_text().splitlines()]
    assert rows[0]["event"] == "start" and rows[-1]["event"] == "finished"
    reports = [row for row in rows if row["event"] == "train"]
    assert [row["step"] for row in reports][0] == 50
    assert all(row["time"] and row["loss"] > 0 and row["lr"] >= 0 for row in reports)
    assert [row["perplexity"] for row in rows if row["event"] == "dev"]


def test_a_second_training_of_the_same_model_begins_a_new_log(train, tmp_path):
    for _ in range(2):
        train()
    rows = [json.loads(line) for line in (tmp_path / "lm.training/log.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == ["start", "train", "finished"]


def test_a_resumed_training_leads_to_the_same_weights_as_an_uninterrupted_one(train, tmp_path, monkeypatch):
    train("whole.pt")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train()
    [saved] = (tmp_path / "lm.training/checkpoints").iterdir()
    assert saved.name == "step-00000003.pt"
    with pytest.raises(UserError, match="00003.pt is of a training with another lr, layers; delete .*lm.training"):
        train(
            model=TransformerLmConfig(dim=32, layers=3, heads=2),
            training=LmTrainingConfig(epochs=2, batch=256, lr=1e-3),
        )
    train()
    whole, resumed = weights(tmp_path / "whole.pt"), weights(tmp_path / "lm.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    whole, resumed = (
        [json.loads(line) for line in (tmp_path / f"{name}.training/log.jsonl").read_text().splitlines()]
        for name in ("whole", "lm")
    )
    reports = [[row["loss"] for row in rows if row["event"] == "train"] for rows in (whole, resumed)]
    assert reports[0] == reports[1]


def test_a_damaged_checkpoint_is_named(train, tmp_path):
    (tmp_path / "lm.training/checkpoints").mkdir(parents=True)
    (tmp_path / "lm.training/checkpoints/step-00000001.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="step-00000001.pt is not a checkpoint .*damaged .*; delete .*lm.training to"):
        train()


def test_a_file_where_the_folder_of_the_log_belongs_is_refused(train, tmp_path):
    (tmp_path / "lm.training").write_text("mine")
    with pytest.raises(UserError, match="lm.training is a file"):
        train()


@pytest.mark.slow
def test_processes_share_the_batches(tmp_path, text):
    (tmp_path / "text.txt").write_text("".join(" ".join(words) + "\n" for words in text))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "asrtool"]
    sizes = "--heads 2 --vocab-size 20 --dim 32 --layers 2 --batch 256 --dropout 0 --epochs 20 --lr 1e-2"
    command = [*torchrun, "lm", "train-neural", tmp_path / "text.txt", tmp_path / "lm.pt", *sizes.split()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lm.training/logs/rank-1.log").is_file(), "only the first process logs on the terminal"
    logprobs = np.concatenate(list(load_neural_lm(tmp_path / "lm.pt", "cpu").logprobs(text)))
    assert -logprobs.sum() < len(text) * np.log(6) * 1.3


@pytest.mark.parametrize("lr", [1e300, 1e10, 1e5])
def test_a_loss_that_is_not_finite_stops_with_an_error_and_writes_no_model(train, tmp_path, lr):
    with pytest.raises(UserError, match=r"step \d+ of \d+: the loss is not finite; give a lower --lr than"):
        train(training=LmTrainingConfig(epochs=20, batch=256, lr=lr))
    assert not (tmp_path / "lm.pt").exists() and not (tmp_path / "lm.training/checkpoints").exists()


def test_weights_that_are_not_finite_after_the_last_step_are_not_written(train, tmp_path):
    with pytest.raises(UserError, match="lm.pt: .* not finite; it is not written; give a lower --lr than 1e"):
        train(training=LmTrainingConfig(epochs=1e-9, batch=256, lr=1e300))
    assert not (tmp_path / "lm.pt").exists()


def test_the_last_good_checkpoint_stays_where_the_loss_is_not_finite(session, train, monkeypatch):
    [path] = session.checkpoints.all()
    saved = path.read_bytes()
    monkeypatch.setattr(torch.nn.functional, "nll_loss", lambda logprobs, _: logprobs.sum() * math.nan)
    with pytest.raises(UserError, match="step 2 of .*, and delete .*lm.training, which has the checkpoint of this"):
        train()
    assert path.read_bytes() == saved


def test_perplexities_beyond_all_numbers_are_infinite():
    assert perplexity(1e6) == math.inf and perplexity(math.log(3)) == pytest.approx(3)


def test_more_steps_than_any_training_has_are_refused(train):
    with pytest.raises(UserError, match="--epochs 1e.09 are .* steps; at most"):
        train(training=LmTrainingConfig(epochs=1e9, batch=256))


DAMAGE = {
    "no step": lambda state: state.pop("step"),
    "a step that is a float": lambda state: state.update(step=1.0),
    "a step beyond the last": lambda state: state.update(step=10**9),
    "a step below zero": lambda state: state.update(step=-1),
    "settings that are a number": lambda state: state.update(config=3),
    "a weight of NaN": lambda state: state["model"]["bias"].fill_(math.nan),
    "a weight missing": lambda state: state["model"].pop("bias"),
    "moments of NaN": lambda state: state["optimizer"]["state"][0]["exp_avg"].fill_(math.nan),
    "moments of another shape": lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
    "no groups": lambda state: state["optimizer"].update(param_groups=[]),
    "no optimizer": lambda state: state.update(optimizer=None),
    "no hours": lambda state: state.pop("device_hours"),
    "hours of NaN": lambda state: state.update(device_hours=math.nan),
    "a step without a loss": lambda state: state["unreported"][0].pop("loss_sum"),
    "a loss that is text": lambda state: state["unreported"][0].update(loss_sum="high"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_checkpoint_with_invalid_content_is_refused(session, train, damage):
    [path] = session.checkpoints.all()
    state = torch.load(path, weights_only=True)
    damage(state)
    torch.save(state, path)
    with pytest.raises(UserError, match="step-00000001.pt(: | is not ).*; delete .*lm.training to start again"):
        train()


def test_two_trainings_into_one_file_are_refused_and_into_one_folder_are_not(train, tmp_path):
    code = f"""
from asrtool.locks import write_lock
with write_lock({str(tmp_path)!r}, "asrtool lm train-neural", file="lm.pt"):
    print("locked", flush=True)
    input()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=r"lm.pt is in use by asrtool lm train-neural \(process \d+ on"):
            train()
        train("other.pt", training=LmTrainingConfig(epochs=1, batch=1024))
        other.communicate("\n")
    assert (tmp_path / "other.pt").is_file() and not (tmp_path / "lm.pt").exists()


def train_from_text(folder, **options):
    train_language_model_from_text(
        text=[folder / "text.txt"],
        out=folder / "lm.pt",
        vocab_size=9,
        model=MODEL,
        training=LmTrainingConfig(epochs=1),
        device="cpu",
        **options,
    )


def test_text_with_the_unknown_word_is_left_out_of_units_and_training(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("ONE TWO\nTWO ONE ONE\n<unk> ONE\nTWO <UNK>\n")
    train_from_text(tmp_path)
    assert "2 sentences were left out" in capsys.readouterr().err
    assert "<unk>" not in load_neural_lm(tmp_path / "lm.pt", "cpu")


def test_a_dev_text_without_words_is_refused(tmp_path):
    for name, content in (("text.txt", "ONE TWO\nTWO ONE ONE\n"), ("dev.txt", "\n \n")):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="dev.txt has no words"):
        train_from_text(tmp_path, dev=tmp_path / "dev.txt")
