import itertools
import math

import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.lm.added_words import NewWord, add_words, default_logprob
from asrtool.lm.ngram import BOS, EOS, UNK
from asrtool.lm.ngram_files import read_ngrams, write_ngrams

ARPA = """\\data\\
ngram 1=6
ngram 2=6
ngram 3=3

\\1-grams:
-99\t<s>\t-0.3
-1.0\t</s>
-2.0\t<unk>
-0.35\tA\t-0.2
-0.45\tB\t-0.1
-1.3\tC

\\2-grams:
-0.2\t<s> A\t-0.15
-0.5\tA B\t-0.25
-0.8\tA C
-0.4\tB A\t-0.1
-0.9\tB </s>
-1.5\tA A

\\3-grams:
-0.3\t<s> A B
-0.25\tA B A
-0.6\tB A C

\\end\\
"""
WORDS = ["A", "B", "C"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return normalised(read_ngrams(path))


def normalised(model):
    """The model with unigrams and back-off weights that sum to 1, as trained ones have."""
    from asrtool.lm.ngram_pruning import recompute_backoffs

    unigrams = model.trie.nodes(1)
    model.logprobs[unigrams] -= np.log(np.exp(model.logprobs[unigrams].astype(float)).sum())
    return recompute_backoffs(model)


def probability(model, history, word) -> float:
    return math.exp(model.logprob(model.word_ids(history), model.ids[word]))


def histories(words):
    yield from itertools.product(words, repeat=2)
    yield from ((BOS, word) for word in words)
    yield (BOS,)


@pytest.mark.parametrize(
    "new",
    [
        [NewWord("N")],
        [NewWord("N", probability=0.05)],
        [NewWord("N", like="B")],
        [NewWord("N", like="A"), NewWord("M", like="A"), NewWord("O", probability=0.01), NewWord("P", like="C")],
    ],
    ids=["rare", "probability", "like", "several"],
)
def test_probabilities_after_each_history_sum_to_1(model, new):
    added = add_words(model, new)
    words = [*WORDS, *(one.word for one in new)]
    for history in histories(words):
        total = sum(probability(added, history, word) for word in [*words, EOS, UNK])
        assert total == pytest.approx(1.0, abs=1e-4), history


def test_a_word_like_another_is_as_probable_after_each_history_and_has_the_same_successors(model):
    added = add_words(model, [NewWord("N", like="B")])
    for history in histories(WORDS):
        assert probability(added, history, "N") == pytest.approx(probability(added, history, "B"), rel=1e-4), history
        assert probability(added, history, "N") <= probability(model, history, "B")
    for before, word in itertools.product(["A", "C", BOS], ["A", "C", EOS]):
        assert probability(added, (before, "N"), word) == pytest.approx(
            probability(added, (before, "B"), word), rel=1e-3
        )


def test_other_words_lose_in_proportion(model):
    added = add_words(model, [NewWord("N", probability=0.1)])
    unigram = [probability(added, (), word) / probability(model, (), word) for word in [*WORDS, EOS, UNK]]
    assert unigram == pytest.approx([0.9] * 5, rel=1e-4)
    assert probability(added, (), "N") == pytest.approx(0.1, rel=1e-4)
    assert probability(added, ("A",), "B") == pytest.approx(probability(model, ("A",), "B"), rel=1e-5)


def test_without_a_probability_a_word_is_at_least_as_probable_as_the_rarest(model):
    added = add_words(model, [NewWord("N")])
    assert probability(added, (), "N") == pytest.approx(probability(added, (), "C"), rel=1e-5)


@pytest.mark.parametrize(("count", "expected"), [(1, 1e-4), (100, 1e-4), (1000, 1e-5), (1_000_000, 1e-7)])
def test_words_of_which_nothing_is_known_share_a_hundredth_of_all_words(model, count, expected):
    model.logprobs[model.trie.nodes(1)][model.ids["C"]] = math.log(1e-7)
    assert default_logprob(model, count) == pytest.approx(math.log(expected), rel=1e-5)


def test_the_default_is_shared_by_words_without_a_probability_only(model):
    model.logprobs[model.trie.nodes(1)][model.ids["C"]] = math.log(1e-7)
    several = [NewWord(f"N{number}") for number in range(200)]
    added = add_words(model, [*several, NewWord("M", like="B"), NewWord("O", probability=0.01)])
    assert probability(added, (), "N0") == pytest.approx(500 * probability(added, (), "C"), rel=1e-4)
    assert probability(added, (), "O") == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("values", [[0.4], [0.3, 0.6], [1e-5, 0.2, 0.01]])
def test_given_probabilities_are_those_of_the_model(model, values):
    new = [NewWord(f"N{number}", probability=value) for number, value in enumerate(values)]
    added = add_words(model, [*new, NewWord("M"), NewWord("L", like="A")])
    for one in new:
        assert probability(added, (), one.word) == pytest.approx(one.probability, rel=1e-4)
        backoff = probability(added, ("A",), one.word) / one.probability
        assert backoff == pytest.approx(probability(added, ("A",), UNK) / probability(added, (), UNK), rel=1e-3)


@pytest.mark.parametrize("values", [[0.9, 0.9], [0.5, 0.5], [0.99] * 3])
def test_probabilities_that_leave_nothing_to_the_others_are_refused(model, values):
    with pytest.raises(UserError, match="the probabilities of the added words sum to .* give smaller ones"):
        add_words(model, [NewWord(f"N{number}", probability=value) for number, value in enumerate(values)])


def test_the_model_can_be_written_and_read(model, tmp_path):
    added = add_words(model, [NewWord("N", like="A"), NewWord("M")])
    write_ngrams(added, tmp_path / "out.arpa")
    again = read_ngrams(tmp_path / "out.arpa")
    for history in histories([*WORDS, "N", "M"]):
        for word in (*WORDS, "N", "M", EOS):
            assert again.logprob(again.word_ids(history), again.ids[word]) == pytest.approx(
                added.logprob(added.word_ids(history), added.ids[word]), abs=1e-5
            )


@pytest.mark.parametrize("new", [NewWord("A"), NewWord("N", like="Q")])
def test_words_that_the_model_has_and_unknown_likes_are_refused(model, new):
    with pytest.raises(ValueError, match=f"{new.word}: it is in the model already, or {new.like} is not"):
        add_words(model, [new])
