"""The alignment of a long recording with its text, in memory and time that grow with its length alone.

The text and the greedy hypothesis are compared (asrtool/decoding/anchors.py), and the recording is cut at beginnings of
words within the anchors. What is between two cuts is aligned with edits (asrtool/decoding/edit_alignment.py), so that
words and audio without a counterpart are found there, too.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from asrtool.decoding.anchors import find_anchors
from asrtool.decoding.edit_alignment import AlignedUnit, EditAlignment, Filler, align_with_edits, begins_unit
from asrtool.decoding.edit_graph import EditCosts, Pronunciations, edit_graph
from asrtool.graphs.training_graphs import Topology
from asrtool.progress import progress
from asrtool.text.tokenizer import BLANK

# Units of an anchor on either side of a cut, at least: one misrecognised unit may be right by chance at its edge.
MARGIN_UNITS = 2
# Frames of a block, at least. Time grows with frames times states, and a block has a fixed cost of some milliseconds.
MIN_BLOCK_FRAMES = 500
MAX_BLOCK_CELLS = 400_000_000  # frames times states of a block: as many bytes; about 13 minutes of speech and text


class Block(NamedTuple):
    """A part of a recording and the part of the text that is aligned with it; ends are exclusive."""

    first_frame: int
    last_frame: int
    first_word: int
    last_word: int


def align_long(
    log_probs: np.ndarray,
    words: Sequence[Pronunciations],
    topology: Topology = "ctc",
    costs: EditCosts | None = None,
    min_block_frames: int = MIN_BLOCK_FRAMES,
) -> EditAlignment:
    """Returns the best alignment of log_probs (T, V), maybe float16, with J words that may be partly wrong.

    A block without any anchor and of more than MAX_BLOCK_CELLS has nothing in common with its text: all of its words
    are missing, and all of its audio is filler.
    """
    costs = costs or EditCosts()
    parts: list[tuple[Block, EditAlignment]] = []
    blocks = list(_blocks(log_probs, words, min_block_frames))
    for block in progress(blocks, "aligning", len(blocks), "blocks"):
        frames = log_probs[block.first_frame : block.last_frame].astype(np.float32)
        own_words = words[block.first_word : block.last_word]
        if _cells(block, words) > MAX_BLOCK_CELLS:
            parts.append((block, _nothing_in_common(frames, len(own_words))))
        else:
            parts.append((block, align_with_edits(frames, edit_graph(own_words, frames.shape[1], topology, costs))))
    return _joined(parts, len(words))


def _cells(block: Block, words: Sequence[Pronunciations]) -> int:
    own_words = words[block.first_word : block.last_word]
    states = sum(2 + 2 * sum(map(len, pronunciations)) for pronunciations in own_words)
    return states * (block.last_frame - block.first_frame)


def _blocks(log_probs: np.ndarray, words: Sequence[Pronunciations], min_frames: int) -> Iterator[Block]:
    """Yields blocks in order; what is too large is divided again, by anchors that are unique within it."""
    remaining = [Block(0, len(log_probs), 0, len(words))]
    is_whole = True
    while remaining:
        block = remaining.pop()
        too_large = _cells(block, words) > MAX_BLOCK_CELLS
        parts = _divide(block, log_probs, words, min_frames) if is_whole or too_large else [block]
        is_whole = False
        if len(parts) == 1:
            yield parts[0]
        else:
            remaining += reversed(parts)


def _divide(block: Block, log_probs: np.ndarray, words: Sequence[Pronunciations], min_frames: int) -> list[Block]:
    parts = []
    frame, word = block.first_frame, block.first_word
    for cut_frame, cut_word in _cuts(block, log_probs, words):
        if cut_frame - frame >= min_frames and block.last_frame - cut_frame >= min_frames:
            parts.append(Block(frame, cut_frame, word, cut_word))
            frame, word = cut_frame, cut_word
    return [*parts, Block(frame, block.last_frame, word, block.last_word)]


def _cuts(block: Block, log_probs: np.ndarray, words: Sequence[Pronunciations]) -> Iterator[tuple[int, int]]:
    """Yields frames and words of a block where both can be cut: before a word in the middle of an anchor."""
    heard, begins, ends = greedy_units(log_probs[block.first_frame : block.last_frame])
    first_units = [pronunciations[0] for pronunciations in words[block.first_word : block.last_word]]
    text = [unit for units in first_units for unit in units]
    word_starts = np.cumsum([0, *map(len, first_units)])[:-1]  # position in `text` of the first unit of each word
    for anchor in find_anchors(text, heard.tolist()):
        first = anchor.text + MARGIN_UNITS
        last = anchor.text + anchor.length - MARGIN_UNITS
        for word in range(*np.searchsorted(word_starts, [first, last + 1])):
            unit = int(word_starts[word]) - anchor.text + anchor.heard  # index of the word's first unit among `heard`
            frame = (int(ends[unit - 1]) + int(begins[unit]) + 1) // 2  # in the middle of the blanks before it
            yield block.first_frame + frame, block.first_word + word


def greedy_units(log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the units of the greedy hypothesis of (T, V), their first frames and the frames after their last."""
    best = log_probs.argmax(axis=1)
    begins = np.flatnonzero(begins_unit(log_probs))
    stays = np.append(best[1:] == best[:-1], False)
    ends = np.flatnonzero((best != BLANK) & ~stays) + 1
    return best[begins], begins, ends


def _nothing_in_common(log_probs: np.ndarray, num_words: int) -> EditAlignment:
    units, begins, ends = greedy_units(log_probs)
    fillers = [Filler(num_words, int(begins[0]), int(ends[-1]))] if len(units) else []
    return EditAlignment(-np.inf, num_words, [], fillers, np.zeros(len(log_probs)))


def _joined(parts: Sequence[tuple[Block, EditAlignment]], num_words: int) -> EditAlignment:
    units: list[AlignedUnit] = []
    fillers: list[Filler] = []
    for (frame, _, word, _), part in parts:
        units += [AlignedUnit(word + u.word, u.unit, frame + u.begin, frame + u.end) for u in part.units]
        fillers += [Filler(word + f.place, frame + f.begin, frame + f.end) for f in part.fillers]
    losses = [part.loss for _, part in parts]
    return EditAlignment(
        score=float(sum(part.score for _, part in parts)),
        num_words=num_words,
        units=units,
        fillers=fillers,
        loss=np.concatenate(losses) if losses else np.zeros(0),
    )
