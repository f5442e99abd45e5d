import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from asrtool.errors import UserError
from asrtool.lm.neural_lm import load_neural
from asrtool.lm.transformer_lm import Shape
from asrtool.text.tokenizer import train_tokenizer
from asrtool.training import language_model as language
from asrtool.training.language_model import Plan, batches, joined, rate, spell, train

WORDS = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX"]
SHAPE = Shape(dim=32, layers=2, heads=2, dropout=0.1)
PLAN = Plan(epochs=2, batch=256, lr=3e-3)


@pytest.fixture(scope="module")
def text():
    """Sentences that count from somewhere to SIX."""
    rng = np.random.default_rng(1)
    return [WORDS[start:] for start in rng.integers(len(WORDS), size=300)]


@pytest.fixture(scope="module")
def units(text):
    return train_tokenizer("bpe", map(" ".join, text), 20)


@pytest.fixture(scope="module")
def sentences(text, units):
    return spell(text, units)


def test_every_sentence_is_in_one_batch_of_bearable_size(sentences):
    made = batches(sentences, 100, seed=1)
    assert sorted(np.concatenate(made).tolist()) == list(range(len(sentences)))
    lens = np.diff(sentences.starts) + 1
    assert all(len(batch) * lens[batch].max() <= 100 for batch in made)
    padding = 1 - lens.sum() / sum(len(batch) * lens[batch].max() for batch in made)
    assert padding < 0.1
    again = batches(sentences, 100, seed=1)
    assert all(map(np.array_equal, made, again)) and not np.array_equal(made[0], batches(sentences, 100, seed=2)[0])


def test_a_sentence_longer_than_a_batch_has_one_of_its_own(sentences):
    assert all(len(batch) == 1 for batch in batches(sentences, 3, seed=1))


@pytest.mark.parametrize("size", [1, 12, 30])
def test_neighbours_are_joined_as_far_as_there_is_room(sentences, size):
    made = joined(sentences, size)
    lens = np.diff(made.starts) + 1
    apart = [part.tolist() for one in whole(made) for part in np.split(one, np.flatnonzero(one == 0))]
    assert [[unit for unit in part if unit] for part in apart] == [one.tolist() for one in whole(sentences)]
    assert all(length <= size or 0 not in one for length, one in zip(lens, whole(made), strict=True))
    firsts = [one.tolist().index(0) if 0 in one else len(one) for one in whole(made)]
    assert all(length + first + 1 > size for length, first in zip(lens[:-1], firsts[1:], strict=True)), "no room left"


def whole(sentences):
    return np.split(sentences.units, sentences.starts[1:-1])


@pytest.mark.slow
def test_a_model_with_a_context_learns_what_sentences_have_to_do_with_each_other(units, tmp_path):
    """Each sentence is the next number, so that all but the first are certain."""
    text = [[WORDS[place % len(WORDS)]] for place in range(300)]
    sentences, shape = spell(text, units), Shape(32, 2, 2, dropout=0, context=24)
    train(sentences, units, tmp_path / "lm.pt", shape, Plan(epochs=20, batch=96, lr=1e-2), text[:20], "cpu")
    model = load_neural(tmp_path / "lm.pt", "cpu")
    after, alone = (-np.concatenate(list(found)) for found in (model.in_order(text[:60]), model.logprobs(text[:60])))
    assert after[2:].mean() < 0.1 and alone.mean() > 0.5


def test_a_batch_is_what_comes_before_and_what_comes_next(sentences, text, units):
    inputs, lens, targets = sentences.batch([0, 5])
    assert inputs[:, 0].tolist() == [0, 0] and targets[lens.cumsum(0) - 1].tolist() == [0, 0]
    said = inputs[1, 1 : lens[1]].tolist()
    assert said == targets[lens[0] : -1].tolist() == units.encode(" ".join(text[5]))


def test_what_cannot_be_spelled_is_left_out_aloud(units, capsys):
    assert len(spell([["ONE"], ["ÉTÉ"], ["TWO", "É"]], units)) == 1
    assert "2 sentences were left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="no sentence"):
        spell([["ÉTÉ"]], units)


