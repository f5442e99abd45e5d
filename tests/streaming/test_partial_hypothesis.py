from hypothesis import given
from hypothesis import strategies as st

from asrtool.streaming.partial_hypothesis import EmissionTracker, WordEmission

RESULTS = st.lists(st.lists(st.sampled_from("ab"), max_size=4), min_size=1, max_size=8)


def note(results):
    history = EmissionTracker()
    for time, words in enumerate(results, 1):
        history.note(list(words), time)
    return history.emissions()


def test_words_that_stay_are_final_when_they_come():
    assert note(["", "a", "ab", "ab"]) == [WordEmission("a", 2, 2), WordEmission("b", 3, 3)]


def test_a_word_that_goes_and_comes_back_is_final_when_it_is_back():
    assert note(["a", "b", "a", "a"]) == [WordEmission("a", 1, 3)]


def test_a_word_is_not_there_before_the_words_before_it_are():
    assert note(["ab", "bb", "ab"]) == [WordEmission("a", 1, 3), WordEmission("b", 1, 3)]
    assert note(["b", "ab"]) == [WordEmission("a", 2, 2), WordEmission("b", 2, 2)]


@given(RESULTS)
def test_first_and_final_are_what_their_names_say(results):
    emissions = note(results)
    assert [emission.word for emission in emissions] == results[-1]
    for number, (_, first, final) in enumerate(emissions, 1):
        beginning = results[-1][:number]
        there = [time for time, words in enumerate(results, 1) if words[:number] == beginning]
        assert first == there[0] and set(range(final, len(results) + 1)) <= {*there} and final - 1 not in there
