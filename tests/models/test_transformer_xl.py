"""Transformer-XL compared with its formula (arXiv 1901.02860, sections 3.2 and 3.3), written out in loops.

    score(i, j) = [(q_i + u) . k_j + (q_i + v) . (W_r R_(i-j))] / sqrt(d_head)

with keys over the memory and the chunk; the memory is what the layer was given in earlier chunks, without gradient.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.config import ModelConfig
from asrtool.models.attention import AttentionContext, SelfAttention
from asrtool.models.caches import Caches
from asrtool.models.relative_positions import RelativePositions, relative_shift
from asrtool.models.transformer_xl import TransformerXl

DIM, HEADS = 6, 2
SIZE = DIM // HEADS


def sinusoid(distance):
    rates = [10000.0 ** (-2 * i / DIM) for i in range(DIM // 2)]
    return torch.tensor([f(distance * rate) for f in (math.sin, math.cos) for rate in rates], dtype=torch.float64)


def scores(layer, q, k, first):
    """(T, D) queries that stand at key `first` and on, (W, D) keys; returns (H, T, W), one number at a time."""
    relative, result = layer.relative, torch.empty(HEADS, len(q), len(k), dtype=torch.float64)
    u, v = relative.content_bias[:, 0], relative.position_bias[:, 0]
    rows = []
    for h in range(HEADS):
        part = slice(h * SIZE, (h + 1) * SIZE)
        for i in range(len(q)):
            for j in range(len(k)):
                r = (relative.projection.weight @ sinusoid(first + i - j))[part]
                rows.append(((q[i, part] + u[h]) @ k[j, part] + (q[i, part] + v[h]) @ r) / math.sqrt(SIZE))
    return torch.stack(rows).view(result.shape)


def attention(layer, x, seen):
    """(T, D) queries' input, (W, D) what they see, of which they are the last."""
    q = layer.qkv(x)[:, :DIM]
    k, v = layer.qkv(seen)[:, DIM:].chunk(2, -1)
    weights = scores(layer, q, k, len(seen) - len(x)).softmax(-1)
    heads = [weights[h] @ v[:, h * SIZE : (h + 1) * SIZE] for h in range(HEADS)]
    return layer.out(torch.cat(heads, -1))


def direct(encoder, x, chunk, memory, pre):
    """(T, D), one utterance: chunk by chunk, in each layer with a cache of the layer's inputs, before their norm."""
    caches = [x.new_zeros(0, DIM) for _ in encoder.blocks]
    outputs = []
    for y in (x * math.sqrt(DIM)).split(chunk):
        for number, block in enumerate(encoder.blocks):
            seen = torch.cat([caches[number], y])
            caches[number] = seen.detach()[max(0, len(seen) - memory) :]
            y = layer(block, y, seen, pre)
        outputs.append(encoder.norm(y))
    return torch.cat(outputs)


def layer(block, x, seen, pre):
    if pre:
        x = x + attention(block.attention, block.attention_norm(x), block.attention_norm(seen))
        return x + block.feed_forward(block.ff_norm(x))
    x = block.attention_norm(x + attention(block.attention, x, seen))
    return block.ff_norm(x + block.feed_forward(x))


def encoder(norm, chunk, memory, layers=3, **more):
    torch.manual_seed(3)
    names = {
        "architecture": "transformer_xl",
        "positional_encoding": "relative",
        "dim": DIM,
        "heads": HEADS,
        "dropout": 0.0,
    }
    config = {**names, "ff_dim": 8, "layers": layers, "norm": norm, "chunk_size": chunk, "memory": memory, **more}
    result = TransformerXl(ModelConfig.model_validate(config)).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # u and v begin as zeros
    return result


def sizes(lengths, dim=DIM):
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, dim, generator=draw, dtype=torch.float64) for length in lengths]


