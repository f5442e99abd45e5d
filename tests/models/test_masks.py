"""The masks as drawn in the docstrings, and attention under them compared with a plain softmax."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.config import ModelConfig
from asrtool.models.attention import AttentionContext, SelfAttention
from asrtool.models.masks import ENDLESS, padding_mask, sliding_mask, utterance_numbers, valid_frames, windows
from asrtool.models.transformer import TransformerEncoder, attention_contexts

DIM = 6
SIDES = st.none() | st.integers(0, 5)
CONTEXTS = st.builds(AttentionContext, SIDES, SIDES, st.none()) | st.builds(
    AttentionContext, st.integers(0, 6), st.none(), st.integers(1, 5)
)


def drawn(rows):
    """A matrix as the docstrings draw it."""
    return [[int(sign == "1") for sign in row.split()] for row in rows]


def test_valid_frames_as_drawn():
    result = valid_frames(torch.tensor([-1, -1]), 5, torch.tensor([3, 1]))
    assert result.int().tolist() == drawn([". 1 1 1 .", ". 1 . . ."])


def test_utterance_numbers_as_drawn():
    assert utterance_numbers([3, 1], 2).tolist() == [0, 0, 0, -1, 1, -1]
    assert utterance_numbers([2, 0, 3]).tolist() == [0, 0, 2, 2, 2]


def test_valid_frames_count_from_the_first_frame_of_each_row():
    result = valid_frames(torch.tensor([-2, 0, 5]), 4, torch.tensor([1, 3, ENDLESS]))
    assert result.int().tolist() == drawn([". . 1 .", "1 1 1 .", "1 1 1 1"])


def test_the_padding_mask_as_drawn():
    assert padding_mask(torch.tensor([3, 1]), 4).int().tolist() == drawn(["1 1 1 .", "1 . . ."])


def test_the_sliding_mask_as_drawn():
    whole = ["1 1 . . .", "1 1 1 . .", "1 1 1 1 .", ". 1 1 1 1", ". . 1 1 1"]
    assert sliding_mask(5, 5, 0, 2, 1).int().tolist() == drawn(whole)
    assert sliding_mask(2, 5, 2, 2, 1).int().tolist() == drawn(["1 1 1 1 .", ". 1 1 1 1"])


@given(queries=st.integers(1, 6), keys=st.integers(1, 9), offset=st.integers(0, 5), left=SIDES, right=SIDES)
def test_the_sliding_mask_is_a_band(queries, keys, offset, left, right):
    result = sliding_mask(queries, keys, offset, left, right)
    before, after = (math.inf if side is None else side for side in (left, right))
    assert result.tolist() == [[-before <= j - i - offset <= after for j in range(keys)] for i in range(queries)]


def test_the_windows_as_drawn():
    frames = torch.tensor([ord(name) for name in "abc012345"])[None, :, None]
    result = ["".join(map(chr, window)) for window in windows(frames, 2, 3)[0, :, :, 0].tolist()]
    assert result == ["abc01", "c0123", "12345"]


@given(chunks=st.integers(1, 4), chunk=st.integers(1, 5), memory=st.integers(0, 9))
def test_a_window_is_a_chunk_and_the_frames_before_it(chunks, chunk, memory):
    x = torch.arange(2 * (memory + chunks * chunk) * 3).view(2, -1, 3)
    result = windows(x, chunk, memory)
    assert torch.equal(result, torch.stack([x[:, m * chunk :][:, : memory + chunk] for m in range(chunks)], 1))


def sees(context, i, j):
    """Whether frame i may look at frame j."""
    left, right = (math.inf if side is None else side for side in context[:2])
    if not context.chunk:
        return -left <= j - i <= right
    start = i // context.chunk * context.chunk
    return start - left <= j < start + context.chunk


@given(context=CONTEXTS, lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_attention_is_a_softmax_over_the_frames_that_may_be_seen(context, lengths):
    torch.manual_seed(10)
    layer, size = SelfAttention(DIM, 2, context).double(), max(lengths) + 2
    size += -size % (context.chunk or 1)
    x = torch.randn(len(lengths), size, DIM, dtype=torch.float64)
    result = layer(x, padding_mask(torch.tensor(lengths), size))
    assert result.isfinite().all()
    for row, y, length in zip(x, result, lengths, strict=True):
        hidden = torch.tensor([[not sees(context, i, j) for j in range(length)] for i in range(length)])
        q, k, v = (part.split(3, -1) for part in layer.qkv(row[:length]).chunk(3, -1))
        scores = [(q[h] @ k[h].T / math.sqrt(3)).masked_fill(hidden, -math.inf) for h in range(2)]
        expected = layer.out(torch.cat([scores[h].softmax(-1) @ v[h] for h in range(2)], -1))
        torch.testing.assert_close(y[:length], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, [AttentionContext()] * 3),
        ({"mask": "sliding", "left_context": 4, "right_context": 1}, [AttentionContext(4, 1)] * 3),
        (
            {"mask": "sliding", "left_context": (4, 5, 6), "right_context": (0, 1, 2)},
            [AttentionContext(4, 0), AttentionContext(5, 1), AttentionContext(6, 2)],
        ),
        (
            {"mask": "sliding", "right_context": (0, 0, 2)},
            [AttentionContext(None, 0), AttentionContext(None, 0), AttentionContext(None, 2)],
        ),
        ({"mask": "chunk", "chunk_size": 5, "memory": 7}, [AttentionContext(7, None, 5)] * 3),
        ({"architecture": "transformer_xl", "chunk_size": 5, "memory": 0}, [AttentionContext(0, None, 5)] * 3),
    ],
)
def test_each_layer_has_its_context(settings, expected):
    config = ModelConfig.model_validate({"layers": 3, "dim": DIM, "heads": 2, "ff_dim": 4, **settings})
    assert attention_contexts(config) == expected
    assert [block.attention.context for block in TransformerEncoder(config).blocks] == expected