def test_the_rate_rises_and_falls():
    rates = [rate(Plan(lr=1.0), step, 100) for step in range(100)]
    assert rates[0] == 0.2 and rates[4] == rates[5] == 1.0 and rates[-1] < 0.001
    assert sorted(rates[5:], reverse=True) == rates[5:]


def test_it_learns_what_there_is_to_learn(sentences, text, units, tmp_path, capsys):
    """The first word is one of six, all others are certain: e ** (ln 6 / (words + 1)) is the least perplexity."""
    plan = Plan(epochs=20, batch=256, lr=1e-2)
    train(sentences, units, tmp_path / "lm.pt", Shape(32, 2, 2, dropout=0), plan, text[:50], "cpu")
    found = np.concatenate(list(load_neural(tmp_path / "lm.pt", "cpu").logprobs(text)))
    least = len(text) * np.log(6)
    assert least * 0.97 < -found.sum() < least * 1.1
    said = capsys.readouterr().err
    assert said.count("dev perplexity") == 20 and not list(tmp_path.glob("*training*"))


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(sentences, units, tmp_path, monkeypatch):
    train(sentences, units, tmp_path / "whole.pt", SHAPE, PLAN, device="cpu")

    class Third(language.Interrupts):
        calls = 0

        @property
        def requested(self):
            Third.calls += 1
            return Third.calls == 3

        @requested.setter
        def requested(self, value):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(language, "Interrupts", Third)
        with pytest.raises(KeyboardInterrupt):
            train(sentences, units, tmp_path / "lm.pt", SHAPE, PLAN, device="cpu")
    with pytest.raises(UserError, match="another lr, layers; delete it"):
        other = Shape(dim=32, layers=3, heads=2)
        train(sentences, units, tmp_path / "lm.pt", other, Plan(epochs=2, batch=256, lr=1e-3), device="cpu")
    train(sentences, units, tmp_path / "lm.pt", SHAPE, PLAN, device="cpu")
    one, other = (load_neural(tmp_path / name, "cpu").model.state_dict() for name in ("whole.pt", "lm.pt"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_state_is_named(sentences, units, tmp_path):
    (tmp_path / "lm.training.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="lm.training.pt is not the state of a training, or damaged .*; delete it"):
        train(sentences, units, tmp_path / "lm.pt", SHAPE, PLAN, device="cpu")


@pytest.mark.slow
def test_processes_share_the_batches(tmp_path, text):
    (tmp_path / "text.txt").write_text("".join(" ".join(words) + "\n" for words in text))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "asrtool"]
    sizes = "--heads 2 --vocab-size 20 --dim 32 --layers 2 --batch 256 --dropout 0 --epochs 20 --lr 1e-2"
    command = [*torchrun, "lm", "train-neural", tmp_path / "text.txt", tmp_path / "lm.pt", *sizes.split()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "rank-1.log").is_file(), "only the first speaks on the terminal"
    found = np.concatenate(list(load_neural(tmp_path / "lm.pt", "cpu").logprobs(text)))
    assert -found.sum() < len(text) * np.log(6) * 1.3


@pytest.mark.parametrize("lr", [1e300, 1e10, 1e5])
def test_a_loss_that_is_not_finite_stops_with_an_error_and_writes_no_model(sentences, units, tmp_path, lr):
    with pytest.raises(UserError, match=r"step \d+ of \d+: the loss is not finite; give a lower --lr than"):
        train(sentences, units, tmp_path / "lm.pt", SHAPE, Plan(epochs=20, batch=256, lr=lr), device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == [".lm.pt.lock"]


def test_weights_that_are_not_finite_after_the_last_step_are_not_written(sentences, units, tmp_path):
    with pytest.raises(UserError, match="lm.pt: .* not finite; it is not written; give a lower --lr than 1e"):
        train(sentences, units, tmp_path / "lm.pt", SHAPE, Plan(epochs=1e-9, batch=256, lr=1e300), device="cpu")
    assert not (tmp_path / "lm.pt").exists()


def test_the_last_good_state_stays_where_the_loss_is_not_finite(sentences, units, tmp_path, monkeypatch):
    plan = Plan(epochs=2, batch=256, lr=3e-3)
    training = language.Training(sentences, units, SHAPE, plan, language.this_rank(), torch.device("cpu"))
    training.update(next(training.own_batches()))
    training.save(tmp_path / "lm.training.pt")
    saved = (tmp_path / "lm.training.pt").read_bytes()
    monkeypatch.setattr(language.nn.functional, "nll_loss", lambda logprobs, _: logprobs.sum() * math.nan)
    with pytest.raises(UserError, match="step 2 of .*, and delete .*lm.training.pt, which is of this one"):
        train(sentences, units, tmp_path / "lm.pt", SHAPE, plan, device="cpu")
    assert (tmp_path / "lm.training.pt").read_bytes() == saved


def test_perplexities_beyond_all_numbers_are_infinite():
    assert language.perplexity(1e6) == math.inf and language.perplexity(math.log(3)) == pytest.approx(3)


DAMAGE = {
    "no step": lambda state: state.pop("step"),
    "a step that is a float": lambda state: state.update(step=1.0),
    "a step beyond the last": lambda state: state.update(step=10**9),
    "a step below zero": lambda state: state.update(step=-1),
    "settings that are a number": lambda state: state.update(settings=3),
    "a weight of NaN": lambda state: state["model"]["bias"].fill_(math.nan),
    "a weight missing": lambda state: state["model"].pop("bias"),
    "moments of NaN": lambda state: state["optimizer"]["state"][0]["exp_avg"].fill_(math.nan),
    "moments of another shape": lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
    "no groups": lambda state: state["optimizer"].update(param_groups=[]),
    "no optimiser": lambda state: state.update(optimizer=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_state_with_anything_else_inside_is_refused(sentences, units, tmp_path, damage):
    training = language.Training(sentences, units, SHAPE, PLAN, language.this_rank(), torch.device("cpu"))
    training.update(next(training.own_batches()))
    training.save(tmp_path / "lm.training.pt")
    state = torch.load(tmp_path / "lm.training.pt", weights_only=True)
    damage(state)
    torch.save(state, tmp_path / "lm.training.pt")
    with pytest.raises(UserError, match="lm.training.pt is not the state of a training, or damaged .*; delete it"):
        train(sentences, units, tmp_path / "lm.pt", SHAPE, PLAN, device="cpu")


def test_two_trainings_into_one_file_are_refused_and_into_one_folder_are_not(sentences, units, tmp_path):
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
            train(sentences, units, tmp_path / "lm.pt", SHAPE, PLAN, device="cpu")
        train(sentences, units, tmp_path / "other.pt", SHAPE, Plan(epochs=1, batch=1024), device="cpu")
        other.communicate("\n")
    assert (tmp_path / "other.pt").is_file() and not (tmp_path / "lm.pt").exists()


def test_text_with_the_unknown_word_is_left_out_of_units_and_training(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("ONE TWO\nTWO ONE ONE\n<unk> ONE\nTWO <UNK>\n")
    language.train_from_text([tmp_path / "text.txt"], tmp_path / "lm.pt", 9, SHAPE, Plan(epochs=1), device="cpu")
    assert "2 sentences were left out" in capsys.readouterr().err
    assert not load_neural(tmp_path / "lm.pt", "cpu").knows("<unk>")


def test_a_dev_text_without_words_is_refused(tmp_path):
    for name, content in (("text.txt", "ONE TWO\nTWO ONE ONE\n"), ("dev.txt", "\n \n")):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="dev.txt has no words"):
        paths = [tmp_path / "text.txt"], tmp_path / "lm.pt"
        language.train_from_text(*paths, 9, SHAPE, Plan(epochs=1), tmp_path / "dev.txt", device="cpu")
