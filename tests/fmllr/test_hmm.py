"""Graphs of states for the GMM, against an enumeration of all their paths."""

from itertools import product

import numpy as np
import pytest
import torch

from asrtool.fmllr.gaussians import GaussianMixtures
from asrtool.fmllr.hmm import STATES_PER_PHONE, align_states, equal_states, is_silence, num_hmm_states, transcript_hmm


def chains(words, num_frames):
    """Returns all sequences of states of `num_frames` frames of words with pronunciations, with optional silence."""
    found = set()
    for chosen in product(*words):
        for silences in product([(), (0,)], repeat=len(words) + 1):
            units = [*silences[0]]
            for pronunciation, silence in zip(chosen, silences[1:], strict=True):
                units += [*pronunciation, *silence]
            states = [STATES_PER_PHONE * unit + offset for unit in units for offset in range(STATES_PER_PHONE)]
            if len(states) > num_frames:
                continue
            for ends in np.ndindex(*[num_frames] * (len(states) - 1)):
                bounds = [0, *(end + 1 for end in ends), num_frames]
                if all(begin < end for begin, end in zip(bounds, bounds[1:], strict=False)):
                    lengths = np.diff(bounds)
                    found.add(tuple(np.repeat(states, lengths)))
    return found


def paths(graph, num_frames):
    """Returns the labels of all paths of a frame graph with `num_frames` frames."""
    found = set()

    def extend(state, labels):
        if len(labels) == num_frames:
            if np.isfinite(graph.final[state]):
                found.add(tuple(labels))
            return
        for target in graph.target[graph.source == state]:
            extend(target, [*labels, int(graph.label[target])])

    for state in np.flatnonzero(np.isfinite(graph.start)):
        extend(state, [])
    return found


@pytest.mark.parametrize("words", [[[[1]]], [[[1], [2]]], [[[1, 1]]]], ids=["one", "two pronunciations", "two phones"])
def test_the_graph_has_all_ways_to_speak_the_words_and_no_other(words):
    for num_frames in range(1, 8):
        assert paths(transcript_hmm(words), num_frames) == chains(words, num_frames)


def test_the_best_path_is_that_of_the_spoken_states():
    num_states = num_hmm_states(3)
    generator = torch.Generator().manual_seed(1)
    means = 5 * torch.randn(num_states, 4, generator=generator)
    mixtures = GaussianMixtures(
        means, torch.ones_like(means), torch.zeros(num_states), torch.arange(num_states), num_states
    )
    words = [[[1, 2], [2]], [[1]]]
    spoken = np.repeat([0, 1, 2, 6, 7, 8, 3, 4, 5], [2, 1, 3, 1, 1, 2, 4, 1, 1])  # silence, phone 2, phone 1
    frames = means[torch.from_numpy(spoken)] + 0.1 * torch.randn(len(spoken), 4, generator=generator)
    assert align_states(mixtures, frames, transcript_hmm(words)).tolist() == spoken.tolist()
    assert align_states(mixtures, frames[:5], transcript_hmm(words)) is None  # six states need six frames
    assert is_silence(torch.from_numpy(spoken)).tolist() == [True] * 6 + [False] * 10


def test_equal_states_divide_the_frames_among_the_usual_pronunciations():
    states = equal_states([[[1], [2]], [[2]]], 24)
    assert states.tolist() == [n for n in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2] for _ in range(2)]
    assert len(equal_states([[[1]]], 5)) == 5
