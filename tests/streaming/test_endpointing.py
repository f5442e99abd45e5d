import math

import pytest

from asrtool.errors import UserError
from asrtool.streaming.endpointing import Endpointing, EndpointRule, parse_rules
from asrtool.streaming.partial_hypothesis import PartialHypothesis


@pytest.mark.parametrize(
    "words, seconds, trailing, cost, ended",
    [
        ([], 4.9, 4.9, 0.0, False),
        ([], 5.0, 5.0, math.inf, True),
        (["a"], 3.0, 0.9, 0.0, False),
        (["a"], 3.0, 1.0, 8.0, True),
        (["a"], 3.0, 1.0, 8.1, False),
        ([], 3.0, 1.0, 0.0, False),
        (["a"], 3.0, 1.9, math.inf, False),
        (["a"], 3.0, 2.0, math.inf, True),
        (["a"], 20.0, 0.0, math.inf, True),
    ],
)
def test_endpoints_follow_the_default_rules(words, seconds, trailing, cost, ended):
    partial = PartialHypothesis(words, round(seconds / 0.1), round(trailing / 0.1), lambda: cost)
    assert Endpointing().has_ended(partial, 0.1) == ended


def test_other_rules_may_be_given():
    partial = PartialHypothesis(["a"], 10, 2, lambda: 5.0)
    assert not Endpointing(()).has_ended(partial, 0.1)
    assert Endpointing((EndpointRule(trailing=0.2),)).has_ended(partial, 0.1)


def test_rules_are_parsed_from_text():
    parsed = parse_rules(["words,trailing=1.2", "cost=2,trailing=0.5", "length=15"])
    expected = EndpointRule(True, 1.2), EndpointRule(trailing=0.5, relative_cost=2.0), EndpointRule(length=15.0)
    assert parsed.rules == expected
    assert parse_rules(["default", "length=5"]).rules == (*Endpointing().rules, EndpointRule(length=5.0))
    assert parse_rules([]) is None and parse_rules(["none"]) is None


def test_no_rules_stand_alone():
    with pytest.raises(UserError, match="--endpoint none means that no rule ends an utterance; give it without other"):
        parse_rules(["length=5", "none"])


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("trialing=1", "--endpoint trialing=1: 'trialing=1' is not a condition (did you mean 'trailing'?)"),
        ("", "'' is not a condition"),
        ("trailing=long", "'long' is not a finite number from 0 on"),
        ("trailing", "'' is not a finite number from 0 on"),
        ("length=-1", "'-1' is not a finite number from 0 on"),
        ("length=nan", "'nan' is not a finite number from 0 on"),
        ("length=inf", "'inf' is not a finite number from 0 on"),
        ("trailing=1,cost=Infinity", "'Infinity' is not a finite number from 0 on"),
        ("trailing=1e999", "'1e999' is not a finite number from 0 on"),
        ("words", "--endpoint words would be met at once; give trailing=SECONDS or length=SECONDS"),
        ("cost=2,trailing=0", "would be met at once"),
    ],
)
def test_texts_that_are_not_rules_are_refused(text, complaint):
    with pytest.raises(UserError) as error:
        parse_rules([text])
    assert complaint in str(error.value)