def batch(rows):
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def results(result, inputs, weights):
    """The output, and the gradients by the inputs and by the parameters, of a sum of squares."""
    result.pow(2).sum().backward()
    gradients = [x.grad for x in inputs] + [weight.grad for weight in weights]
    for tensor in [*inputs, *weights]:
        tensor.grad = None
    return result.detach(), gradients


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(
    "chunk, memory, lengths", [(3, 4, [10, 5]), (2, 1, [7]), (4, 0, [9]), (1, 2, [5, 1]), (2, 7, [8])]
)
def test_outputs_and_gradients_equal_a_loop_over_chunks_with_detached_caches(norm, chunk, memory, lengths):
    model = encoder(norm, chunk, memory)
    inputs, weights = [x.requires_grad_() for x in sizes(lengths)], list(model.parameters())
    together = model(*batch(inputs))
    together = torch.cat([row[:length] for row, length in zip(together, lengths, strict=True)])
    result, gradients = results(together, inputs, weights)
    alone = torch.cat([direct(model, x, chunk, memory, norm == "pre") for x in inputs])
    expected, expected_gradients = results(alone, inputs, weights)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-6)  # the sinusoids are float32
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_gradient_goes_into_earlier_chunks(checkpointing):
    model, (x,) = encoder("pre", 3, 6, activation_checkpointing=checkpointing), sizes([12])
    x.requires_grad_()
    model(x[None], torch.tensor([12]))[0, 6:9].pow(2).sum().backward()
    assert (x.grad[:6] == 0).all() and (x.grad[6:9] != 0).all() and (x.grad[9:] == 0).all()


def test_the_memory_is_attended_to():
    model, (x,) = encoder("pre", 3, 6, layers=1), sizes([12])
    other = torch.cat([x[:1].flip(1), x[1:]])
    before, after = (model(rows[None], torch.tensor([12]))[0] for rows in (x, other))
    changed = (before != after).any(-1)
    assert changed[:9].all() and not changed[9:].any()  # its chunk, and two more of which it is in the memory


def test_the_numbers_are_the_same_with_and_without_gradients():
    model, (x,) = encoder("post", 3, 4), sizes([11])
    with torch.no_grad():
        expected = model(x[None], torch.tensor([11]))
    torch.testing.assert_close(model(x[None], torch.tensor([11])), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_stream_equals_a_loop_over_chunks(norm):
    model, (x,) = encoder(norm, 3, 4), sizes([9])
    state, result = model.initial_state(1), []
    with torch.no_grad():
        for first, chunk in enumerate(x.split(3)):
            caches = Caches(state)
            result.append(model.step(chunk[None], torch.tensor([3 * first]), torch.tensor([9]), caches)[0])
            state = caches.new
        torch.testing.assert_close(torch.cat(result), direct(model, x, 3, 4, norm == "pre"), rtol=0, atol=1e-6)


def test_a_stream_uses_the_weights_of_the_moment():
    """The projected positions of the last step are used again only as long as the weights are the same."""
    model, (x,) = encoder("pre", 3, 4), sizes([3])
    first, lens = torch.tensor([0]), torch.tensor([3])
    with torch.no_grad():
        before = model.step(x[None], first, lens, Caches(model.initial_state(1)))
        again = model.step(x[None], first, lens, Caches(model.initial_state(1)))
        assert torch.equal(again, before)
        for block in model.blocks:
            block.attention.relative.projection.weight.mul_(3)
        after = model.step(x[None], first, lens, Caches(model.initial_state(1)))
        expected = direct(model, x, 3, 4, pre=True)
    assert not torch.allclose(after, before, rtol=0, atol=1e-3)
    torch.testing.assert_close(after[0], expected, rtol=0, atol=1e-6)


def test_training_goes_on_after_a_stream_in_inference_mode():
    """What a stream has computed in inference mode, which has no gradient, does not get into training."""
    model, x = encoder("pre", 3, 4).float(), sizes([3])[0].float()
    with torch.inference_mode():
        model.step(x[None], torch.tensor([0]), torch.tensor([3]), Caches(model.initial_state(1)))
    model(x[None], torch.tensor([3])).sum().backward()
    gradients = [block.attention.relative.projection.weight.grad for block in model.blocks]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    "context", [AttentionContext(), AttentionContext(2, 3), AttentionContext(0, 2), AttentionContext(None, 1)]
)
def test_relative_scores_over_whole_utterances_and_windows(context):
    """Positive and negative distances, over the whole utterance or a window."""
    torch.manual_seed(4)
    layer, (x,) = SelfAttention(DIM, HEADS, context, relative=True).double(), sizes([7])
    torch.nn.init.normal_(layer.relative.content_bias), torch.nn.init.normal_(layer.relative.position_bias)
    q, k, v = layer.qkv(x).chunk(3, -1)
    left, right = (math.inf if size is None else size for size in context[:2])
    hidden = torch.tensor([[not -left <= j - i <= right for j in range(7)] for i in range(7)])
    weights = scores(layer, q, k, 0).masked_fill(hidden, -math.inf).softmax(-1)
    heads = [weights[h] @ v[:, h * SIZE : (h + 1) * SIZE] for h in range(HEADS)]
    result = layer(x[None], torch.ones(1, 7, dtype=torch.bool))[0]
    torch.testing.assert_close(result, layer.out(torch.cat(heads, -1)), rtol=0, atol=1e-6)


