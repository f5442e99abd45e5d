"""CTC forced alignment: where in the audio the tokens of a known sequence are."""

import numpy as np
import torch


def ctc_align(log_probs: torch.Tensor, tokens: list[int], blank: int = 0) -> list[int]:
    """The frame where each token begins on the best CTC path of `tokens` (Viterbi over Graves 2006, figure 3).

    log_probs (T, V) on the CPU. Returns len(tokens) strictly increasing frame indices.
    Raises ValueError when no path of T frames yields `tokens`.
    """
    if not tokens:
        return []
    # States in the order of time: blank t1 blank t2 ... blank; odd states are tokens.
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    emissions = log_probs.detach()[:, torch.from_numpy(states)].double().numpy()
    steps, scores = _viterbi(emissions, states, blank)
    last = len(states) - 1 if scores[-1] > scores[-2] else len(states) - 2
    if not scores[last] > -np.inf:
        raise ValueError(f"{len(tokens)} tokens have no CTC path through {len(emissions)} frames")
    return _token_starts(steps, last)


def _viterbi(emissions: np.ndarray, states: np.ndarray, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps taken into each state, (T, S) of 0 (stayed), 1 or 2 (past a blank), and the last frame's scores, (S,)."""
    total, count = emissions.shape
    # A blank between two tokens may be skipped unless they are equal: those need it to be told from a repeat.
    skip = np.where((states[2:] != blank) & (states[2:] != states[:-2]), 0.0, -np.inf)
    steps = np.zeros((total, count), dtype=np.int8)
    options = np.full((3, count), -np.inf)
    # Before the first frame only the first blank's place is reached, as if the path had waited there;
    # from it the first frame may enter state 0 or state 1.
    scores = np.full(count, -np.inf)
    scores[0] = 0.0
    for time in range(total):
        options[0] = scores
        options[1, 1:] = scores[:-1]
        options[2, 2:] = scores[:-2] + skip
        steps[time] = options.argmax(axis=0)
        scores = options.max(axis=0) + emissions[time]
    return steps, scores


def _token_starts(steps: np.ndarray, state: int) -> list[int]:
    """Walk back from `state` at the last frame; the frames at which a token's state was entered."""
    starts = []
    for time in range(len(steps) - 1, -1, -1):
        step = int(steps[time, state])
        if step and state % 2 == 1:
            starts.append(time)
        state -= step
    return starts[::-1]
