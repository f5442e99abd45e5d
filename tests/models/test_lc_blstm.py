"""BLSTM and LC-BLSTM compared with explicit loops over chunks, layers, directions and utterances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asrtool.config import ModelConfig
from asrtool.models.blstm import Blstm, reversal
from asrtool.models.caches import Caches
from asrtool.models.lc_blstm import LcBlstm

DIM = 6


def rows(lengths):
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, DIM, generator=draw, dtype=torch.float64) for length in lengths]


def together(encoder, utterances):
    lens = torch.tensor([len(utterance) for utterance in utterances])
    batch = nn.utils.rnn.pad_sequence(utterances, batch_first=True, padding_value=7.0)
    return encoder(nn.functional.pad(batch, (0, 0, 0, 2), value=-3.0), lens)


def run(lstm, x, state=None):
    """(T, D) through an LSTM from `state`; the outputs, and the state at the end."""
    y, state = lstm(x[None], state)
    return y[0], state


def lc_blstm(encoder, x):
    """(T, D), one utterance: the chunk loop outside, the layer loop inside; nothing is padded."""
    zeros = torch.zeros(1, 1, DIM // 2, dtype=torch.float64)
    states, outputs = [(zeros, zeros)] * len(encoder.layers), []
    for start in range(0, len(x), encoder.chunk):
        window = x[start : start + encoder.chunk + encoder.right]
        for number, layer in enumerate(encoder.layers):
            kept, states_end = run(layer.ahead, window[: encoder.chunk], states[number])
            ahead = [kept]
            if len(window) > encoder.chunk:
                ahead.append(run(layer.ahead, window[encoder.chunk :], states_end)[0])  # and its state is thrown away
            states[number] = states_end
            back = run(layer.back, window.flip(0))[0].flip(0)  # from zeros at the right edge of the window
            window = torch.cat([torch.cat(ahead), back], -1)
        outputs.append(window[: encoder.chunk])
    return torch.cat(outputs)


@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4),
    chunk=st.integers(1, 5),
    look_ahead=st.integers(0, 6),
    layers=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_lc_blstm_equals_a_loop_over_chunks(lengths, chunk, look_ahead, layers):
    torch.manual_seed(6)
    names = {"architecture": "lc_blstm", "chunk_size": chunk, "look_ahead": look_ahead}
    encoder = LcBlstm(ModelConfig.model_validate({**names, "dim": DIM, "layers": layers})).double().eval()
    utterances = rows(lengths)
    for result, utterance in zip(together(encoder, utterances), utterances, strict=True):
        torch.testing.assert_close(result[: len(utterance)], lc_blstm(encoder, utterance), rtol=0, atol=1e-12)


def test_lc_blstm_gradients_equal_those_of_a_loop_over_chunks():
    """Through the states that go from chunk to chunk, too."""
    torch.manual_seed(6)
    names = {"architecture": "lc_blstm", "chunk_size": 3, "look_ahead": 2, "dim": DIM, "layers": 2, "dropout": 0.0}
    encoder, utterances = (
        LcBlstm(ModelConfig.model_validate(names)).double(),
        [x.requires_grad_() for x in rows([11, 4])],
    )
    leaves = [*utterances, *encoder.parameters()]
    result = together(encoder, utterances)
    loss = sum(row[: len(x)].pow(2).sum() for row, x in zip(result, utterances, strict=True))
    expected = sum(lc_blstm(encoder, x).pow(2).sum() for x in utterances)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves))


@torch.no_grad()
def test_lc_blstm_with_a_window_over_the_whole_utterance_is_a_blstm():
    torch.manual_seed(6)
    names = {"dim": DIM, "layers": 2}
    whole = Blstm(ModelConfig.model_validate({**names, "architecture": "blstm"})).double().eval()
    for chunk, look_ahead in ((9, 0), (12, 5)):
        lc = {"architecture": "lc_blstm", "chunk_size": chunk, "look_ahead": look_ahead}
        controlled = LcBlstm(ModelConfig.model_validate({**names, **lc})).double().eval()
        controlled.load_state_dict(whole.state_dict())
        utterances = rows([9, 5])
        for result, expected, x in zip(
            together(controlled, utterances), together(whole, utterances), utterances, strict=True
        ):
            torch.testing.assert_close(result[: len(x)], expected[: len(x)], rtol=0, atol=1e-12)


@torch.no_grad()
def test_lc_blstm_ignores_frames_before_the_utterance():
    """Whatever a stream was fed before its first frame."""
    torch.manual_seed(6)
    names = {"architecture": "lc_blstm", "chunk_size": 3, "look_ahead": 2, "dim": DIM, "layers": 2}
    encoder, (x,) = LcBlstm(ModelConfig.model_validate(names)).double().eval(), rows([9])
    junk = torch.full((1, 7, DIM), 50.0, dtype=torch.float64)
    fed = torch.cat([junk, x[None], junk[:, :2]], 1)  # frames -7 to 10; what comes out is 2 frames behind
    result = encoder.step(fed, torch.tensor([-7]), torch.tensor([9]), Caches(encoder.initial_state(1)))
    torch.testing.assert_close(result[0, 9:], lc_blstm(encoder, x), rtol=0, atol=1e-12)


@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4), layers=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_blstm_equals_torchs_bidirectional_lstm_on_each_utterance(lengths, layers):
    torch.manual_seed(6)
    names = {"architecture": "blstm", "dim": DIM, "layers": layers}
    encoder = Blstm(ModelConfig.model_validate(names)).double().eval()
    utterances = rows(lengths)
    expected = nn.LSTM(DIM, DIM // 2, layers, batch_first=True, bidirectional=True).double()
    for number, layer in enumerate(encoder.layers):
        for part, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name, value in part.named_parameters():
                getattr(expected, f"{name[:-1]}{number}{suffix}").copy_(value)
    for result, utterance in zip(together(encoder, utterances), utterances, strict=True):
        torch.testing.assert_close(result[: len(utterance)], expected(utterance[None])[0][0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask, order", [("1110", "2103"), ("1000", "0123"), ("1111", "3210"), ("0000", "0123")])
def test_reversal_reverses_the_valid_frames(mask, order):
    mask = torch.tensor([[digit == "1" for digit in mask]] * 2)
    assert reversal(mask).tolist() == [[int(digit) for digit in order]] * 2
