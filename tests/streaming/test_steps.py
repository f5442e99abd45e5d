"""A stream's log-probs are those of the whole utterance, however it is cut, and whatever runs beside it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.streaming.step_frames import StepSchedule

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # absolute, of log-probs
LENGTHS = st.lists(st.integers(1, 5) | st.integers(1, 45), min_size=1, max_size=3)
SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=4)  # chunks in a step, in turn
PIECES = st.lists(st.integers(0, 40), max_size=5).map(lambda sizes: [*sizes, 6])  # frames in a piece, in turn
WHOLE = {  # what has no bound to what it waits for, or to what it remembers
    "full attention": {},
    "endless right context": {"mask": "sliding", "left_context": 2},
    "endless right context in one layer": {
        "mask": "sliding",
        "left_context": 2,
        "right_context": 0,
        "normalise": "utterance",
    },
    "endless left context": {"mask": "sliding", "right_context": 2},
    "blstm": {"architecture": "blstm"},
    "mean of the utterance": {"mask": "chunk", "chunk_size": 2, "memory": 2, "normalise": "utterance"},
}


def utterances(lengths, dtype):
    draw = torch.Generator().manual_seed(sum(lengths))
    return [2 * torch.randn(length, 7, generator=draw, dtype=dtype) for length in lengths]


def assert_as_whole(model, made, whole):
    """The first frames of each row of `made` (N, m, units) are what `forward` makes of the utterance, alone."""
    for row, utterance in zip(made, whole, strict=True):
        (expected,), (length,) = model(utterance[None], torch.tensor([len(utterance)]))
        assert len(expected) == length <= len(row)
        torch.testing.assert_close(row[:length], expected, rtol=0, atol=TOLERANCE[row.dtype])


def layout(state):
    return [(tensor.shape, tensor.dtype) for tensor in state]


def padded_stream(model, whole):
    """The frames of a batch of streams, whole chunks of them; not a number where they do not count. And their ends."""
    ends = torch.tensor([model.lead_padding + len(utterance) for utterance in whole])
    chunk, factor = model.latency().chunk, model.subsampling.factor
    size = (max(model.out_length(len(utterance)) for utterance in whole) + model.delay) * factor
    x = torch.full((len(whole), size + -size % chunk, 7), math.nan, dtype=whole[0].dtype)
    for row, utterance in zip(x, whole, strict=True):
        row[model.lead_padding : model.lead_padding + len(utterance)] = utterance[: len(row) - model.lead_padding]
    return x, ends


def by_steps(model, whole, sizes):
    """Log-probs by bare steps of `sizes` chunks in turn."""
    (x, ends), chunk, at = padded_stream(model, whole), model.latency().chunk, 0
    state, made = model.initial_state(len(whole)), []
    before = layout(state)
    while at < x.shape[1]:
        piece = x[:, at : at + chunk * sizes[len(made) % len(sizes)]]
        size = piece.shape[1]
        log_probs, state = model.step(piece, (ends - at).clamp(0, size), state)
        assert log_probs.shape[1] == size / model.subsampling.factor
        assert layout(state) == before
        made.append(log_probs)
        at += size
    return torch.cat(made, 1)[:, model.delay :]


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(data=st.data(), lengths=LENGTHS, sizes=SIZES)
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_steps_equal_forward(make_model, streaming_models, dtype, data, lengths, sizes):
    model, whole = make_model(dtype, **data.draw(streaming_models)), utterances(lengths, dtype)
    assert_as_whole(model, by_steps(model, whole, sizes), whole)


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.no_grad()
def test_each_preset_streams_or_raises_an_error(make_preset, dtype):
    model = make_preset(dtype)
    if model.can_stream:
        factor, chunk = model.subsampling.factor, model.latency().chunk
        whole = utterances([3 * chunk, 2 * chunk + 4 * factor + 1, 1], dtype)
        assert_as_whole(model, by_steps(model, whole, [1, 2]), whole)
    else:
        assert math.isinf(model.latency().right)
        with pytest.raises(ValueError, match="needs the whole utterance"):
            model.initial_state(1)


@pytest.mark.parametrize("model", WHOLE.values(), ids=WHOLE)
def test_a_model_that_needs_the_whole_utterance_has_no_state(make_model, model):
    model = make_model(**model)
    assert not model.can_stream
    with pytest.raises(ValueError, match="needs the whole utterance"):
        model.initial_state(2)


class FeatureInput:
    """One stream of features that is divided into steps."""

    def __init__(self, model):
        self.model, self.schedule, self.state = model, StepSchedule(model), model.initial_state(1)
        self.frames, self.count, self.taken = [torch.zeros(0, 7, dtype=model.output.weight.dtype)], 0, 0

    def accept(self, x, has_ended=False):
        """The log-probs (m, V) that are known after further frames x (n, F)."""
        self.frames.append(x)
        self.count += len(x)
        made = [self.model.output.weight.new_zeros(0, self.model.output.out_features)]
        while size := self.schedule.ready_size(self.count, has_ended):
            chunk = self.model.latency().chunk
            assert size % chunk == 0
            made.append(self._step(min(size, 2 * chunk), has_ended))
        return torch.cat(made)

    @torch.no_grad()
    def _step(self, size, has_ended):
        step = self.schedule.take(size, self.count, has_ended)
        x = torch.full((1, size, 7), math.nan, dtype=self.frames[0].dtype)
        x[0, : step.lead + step.num_frames] = 0.0
        begin, self.taken = self.taken, self.taken + step.num_frames
        x[0, step.lead : step.lead + step.num_frames] = torch.cat(self.frames)[begin : self.taken]
        log_probs, self.state = self.model.step(x, torch.tensor([step.length]), self.state)
        return log_probs[0, self.schedule.outputs(size, self.count, has_ended)]


@given(data=st.data(), lengths=LENGTHS, empty=st.booleans(), sizes=PIECES)
@settings(max_examples=40, deadline=None)
def test_pieces_of_any_length_give_the_same(make_model, streaming_models, data, lengths, empty, sizes):
    """Pieces of no frames, a stream without frames, and no frame that is not the stream's."""
    model = make_model(torch.float64, **data.draw(streaming_models))
    for whole in utterances(lengths + [0] * empty, torch.float64):
        stream, at, made = FeatureInput(model), 0, []
        while at < len(whole):
            size = sizes[len(made) % len(sizes)]
            made.append(stream.accept(whole[at : at + size]))
            at += size
        made = torch.cat([*made, stream.accept(whole[:0], has_ended=True)])
        assert len(made) == model.out_length(len(whole))
        if len(whole):
            assert_as_whole(model, made[None], [whole])


