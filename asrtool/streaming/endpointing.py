"""Endpointing: the rules by which an utterance has ended, after Kaldi's (online2/online-endpoint.h)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asrtool.errors import UserError, did_you_mean
from asrtool.streaming.partial_hypothesis import PartialHypothesis


@dataclass(frozen=True)
class EndpointRule:
    """A rule is met when all of its conditions are; times are in seconds, the cost in natural logarithms."""

    needs_words: bool = False
    trailing: float = 0.0  # least silence or blank at the end
    relative_cost: float = math.inf  # largest cost of the best final state, compared with the best path
    length: float = 0.0  # least duration of the utterance

    def is_met(self, partial: PartialHypothesis, frame_seconds: float) -> bool:
        """Returns True if the rule is met, for output frames of `frame_seconds`."""
        return (
            (bool(partial.words) or not self.needs_words)
            and partial.trailing * frame_seconds >= self.trailing
            and partial.frames * frame_seconds >= self.length
            and (self.relative_cost == math.inf or partial.relative_cost() <= self.relative_cost)
        )


@dataclass(frozen=True)
class Endpointing:
    """An utterance has ended when one of the rules is met. The default rules are four of Kaldi's five, with its values.

    The more likely the words are a whole sentence, the shorter the silence has to be. Without a graph that likelihood
    is unknown, and the rule with a cost is never met. Kaldi has another such rule, 0.5 s with a cost of 2. Its silence
    is that of an alignment; with CTC and MMI, blank begins after the last output of a unit, long before the word ends,
    so that this rule cuts words (docs/streaming.md#endpointing has the figures).
    """

    rules: tuple[EndpointRule, ...] = (
        EndpointRule(trailing=5.0),  # nobody speaks
        EndpointRule(needs_words=True, trailing=1.0, relative_cost=8.0),  # probably a whole sentence
        EndpointRule(needs_words=True, trailing=2.0),  # any words
        EndpointRule(length=20.0),  # bounds the memory and the wait for results
    )

    def has_ended(self, partial: PartialHypothesis, frame_seconds: float) -> bool:
        """Returns True if the utterance has ended with this partial hypothesis."""
        return any(rule.is_met(partial, frame_seconds) for rule in self.rules)


RULE_KEYS = {"trailing": "trailing", "cost": "relative_cost", "length": "length"}  # in text, and in EndpointRule
NO_RULES = "none"


def parse_rules(texts: Sequence[str]) -> Endpointing | None:
    """Returns the rules of --endpoint: "default", or "words,trailing=1.2", "cost=2,trailing=0.5", "length=15" ...

    Without rules, or with "none", it returns None. Raises UserError for a text that is not a rule.
    """
    if not texts or list(texts) == [NO_RULES]:
        return None
    if NO_RULES in texts:
        raise UserError(f"--endpoint {NO_RULES} means that no rule ends an utterance; give it without other rules")
    rules: list[EndpointRule] = []
    for text in texts:
        rules += Endpointing().rules if text == "default" else [_parse_rule(text)]
    return Endpointing(tuple(rules))


def _parse_rule(text: str) -> EndpointRule:
    values: dict = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if part.strip() == "words":
            values["needs_words"] = True
        elif key in RULE_KEYS:
            values[RULE_KEYS[key]] = _seconds(value, text)
        else:
            raise UserError(
                f"--endpoint {text}: '{part}' is not a condition ({did_you_mean(key, ['words', *RULE_KEYS])}); "
                "an example is words,trailing=1.2"
            )
    if not (values.get("trailing") or values.get("length")):
        raise UserError(f"--endpoint {text} would be met at once; give trailing=SECONDS or length=SECONDS as well")
    return EndpointRule(**values)


def _seconds(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"--endpoint {text}: '{value}' is not a finite number from 0 on; e.g. words,trailing=1.2")
    return number
