"""A known unit sequence in the frames of an utterance: its best alignment, and its probability in a window.

A chain has the states of one unit sequence in time order; a path stays in a state, goes on to the next one, or skips
one, where the topology allows it:

    ctc, modified   blank, unit 0, blank, unit 1, ..., blank: a blank may be skipped, in "ctc" not between equal units
    hmm             first frame of unit 0, further frames of unit 0, first frame of unit 1, ...: further ones may be
                    skipped, and only these may repeat (asrtool/graphs/topology.py)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrtool.graphs.training_graphs import FrameGraph
from asrtool.objectives.viterbi import viterbi
from asrtool.text.tokenizer import BLANK

LOG_ZERO = -1e30  # the log-probability of what is impossible: finite, so that sums and differences are numbers
WORDS_AT_ONCE = 256  # windows whose sums are computed together: some MB of emissions


class UnitChain(NamedTuple):
    """The S states of a unit sequence: see the module. The path ends in one of the last two states."""

    label: np.ndarray  # (S,) int64: the output of the model that a state reads
    may_repeat: np.ndarray  # (S,) bool: whether a state may follow itself
    may_skip: np.ndarray  # (S,) bool: whether a state may follow the one before its predecessor
    num_starts: int  # a path starts in one of so many first states


class FrameSpan(NamedTuple):
    """The frames of a unit: from `begin` to the one before `end`."""

    begin: int
    end: int


def unit_chain(units: Sequence[int], topology: str) -> UnitChain:
    """Returns the chain of a unit sequence under "ctc", "modified" or "hmm"."""
    numbers = np.asarray(units, dtype=np.int64)
    if topology == "hmm":
        label = np.stack([2 * numbers, 2 * numbers + 1], axis=1).reshape(-1)  # (U, 2) -> (2 U,)
        is_further = np.arange(len(label)) % 2 == 1
        may_skip = ~is_further
        may_skip[:2] = False
        return UnitChain(label, is_further, may_skip, num_starts=1)
    label = np.full(2 * len(numbers) + 1, BLANK, dtype=np.int64)
    label[1::2] = numbers
    may_skip = np.zeros(len(label), dtype=bool)
    may_skip[3::2] = True if topology == "modified" else numbers[1:] != numbers[:-1]
    return UnitChain(label, np.ones(len(label), dtype=bool), may_skip, num_starts=2)


def chain_graph(chain: UnitChain) -> FrameGraph:
    """Returns the chain as a graph for `viterbi`; its state 0 stands for "no frame yet", state s + 1 for state s."""
    states = np.arange(len(chain.label))
    repeats, skips = states[chain.may_repeat], states[chain.may_skip]
    starts = states[: chain.num_starts]
    start = np.full(len(states) + 1, -np.inf)
    start[0] = 0.0
    final = np.full(len(states) + 1, -np.inf)
    final[-2:] = 0.0
    source = np.concatenate([np.full(len(starts), -1), repeats, states[:-1], skips - 2]) + 1
    target = np.concatenate([starts, repeats, states[1:], skips]) + 1
    return FrameGraph(
        start=start,
        final=final,
        label=np.concatenate([[BLANK], chain.label]),
        source=source,
        target=target,
        weight=np.zeros(len(source)),
        unit_state=np.arange(len(states) + 1),
    )


def align_units(log_probs: np.ndarray, units: Sequence[int], topology: str) -> list[FrameSpan] | None:
    """Returns the frames of each unit on the best path of `units` through log_probs (T, V), or None without a path.

    In CTC topologies these are the frames that emit the unit; blanks belong to none.
    """
    if not units:
        return []
    score, path = viterbi(log_probs, chain_graph(unit_chain(units, topology)))
    if not score > -np.inf:  # NaN is refused, too
        return None
    states = path - 1
    unit_of_frame = states // 2 if topology == "hmm" else np.where(states % 2 == 1, states // 2, -1)
    numbers = np.arange(len(units))
    order = np.flatnonzero(unit_of_frame >= 0)
    owners = unit_of_frame[order]  # sorted: states are in time order
    begins = order[np.searchsorted(owners, numbers, side="left")]
    ends = order[np.searchsorted(owners, numbers, side="right") - 1] + 1
    return [FrameSpan(begin, end) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


def window_log_probs(
    log_probs: np.ndarray, windows: Sequence[FrameSpan], units: Sequence[Sequence[int]], topology: str
) -> np.ndarray:
    """Returns for each window (W,) the natural log of the probability that its frames collapse to its unit sequence.

    log_probs (T, V). It is the sum over all paths: the forward recursion of CTC (Graves et al. 2006, section 4.1). The
    probabilities of all unit sequences in a window sum to 1, so this is the posterior of the sequence. LOG_ZERO or less
    where no path of the window's length exists.
    """
    parts = [
        _window_log_probs(log_probs, windows[n : n + WORDS_AT_ONCE], units[n : n + WORDS_AT_ONCE], topology)
        for n in range(0, len(windows), WORDS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _window_log_probs(
    log_probs: np.ndarray, windows: Sequence[FrameSpan], units: Sequence[Sequence[int]], topology: str
) -> np.ndarray:
    """Does what `window_log_probs` does, for few windows: all at once, padded to the longest window and sequence."""
    chains = [unit_chain(sequence, topology) for sequence in units]
    num_states = np.array([len(chain.label) for chain in chains])  # (W,)
    width = int(num_states.max())  # S
    labels = _padded([chain.label for chain in chains], width, BLANK)  # (W, S)
    repeat_costs = np.where(_padded([chain.may_repeat for chain in chains], width, False), 0.0, LOG_ZERO)
    skip_costs = np.where(_padded([chain.may_skip for chain in chains], width, False), 0.0, LOG_ZERO)
    begins = np.array([window.begin for window in windows])
    lengths = np.array([window.end for window in windows]) - begins  # (W,)
    alpha = np.full((len(windows), width + 2), LOG_ZERO)  # two columns for what is before the first state
    alpha[:, 1] = 0.0  # "no frame yet", from which a path goes to the first state
    starts = np.array([chain.num_starts for chain in chains])
    first_costs = np.where(np.arange(width) < starts[:, None], 0.0, LOG_ZERO)
    for time in range(int(lengths.max(initial=0))):
        emissions = np.take_along_axis(log_probs[np.minimum(begins + time, len(log_probs) - 1)], labels, axis=1)
        if time == 0:
            following = first_costs + emissions
        else:
            following = np.logaddexp(alpha[:, 2:] + repeat_costs, alpha[:, 1:-1])
            following = np.logaddexp(following, alpha[:, :-2] + skip_costs) + emissions
        alpha[:, 1] = LOG_ZERO
        alpha[:, 2:] = np.where((time < lengths)[:, None], following, alpha[:, 2:])
    rows = np.arange(len(windows))
    ends = np.logaddexp(alpha[rows, num_states + 1], alpha[rows, num_states])
    return np.where(lengths > 0, np.minimum(ends, 0.0), LOG_ZERO)


def _padded(rows: Sequence[np.ndarray], width: int, value: int | bool) -> np.ndarray:
    """Returns arrays of different lengths as one array (rows, width), filled with `value`."""
    table = np.full((len(rows), width), value)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table
