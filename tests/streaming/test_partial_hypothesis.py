from hypothesis import given
from hypothesis import strategies as st

from asrtool.streaming.partial_hypothesis import EmissionTracker, WordEmission

RESULTS = st.lists(st.lists(st.sampled_from("ab"), max_size=4), min_size=1, max_size=8)


def note(results):
    history = EmissionTracker()
    for time, words in enumerate(results, 1):
        history.update(list(words), time)
    return history.emissions()


def test_words_that_stay_are_final_when_they_appear():
    assert note(["", "a", "ab", "ab"]) == [WordEmission("a", 2, 2), WordEmission("b", 3, 3)]


def test_a_word_that_disappears_and_returns_is_final_when_it_returns():
    assert note(["a", "b", "a", "a"]) == [WordEmission("a", 1, 3)]


def test_a_word_has_not_appeared_before_all_words_before_it_have():
    assert note(["ab", "bb", "ab"]) == [WordEmission("a", 1, 3), WordEmission("b", 1, 3)]
    assert note(["b", "ab"]) == [WordEmission("a", 2, 2), WordEmission("b", 2, 2)]


@given(RESULTS)
def test_first_and_final_follow_their_definitions(results):
    emissions = note(results)
    assert [emission.word for emission in emissions] == results[-1]
    for number, (_, first, final) in enumerate(emissions, 1):
        beginning = results[-1][:number]
        there = [time for time, words in enumerate(results, 1) if words[:number] == beginning]
        assert first == there[0] and set(range(final, len(results) + 1)) <= {*there} and final - 1 not in there