@given(queries=st.integers(1, 7), keys=st.integers(1, 9), offset=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_position_term_is_the_product_of_q_plus_v_and_the_sinusoid_of_the_distance(queries, keys, offset):
    torch.manual_seed(5)
    layer, q = RelativePositions(DIM, HEADS).double(), torch.randn(2, HEADS, queries, SIZE, dtype=torch.float64)
    torch.nn.init.normal_(layer.position_bias)
    result = layer(q, keys, offset)
    assert result.shape == (2, HEADS, queries, keys)
    for i in range(queries):
        for j in range(keys):
            r = (layer.projection.weight @ sinusoid(i + offset - j)).view(HEADS, SIZE)
            expected = ((q[:, :, i] + layer.position_bias[:, 0]) * r).sum(-1) / math.sqrt(SIZE)
            torch.testing.assert_close(result[:, :, i, j], expected, rtol=0, atol=1e-6)


@given(batch=st.lists(st.integers(1, 3), max_size=2), queries=st.integers(1, 9), keys=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_relative_shift_moves_each_row_one_place_further(batch, queries, keys):
    x = torch.arange(math.prod(batch) * queries * (queries + keys)).view(*batch, queries, queries + keys)
    result = relative_shift(x, keys)
    expected = [x[..., i, queries - 1 - i : queries - 1 - i + keys] for i in range(queries)]
    assert torch.equal(result, torch.stack(expected, -2))


@pytest.mark.parametrize("layout", ["contiguous", "heads first", "columns first", "expanded"])
@given(queries=st.integers(1, 5), keys=st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_the_gradient_of_relative_scores_is_written_to_their_distances(layout, queries, keys):
    shape = (2, 3, queries, queries + keys)
    x = torch.randn(shape, dtype=torch.float64)
    if layout == "heads first":
        x = torch.randn(3, 2, *shape[2:], dtype=torch.float64).transpose(0, 1)
    if layout == "columns first":
        x = torch.randn(2, 3, shape[3], shape[2], dtype=torch.float64).transpose(2, 3)
    if layout == "expanded":
        x = torch.randn(2, 1, *shape[2:], dtype=torch.float64).expand(shape)
    x = x.detach().requires_grad_()
    y = relative_shift(x, keys)
    weights = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, weights)
    expected = torch.zeros(shape, dtype=torch.float64)
    for i in range(queries):
        begin = queries - 1 - i
        assert torch.equal(y[:, :, i], x[:, :, i, begin : begin + keys])
        expected[:, :, i, begin : begin + keys] = weights[:, :, i]
    assert torch.equal(grad, expected)


def test_a_step_computes_keys_and_values_once_and_needs_no_unfold():
    model = encoder("pre", chunk=4, memory=6, layers=1)
    x = torch.randn(1, 20, DIM, dtype=torch.float64, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(x, torch.tensor([20])).sum().backward()
    names = [event.name for event in profile.events()]
    assert not any("unfold" in name for name in names)
    assert names.count("aten::linear") == 5  # q, k and v; distances; the output; two of the feed-forward layer
