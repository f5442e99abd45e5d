"""An utterance's output depends on nothing but its own frames."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

LENGTHS = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=4)
FILLINGS = [0.0, 1e4, -1e30, math.inf, -math.inf, math.nan]


def utterances(lengths, dtype, bins=7):
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, bins, generator=draw, dtype=dtype) for length in lengths]


def padded(sequences, extra, filling):
    longest = max(map(len, sequences)) + extra
    batch = torch.full((len(sequences), longest, sequences[0].shape[1]), filling, dtype=sequences[0].dtype)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    return batch, torch.tensor([len(s) for s in sequences])


def logits(model, batch, lens):
    """What enters the softmax, in the model's own precision: the log-probs themselves are always float32."""
    seen = []
    hook = model.output.register_forward_hook(lambda module, inputs, output: seen.append(output))
    log_probs, out_lens = model(batch, lens)
    hook.remove()
    return log_probs, seen[0], out_lens


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@given(data=st.data(), lengths=LENGTHS, extra=st.integers(0, 9), filling=st.sampled_from(FILLINGS))
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_neither_padding_nor_batch_mates_change_an_utterance(
    make_model, models, dtype, tolerance, data, lengths, extra, filling
):
    model, alone = make_model(dtype, **data.draw(models)), utterances(lengths, dtype)
    log_probs, together, out_lens = logits(model, *padded(alone, extra, filling))
    for row, sequence in enumerate(alone):
        expected_log_probs, expected, (length,) = logits(model, sequence[None], torch.tensor([len(sequence)]))
        assert out_lens[row] == length
        torch.testing.assert_close(together[row, :length], expected[0], rtol=0, atol=tolerance)
        torch.testing.assert_close(log_probs[row, :length], expected_log_probs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalise", ["global", "utterance", "none"])
@pytest.mark.parametrize("filling", [0.0, math.inf, math.nan])
def test_padding_has_no_gradient_and_adds_none_to_the_weights(make_model, kind, normalise, filling):
    model = make_model(torch.float64, **kind | {"normalise": normalise})

    def gradients(extra, filling):
        batch, lens = padded(utterances([2, 3, 4, 17], torch.float64), extra, filling)
        batch.requires_grad_()
        model.zero_grad()
        log_probs, out_lens = model(batch, lens)
        sum(row[:length].pow(2).sum() for row, length in zip(log_probs, out_lens, strict=True)).backward()
        return batch.grad, lens, [parameter.grad.clone() for parameter in model.parameters()]

    grad, lens, weights = gradients(6, filling)
    for row, length in zip(grad, lens, strict=True):
        assert (row[length:] == 0).all() and (row[:length] != 0).any()
    _, _, expected = gradients(0, 0.0)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-9)


def test_frames_without_padding_have_the_values_and_gradients_of_padded_ones(make_model, transformer_kind):
    model = make_model(torch.float64, **transformer_kind)
    batch, lens = padded(utterances([66, 1, 17, 30], torch.float64), 5, 0.0)

    def run(packs):
        model.zero_grad()
        model.encoder.pack_frames = packs
        log_probs, out_lens = model(batch, lens)
        rows = [row[:length] for row, length in zip(log_probs, out_lens, strict=True)]
        weights = torch.linspace(-1, 1, rows[0].shape[1], dtype=torch.float64)
        sum((row * weights).square().sum() for row in rows).backward()
        return rows, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    for ours, theirs in zip(run(packs=True), run(packs=False), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
