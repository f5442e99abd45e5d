import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.lm.sentences import encode_sentences, join_sentences, sentence_batches
from asrtool.text.tokenizer_training import train_tokenizer
from tests.tiny import counting_sentences


@pytest.fixture(scope="module")
def text():
    return counting_sentences()


@pytest.fixture(scope="module")
def tokenizer(text):
    return train_tokenizer("bpe", map(" ".join, text), 20)


@pytest.fixture(scope="module")
def sentences(text, tokenizer):
    return encode_sentences(text, tokenizer)


def split(sentences):
    """The units of each sentence."""
    return np.split(sentences.units, sentences.starts[1:-1])


def test_every_sentence_is_in_one_batch_of_at_most_the_size(sentences):
    batches = sentence_batches(sentences, 100, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(sentences)))
    lengths = sentences.input_lengths
    assert all(len(batch) * lengths[batch].max() <= 100 for batch in batches)
    padding = 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padding < 0.1


def test_the_seed_decides_the_order_of_the_batches(sentences):
    batches = sentence_batches(sentences, 100, seed=1)
    assert all(map(np.array_equal, batches, sentence_batches(sentences, 100, seed=1)))
    assert not np.array_equal(batches[0], sentence_batches(sentences, 100, seed=2)[0])


def test_a_sentence_longer_than_a_batch_has_one_of_its_own(sentences):
    assert all(len(batch) == 1 for batch in sentence_batches(sentences, 3, seed=1))


@pytest.mark.parametrize("size", [1, 12, 30])
def test_neighbours_are_joined_as_far_as_there_is_room(sentences, size):
    joined = join_sentences(sentences, size)
    sequences = split(joined)
    parts = [part.tolist() for one in sequences for part in np.split(one, np.flatnonzero(one == 0))]
    assert [[unit for unit in part if unit] for part in parts] == [one.tolist() for one in split(sentences)]
    lengths = joined.input_lengths
    assert all(length <= size or 0 not in one for length, one in zip(lengths, sequences, strict=True))
    firsts = [one.tolist().index(0) if 0 in one else len(one) for one in sequences]
    pairs = zip(lengths[:-1], firsts[1:], strict=True)
    assert all(length + first + 1 > size for length, first in pairs), "the next sentence had room"


def test_the_targets_of_a_batch_are_its_inputs_one_unit_later(sentences, text, tokenizer):
    inputs, lens, targets = sentences.batch([0, 5])
    assert inputs[:, 0].tolist() == [0, 0] and targets[lens.cumsum(0) - 1].tolist() == [0, 0]
    units = inputs[1, 1 : lens[1]].tolist()
    assert units == targets[lens[0] : -1].tolist() == tokenizer.encode(" ".join(text[5]))


def test_sentences_that_the_tokenizer_cannot_encode_are_left_out_and_counted(tokenizer, capsys):
    assert len(encode_sentences([["ONE"], ["ÉTÉ"], ["TWO", "É"]], tokenizer)) == 1
    assert "2 sentences were left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="no sentence"):
        encode_sentences([["ÉTÉ"]], tokenizer)


def test_long_sentences_are_divided(monkeypatch, caplog):
    from asrtool.lm import sentences as module

    monkeypatch.setattr(module, "MAX_SENTENCE_UNITS", 10)
    tokenizer = train_tokenizer("char", ["ab"])
    texts = [["ab"], ["ab"] * 30, ["b"] * 5, ["a" * 25]]
    encoded = encode_sentences(texts, tokenizer)
    assert encoded.input_lengths.max() <= 11
    assert encoded.units.tolist() == [unit for words in texts for word in words for unit in tokenizer.encode(word)]
    assert "2 sentences of more than 10 units were divided" in caplog.text
