"""Streams in the rows of `StreamStates` have the log-probs of `AcousticModel.step`, whichever advance together."""

import pytest
import torch

from asrtool.models.stream_states import StreamStates

CAPACITY = 4
STEPS = 2 * [([2], 1), ([0, 2, 3], 1), ([3, 0], 2), ([1, 2, 0, 3], 1), ([1], 5), ([2, 1], 1), ([0, 1, 2, 3], 2)]


def one_by_one(model, steps):
    """The log-probs of each stream of each step, from states of single streams, and which of them have a meaning.

    The first `delay` frames and those after the end depend on how frames are divided into steps.
    """
    states = [model.initial_state(1) for _ in range(CAPACITY)]
    for rows, x, lens in steps:
        outputs = []
        meaning = []
        for number, row in enumerate(rows):
            begin = (states[row][0] + model.lead_padding) // model.subsampling.factor - model.delay
            output, states[row] = model.step(x[number : number + 1], lens[number : number + 1], states[row])
            index = begin + torch.arange(output.shape[1])
            meaning.append((index >= 0) & (index < model.out_length(states[row][1])))
            outputs.append(output)
        yield torch.cat(outputs), torch.stack(meaning)


def random_steps(model):
    """Steps of some streams each, of one or several chunks; stream 3 ends within a step, and goes on with padding."""
    chunk = model.latency().chunk
    torch.manual_seed(5)
    has_ended = False
    for number, (rows, chunks) in enumerate(STEPS):
        lens = torch.full((len(rows),), chunks * chunk)
        if 3 in rows and (has_ended or number == 10):
            lens[rows.index(3)] = 0 if has_ended else chunk - 1
            has_ended = True
        yield rows, torch.randn(len(rows), chunks * chunk, 7), lens


@pytest.mark.parametrize("max_chunks", [1, 2])
@torch.no_grad()
def test_streams_of_stream_states_equal_single_streams(make_model, streaming_kind, max_chunks):
    """Also steps of more frames than the states take at once, and caches that are shorter and longer than a step."""
    model = make_model(**streaming_kind)
    states = StreamStates(model, 2, max_chunks * model.latency().chunk)
    states.grow(CAPACITY)
    assert states.capacity == CAPACITY
    steps = list(random_steps(model))
    num_compared = 0
    for (rows, x, lens), (expected, meaning) in zip(steps, one_by_one(model, steps), strict=True):
        result = states.step(x, lens, torch.tensor(rows))
        torch.testing.assert_close(result[meaning], expected[meaning], rtol=1e-5, atol=2e-5)
        num_compared += int(meaning.sum())
    assert num_compared >= 30


@torch.inference_mode()
def test_a_row_begins_anew_after_a_reset_and_the_others_go_on(make_model, streaming_kind):
    model = make_model(**streaming_kind)
    chunk = model.latency().chunk
    states = StreamStates(model, 2, chunk)
    x = torch.randn(3, 2, chunk, 7)
    lens = torch.full((2,), chunk)
    rows = torch.arange(2)
    outputs = [states.step(one, lens, rows) for one in x]
    states.reset(rows)
    states.step(x[0], lens, rows)
    states.reset(rows[:1])
    again = states.step(torch.stack([x[0, 0], x[1, 1]]), lens, rows)
    torch.testing.assert_close(again, torch.stack([outputs[0][0], outputs[1][1]]), rtol=0, atol=2e-5)
