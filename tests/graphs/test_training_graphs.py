import pytest

from asrtool.graphs.training_graphs import END, START, UnitNgram

SENTENCES = [[1, 2, 3], [1, 2], [2, 3, 1]]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_search_for_a_history_ends(order):
    ngram = UnitNgram(order, UnitNgram.count(SENTENCES, order, least=1))
    for history in ((), ngram.next((), START), ngram.next((), 2)):
        for unit in (1, 2, 3, 9, END):
            assert ngram.logprob(history, unit) < 0
            ngram.next(history, unit)


def test_counts_without_the_empty_history_are_refused():
    counts = UnitNgram.count(SENTENCES, 3, least=1)
    with pytest.raises(ValueError, match=r"lacks the empty history \[\]"):
        UnitNgram(3, [row for row in counts if row[0]])
    with pytest.raises(ValueError, match=r"lacks the empty history \[\]"):
        UnitNgram(3, [])


@pytest.mark.parametrize("seen", [[], [[1, 0]], [[1, -2], [2, 5]]], ids=str)
def test_counts_that_give_no_probability_are_refused(seen):
    counts = UnitNgram.count(SENTENCES, 3, least=1)
    with pytest.raises(ValueError, match="history that nothing follows, or a count that is not above 0"):
        UnitNgram(3, [*counts, [[3, 3], seen]])