def padded(pieces, size):
    """(N, size, F), not a number beyond the pieces' ends."""
    ends = [torch.full((size - len(piece), 7), math.nan, dtype=piece.dtype) for piece in pieces]
    return torch.stack([torch.cat(pair) for pair in zip(pieces, ends, strict=True)])


@torch.no_grad()
def test_a_stream_may_end_with_a_chunk_while_others_continue(make_model, streaming_kind):
    """Which only the next step can tell."""
    model = make_model(torch.float64, **streaming_kind)
    chunk = model.latency().chunk
    whole = utterances([2 * chunk, 5 * chunk + 3, 4 * chunk, chunk], torch.float64)
    assert_as_whole(model, by_steps(model, whole, [1]), whole)
    assert_as_whole(model, by_steps(model, whole, [2]), whole)


@given(data=st.data(), size=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_a_stream_returns_a_chunk_as_soon_as_its_right_context_is_there(make_model, streaming_models, data, size):
    model = make_model(**data.draw(streaming_models))
    (right, chunk), factor = model.latency(), model.subsampling.factor
    waits = right + -right % factor  # steps are of whole output frames
    made = FeatureInput(model).accept(torch.zeros(size, 7))
    assert len(made) == max(0, (size - waits) // chunk * chunk // factor)


@given(data=st.data(), lengths=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 45)))
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_a_row_of_the_state_can_start_again_while_the_others_continue(make_model, streaming_models, data, lengths):
    """A server's slot: its row of the state becomes that of a new stream, and the other row notices nothing."""
    model = make_model(torch.float64, **data.draw(streaming_models))
    first, second, other = utterances(lengths, torch.float64)
    slot = torch.cat([padded_stream(model, [whole])[0] for whole in (first, second)], 1)
    begin, chunk = padded_stream(model, [first])[0].shape[1], model.latency().chunk
    beside = padded_stream(model, [other])[0]
    state, made = model.initial_state(2), []
    for at in range(0, max(slot.shape[1], beside.shape[1]), chunk):
        if at == begin:
            for tensor, fresh in zip(state, model.initial_state(1), strict=True):
                tensor[0] = fresh[0]
        pieces = [x[0, at : at + chunk] for x in (slot, beside)]
        ends = [len(first) if at < begin else begin + len(second), len(other)]
        lens = [min(max(model.lead_padding + end - at, 0), chunk) for end in ends]
        log_probs, state = model.step(padded(pieces, chunk), torch.tensor(lens), state)
        made.append(log_probs)
    made, behind = torch.cat(made, 1), begin // model.subsampling.factor
    rows = [made[0, model.delay : behind], made[0, behind + model.delay :], made[1, model.delay :]]
    assert_as_whole(model, rows, [first, second, other])


def test_a_state_is_a_flat_list_with_a_row_for_each_stream(make_model, streaming_kind):
    state = make_model(**streaming_kind).initial_state(3)
    assert isinstance(state, list)
    assert all(isinstance(tensor, torch.Tensor) and len(tensor) == 3 for tensor in state)


def test_a_step_does_not_change_its_input_state(make_model, streaming_kind):
    """So that a stream can go on from the same state twice."""
    model = make_model(**streaming_kind)
    x, lens = torch.randn(2, model.latency().chunk, 7), torch.full((2,), model.latency().chunk)
    _, state = model.step(x, lens, model.initial_state(2))
    before = [tensor.clone() for tensor in state]
    once, _ = model.step(x, lens, state)
    assert all(map(torch.equal, state, before))
    assert torch.equal(once, model.step(x, lens, state)[0])
