"""Forced alignment of log-probs with known transcripts: when each unit and each word is spoken."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from asrtool.graphs.context import transcript_graph
from asrtool.graphs.training_graphs import FrameGraph, Topology, UnitGraph, expand_topology
from asrtool.objectives.viterbi import viterbi
from asrtool.text.tokenizer import BLANK, Tokenizer

# The largest number of blanks on either side that count as a part of a unit, as a share of the mean duration of a unit
# in the utterance; what is longer is a pause, which belongs to no unit. On speech with known boundaries (egs/digits)
# this is best for phones and for whole words as units.
MAX_BLANK_SHARE = 0.2


@dataclass(frozen=True)
class Span:
    """The frames of a unit or a word."""

    index: int  # of the unit in the tokenizer; of the word in the transcript
    begin: int  # output frame
    end: int  # the frame behind the last
    score: float  # mean log-probability of the frames that emit the unit; of a word, the mean over its units


class Alignment(NamedTuple):
    """The units and words of an utterance, in order."""

    units: list[Span]
    words: list[Span]


def align_texts(
    log_probs: torch.Tensor,
    lens: torch.Tensor,
    texts: list[str],
    tokenizer: Tokenizer,
    topology: Topology,
    max_blank_share: float = MAX_BLANK_SHARE,
    silence: bool = False,
) -> list[Alignment | None]:
    """Returns the alignment of each utterance; None where the audio is too short for any path of its text.

    log_probs (N, T', V) and lens (N,) on the CPU. With `silence`, the unit of silence may be between words and at both
    ends; it belongs to no word. Raises KeyError for a text that cannot be written in units.
    """
    alignments: list[Alignment | None] = []
    for frames, length, text in zip(log_probs.float().numpy(), lens.tolist(), texts, strict=True):
        numerator = transcript_graph(tokenizer, text, silence)
        graph = expand_topology(numerator, topology)
        score, path = viterbi(frames[:length], graph)
        if not np.isfinite(score):
            alignments.append(None)
            continue
        if topology == "hmm":
            units = _hmm_spans(path.tolist(), graph, frames)
        else:
            units = _unit_spans(path.tolist(), graph, frames, max_blank_share)
        alignments.append(Alignment([span for _, span in units], _word_spans(units, numerator)))
    return alignments


def _unit_spans(
    path: list[int], graph: FrameGraph, log_probs: np.ndarray, max_blank_share: float
) -> list[tuple[int, Span]]:
    """Returns the units of a best path (T,), each with its state of the unit graph; log_probs (T, V).

    CTC emits a unit in few of its frames, and blanks in the others. The blanks between two units are divided between
    them, at most `max_blank_share` of the utterance's mean duration of a unit to each; the rest is a pause.
    """
    units: list[tuple[int, Span]] = []
    begin = 0
    for state, frames in groupby(path):
        end = begin + len(list(frames))
        label = int(graph.label[state])
        if label != BLANK:
            score = float(log_probs[begin:end, label].mean())
            units.append((int(graph.unit_state[state]), Span(label, begin, end, score)))
        begin = end
    if not units:
        return []
    most = math.ceil(max_blank_share * len(path) / len(units))
    begins = [span.begin for _, span in units]
    ends = [span.end for _, span in units]
    # blanks before each unit, and after the last
    gaps = [begin - end for begin, end in zip([*begins, len(path)], [0, *ends], strict=True)]
    before = [min(gaps[0], most), *(min(gap // 2, most) for gap in gaps[1:-1])]
    after = [*(min(gap - gap // 2, most) for gap in gaps[1:-1]), min(gaps[-1], most)]
    return [
        (state, Span(span.index, span.begin - blanks_before, span.end + blanks_after, span.score))
        for (state, span), blanks_before, blanks_after in zip(units, before, after, strict=True)
    ]


def _hmm_spans(path: list[int], graph: FrameGraph, log_probs: np.ndarray) -> list[tuple[int, Span]]:
    """Returns the units of a best path (T,) in topology "hmm", each with its state of the unit graph."""
    outputs = graph.label[path]
    begins = np.flatnonzero(outputs % 2 == 0)  # the first frame of each unit
    frame_scores = log_probs[np.arange(len(path)), outputs]
    return [
        (int(graph.unit_state[path[begin]]), Span(int(outputs[begin]) // 2, begin, end, float(scores.mean())))
        for begin, end, scores in zip(
            begins.tolist(), [*begins[1:].tolist(), len(path)], np.split(frame_scores, begins[1:]), strict=True
        )
    ]


def _word_spans(units: list[tuple[int, Span]], graph: UnitGraph) -> list[Span]:
    units_of_words = [(graph.word[state], span) for state, span in units if state in graph.word]
    words = []
    for index, group in groupby(units_of_words, key=lambda pair: pair[0]):
        spans = [span for _, span in group]
        score = float(np.mean([span.score for span in spans]))
        words.append(Span(index, spans[0].begin, spans[-1].end, score))
    return words
