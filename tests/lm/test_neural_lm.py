import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from asrtool.errors import UserError
from asrtool.lm import neural_lm
from asrtool.lm.neural_lm import NeuralLm, interpolate_logprobs, load_neural_lm, require_neural_output, save_neural_lm
from asrtool.lm.transformer_lm import TransformerLm, TransformerLmConfig
from asrtool.tensor_files import save_tensors
from asrtool.text.tokenizer_training import train_tokenizer

SHAPE = TransformerLmConfig(dim=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(1)
    units = train_tokenizer("bpe", ["THE CAT SAT", "THE DOG SAT", "A CAT"], 24)
    return NeuralLm(TransformerLm(units.size, SHAPE), units)


def by_hand(lm, text):
    """The log-prob of all units of a text and of its end, one after the other."""
    units = [0, *lm.tokenizer.encode(text), 0]
    total = 0.0
    for place in range(1, len(units)):
        logprobs = lm.model(torch.tensor([units[:place]]), torch.tensor([place]))
        total += logprobs[-1, units[place]].item()
    return total


def test_a_sentence_has_the_probability_of_its_units(lm):
    texts = ["THE CAT SAT", "A DOG", "CAT"]
    for text, logprobs in zip(texts, lm.logprobs(map(str.split, texts)), strict=True):
        assert len(logprobs) == len(text.split()) + 1
        assert logprobs.sum() == pytest.approx(by_hand(lm, text), abs=1e-4)


def test_a_word_has_the_probability_of_its_own_units(lm):
    [both], [first] = lm.logprobs([["THE", "CAT"]]), lm.logprobs([["THE", "DOG"]])
    assert both[0] == pytest.approx(first[0], abs=1e-5) and both[1] != pytest.approx(first[1], abs=1e-3)


@pytest.fixture(scope="module")
def reader(lm):
    """One that sees 40 units at once."""
    torch.manual_seed(2)
    shape = replace(SHAPE, context=40)
    return NeuralLm(TransformerLm(lm.tokenizer.size, shape), lm.tokenizer, context=40)


def after(lm, history, text):
    """The log-prob of a text behind others, by hand."""
    before = [unit for words in history for unit in [0, *lm.tokenizer.encode(" ".join(words))]]
    units = [0, *lm.tokenizer.encode(text), 0]
    inputs = torch.tensor([before + units[:-1]])
    logprobs = lm.model(inputs, torch.tensor([inputs.shape[1]]))[len(before) :]
    return logprobs[range(len(units) - 1), units[1:]].sum().item()


def test_a_sentence_is_scored_after_its_history(reader):
    history = [["A", "DOG"], ["THE", "CAT", "SAT"]]
    one, other = reader.logprobs([["THE", "CAT"], ["DOG"]], history)
    assert one.sum() == pytest.approx(after(reader, history, "THE CAT"), abs=1e-4)
    assert other.sum() == pytest.approx(after(reader, history, "DOG"), abs=1e-4)
    assert abs(one.sum() - after(reader, [], "THE CAT")) > 1e-3


def test_the_last_sentences_of_the_history_that_fit_are_used(reader):
    long = ["THE", "CAT"] * 5
    units = len(reader.tokenizer.encode(" ".join(long))) + 1
    kept = (40 - len(reader.tokenizer.encode("DOG")) - 1) // units
    assert 0 < kept < 4
    [logprobs] = reader.logprobs([["DOG"]], [["A"], long, long, long, long])
    assert logprobs.sum() == pytest.approx(after(reader, [long] * kept, "DOG"), abs=1e-4)
    [logprobs] = reader.logprobs([["DOG"]], [["A"], ["CAT"] * 60])
    assert logprobs.sum() == pytest.approx(after(reader, [], "DOG"), abs=1e-4)


def test_all_sentences_have_the_same_history_in_several_batches(reader, monkeypatch):
    history, texts = [["THE", "CAT", "SAT"]], [["DOG"], ["THE", "CAT"] * 8, ["A"]]
    whole = list(reader.logprobs(texts, history))
    monkeypatch.setattr(neural_lm, "BATCH_UNITS", 1)
    for one, other in zip(reader.logprobs(texts, history), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_each_sentence_of_a_text_is_scored_after_the_ones_before(reader, lm):
    text = [["A", "DOG"], ["ÉTÉ"], ["THE", "CAT"]]
    first, _, last = reader.text_logprobs(text)
    assert first.sum() == pytest.approx(after(reader, [], "A DOG"), abs=1e-4)
    assert last.sum() == pytest.approx(after(reader, [["A", "DOG"]], "THE CAT"), abs=1e-4)
    for alone, other in zip(lm.logprobs(text), lm.text_logprobs(text), strict=True):  # which has no context
        np.testing.assert_array_equal(alone, other)


def test_an_empty_sentence_has_the_probability_of_its_end(lm):
    [logprobs] = lm.logprobs([[]])
    assert logprobs.tolist() == pytest.approx([by_hand(lm, "")], abs=1e-5)


def test_a_word_without_units_is_impossible_and_ignored_by_later_words(lm):
    assert "ÉTÉ" not in lm and "DOG" in lm
    (with_it, alone) = lm.logprobs([["THE", "ÉTÉ", "CAT"], ["THE", "CAT"]])
    assert with_it[1] == -np.inf
    np.testing.assert_allclose(with_it[[0, 2, 3]], alone, atol=1e-5)


def test_sentences_in_several_batches_keep_their_order(lm, monkeypatch):
    texts = [["CAT"] * n for n in (3, 1, 9, 2, 2)]
    whole = list(lm.logprobs(texts))
    monkeypatch.setattr(neural_lm, "BATCH_UNITS", 12)
    for one, other in zip(lm.logprobs(texts), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_interpolation_is_a_mixture_of_probabilities():
    one, other = np.log([0.2, 0.5]), np.array([np.log(0.4), -np.inf])
    np.testing.assert_allclose(np.exp(interpolate_logprobs(one, other, 0.25)), [0.35, 0.125])
    assert interpolate_logprobs(one, other, 0) is other and interpolate_logprobs(one, other, 1) is one


def test_a_saved_model_scores_the_same(lm, tmp_path):
    save_neural_lm(tmp_path / "lm.pt", lm.model, lm.tokenizer, SHAPE, {"seconds": 1.0})
    [logprobs], [expected] = (one.logprobs([["A", "DOG"]]) for one in (load_neural_lm(tmp_path / "lm.pt", "cpu"), lm))
    np.testing.assert_array_equal(logprobs, expected)


def test_a_context_is_as_in_training_or_smaller(lm, tmp_path):
    shape = replace(SHAPE, context=40)
    save_neural_lm(tmp_path / "lm.pt", TransformerLm(lm.tokenizer.size, shape), lm.tokenizer, shape, {})
    assert [load_neural_lm(tmp_path / "lm.pt", "cpu", size).context for size in (None, 0, 40)] == [40, 0, 40]
    with pytest.raises(UserError, match="lm.pt has a context of 40 units; --context 41 is more"):
        load_neural_lm(tmp_path / "lm.pt", "cpu", 41)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\\data\\\n"])
def test_files_without_a_model_are_refused(tmp_path, content):
    (tmp_path / "lm.pt").write_bytes(content)
    with pytest.raises(UserError, match="is not a neural language model"):
        load_neural_lm(tmp_path / "lm.pt")
    with pytest.raises(UserError, match="train-neural"):
        load_neural_lm(tmp_path / "none.pt")


def content_of(lm):
    weights = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    return {"config": dict(vars(SHAPE)), "tokenizer": lm.tokenizer.to_dict(), "model": weights, "facts": {}}


def shape(**changes):
    return lambda content: content["config"].update(changes)


def weight(change):
    return lambda content: content["model"].update({"bias": change(content["model"]["bias"])})


DAMAGE = {
    "a billion layers": shape(layers=10**9),
    "more layers": shape(layers=2),
    "no layers": shape(layers=0),
    "layers are a float": shape(layers=1.0),
    "layers are a bool": shape(layers=True),
    "a width beyond memory": shape(dim=1 << 20),
    "a width beyond numbers": shape(dim=10**30),
    "a width below zero": shape(dim=-16),
    "another width": shape(dim=32),
    "heads that do not divide": shape(heads=3),
    "no heads": shape(heads=0),
    "a dropout of NaN": shape(dropout=math.nan),
    "a dropout of 1": shape(dropout=1),
    "a context below zero": shape(context=-1),
    "a field too many": shape(more=1),
    "a shape that is a list": lambda content: content.update(config=[16, 1, 2]),
    "a field missing": lambda content: content["config"].pop("dim"),
    "no shape": lambda content: content.pop("config"),
    "no tokenizer": lambda content: content.pop("tokenizer"),
    "a tokenizer of no type": lambda content: content.update(tokenizer={"type": "none"}),
    "a tokenizer of other units": lambda content: content.update(tokenizer=OTHER.to_dict()),
    "a NaN": weight(lambda bias: bias.index_fill(0, torch.tensor([3]), math.nan)),
    "an infinity": weight(lambda bias: bias.index_fill(0, torch.tensor([3]), math.inf)),
    "a weight too short": weight(lambda bias: bias[:-1].clone()),
    "a weight of float64": weight(lambda bias: bias.double()),
    "a weight of whole numbers": weight(lambda bias: bias.long()),
    "a sparse weight": weight(lambda bias: bias.to_sparse()),
    "a weight that is a number": weight(lambda bias: 3.0),
    "a weight missing": lambda content: content["model"].pop("bias"),
    "a weight too many": lambda content: content["model"].update(more=torch.zeros(3)),
    "a weight of odd name": lambda content: content["model"].update({"encoder.blocks.": torch.zeros(3)}),
    "weights that are a list": lambda content: content.update(model=[1, 2]),
}
OTHER = train_tokenizer("bpe", ["THE CAT SAT", "THE DOG SAT", "A CAT"], 20)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_with_invalid_content_is_refused_before_a_model_is_built(lm, tmp_path, damage):
    content = content_of(lm)
    damage(content)
    save_tensors(tmp_path / "lm.pt", content)
    with pytest.raises(UserError, match=r"lm.pt is not a neural language model, or damaged \(.*train-neural") as caught:
        load_neural_lm(tmp_path / "lm.pt", "cpu")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(lm, tmp_path):
    save_neural_lm(tmp_path / "lm.pt", lm.model, lm.tokenizer, SHAPE, {})
    whole = (tmp_path / "lm.pt").read_bytes()
    place = whole.index(lm.model.bias.detach().numpy().tobytes()) + 5
    (tmp_path / "lm.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
    with pytest.raises(UserError, match="lm.pt is not a neural language model, or damaged"):
        load_neural_lm(tmp_path / "lm.pt", "cpu")


@pytest.mark.parametrize("content", [None, b"", "model"])
def test_a_model_may_replace_a_model(lm, tmp_path, content):
    if content == "model":
        save_neural_lm(tmp_path / "lm.pt", lm.model, lm.tokenizer, SHAPE, {})
    elif content is not None:
        (tmp_path / "lm.pt").write_bytes(content)
    require_neural_output(tmp_path / "lm.pt", [tmp_path / "text.txt"])


@pytest.mark.parametrize("content", [b"THE POOR", {"model": {}, "config": {}}, {"step": 3}])
def test_a_model_does_not_replace_a_checkpoint_or_a_text(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "lm.pt").write_bytes(content)
    else:
        save_tensors(tmp_path / "lm.pt", content)
    with pytest.raises(UserError, match="lm.pt, which exists and is not a neural language model"):
        require_neural_output(tmp_path / "lm.pt", [])


@pytest.mark.parametrize("kind", ["one sentence", "with a context"])
def test_long_sentences_are_scored_in_windows(lm, reader, monkeypatch, kind):
    model = lm if kind == "one sentence" else reader
    sentences = [["A", "DOG"], ["THE", "CAT", "?", "SAT"] * 40, ["CAT"]]
    whole = list(model.logprobs(sentences))
    monkeypatch.setattr(neural_lm, "MAX_SENTENCE_UNITS", 64)
    shapes = []
    hook = model.model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    windows = list(model.logprobs(sentences))
    hook.remove()
    assert max(length for _, length in shapes) <= 64 and len(shapes) > 4
    for first, second in zip(whole, windows, strict=True):
        assert first.shape == second.shape and (np.isinf(first) == np.isinf(second)).all()
    assert np.allclose(whole[0], windows[0], atol=1e-5) and np.allclose(whole[2], windows[2], atol=1e-5)
    assert np.allclose(whole[1][:8], windows[1][:8], atol=1e-5)  # in the first window
    finite = np.isfinite(whole[1])
    assert whole[1][finite].mean() == pytest.approx(windows[1][finite].mean(), rel=0.05)
