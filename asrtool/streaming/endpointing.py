"""When the speaker has ended: Kaldi's rules (online2/online-endpoint.h)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asrtool.errors import UserError, did_you_mean
from asrtool.streaming.partial_hypothesis import PartialHypothesis


@dataclass(frozen=True)
class EndpointRule:
    """An utterance has ended when all of this holds; times in seconds, the cost in natural logarithms."""

    needs_words: bool = False
    trailing: float = 0.0  # of silence or blank at least, at the end
    relative_cost: float = math.inf  # of the best final state at most
    length: float = 0.0  # of the utterance at least

    def holds(self, partial: PartialHypothesis, frame_seconds: float) -> bool:
        """Whether it does, for output frames of `frame_seconds`."""
        return (
            (bool(partial.words) or not self.needs_words)
            and partial.trailing * frame_seconds >= self.trailing
            and partial.frames * frame_seconds >= self.length
            and (self.relative_cost == math.inf or partial.relative_cost() <= self.relative_cost)
        )


@dataclass(frozen=True)
class Endpointing:
    """Rules of which one is enough; by default Kaldi's, with its values.

    The more likely the words are to be a whole sentence, the shorter the silence has to be. Without a graph nothing
    says how likely that is, and the second and third rule never hold.
    """

    rules: tuple[EndpointRule, ...] = (
        EndpointRule(trailing=5.0),  # nobody says anything
        EndpointRule(needs_words=True, trailing=0.5, relative_cost=2.0),  # it sounds finished
        EndpointRule(needs_words=True, trailing=1.0, relative_cost=8.0),  # it may be finished
        EndpointRule(needs_words=True, trailing=2.0),  # whatever was said
        EndpointRule(length=20.0),  # too long to wait: results and memory must come to an end
    )

    def ended(self, partial: PartialHypothesis, frame_seconds: float) -> bool:
        """Whether the utterance has ended with this partial result."""
        return any(rule.holds(partial, frame_seconds) for rule in self.rules)


KEYS = {"trailing": "trailing", "cost": "relative_cost", "length": "length"}


def parse_rules(texts: Sequence[str]) -> Endpointing | None:
    """Rules as the command line has them: "default", or "words,trailing=1.2", "cost=2,trailing=0.5", "length=15" ...

    None for none. UserError for what is no rule.
    """
    if not texts:
        return None
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
        elif key in KEYS:
            values[KEYS[key]] = _seconds(value, text)
        else:
            raise UserError(f"--endpoint {text}: '{part}' is no part of a rule ({did_you_mean(key, ['words', *KEYS])})")
    if not (values.get("trailing") or values.get("length")):
        raise UserError(f"--endpoint {text} would hold at once; give trailing=SECONDS or length=SECONDS, too")
    return EndpointRule(**values)


def _seconds(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"--endpoint {text}: '{value}' is no number from 0 on, or not finite; e.g. words,trailing=1.2")
    return number
