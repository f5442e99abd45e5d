"""A call of sherpa-onnx gives the log-probs of `forward`, from states that begin with zeros, wherever streams end."""

import torch

from asrtool.export.sherpa_onnx_graph import SILENT_BIN, SherpaStep, tail_padding_frames

BINS = 7  # of make_model


def shapes_of_the_loader(metadata):
    """Returns the shapes of the states of one stream, as sherpa-onnx computes them from the metadata of the file."""
    number = {name: int(value) for name, value in metadata.items() if value.isdigit()}
    left, heads, dim = number["left_context_len"], number["num_heads"], number["encoder_dims"]
    key, value = number["query_head_dims"] * heads, number["value_head_dims"] * heads
    convolution = (1, dim, number["cnn_module_kernels"] // 2)
    layer = [(left, 1, key), (1, 1, left, 3 * dim // 4), (left, 1, value), (left, 1, value), convolution, convolution]
    return [*layer * number["num_encoder_layers"], (1, 128, 3, 19), (1,)]


@torch.no_grad()
def run_calls(step, streams):
    """Returns the log-probs (N, frames, V) of streams (N, T, F) of whole chunks, without the delay."""
    state = step.initial_state(len(streams))
    outputs = []
    for chunk in streams.split(step.chunk, 1):
        log_probs, *state = step(chunk, state)
        outputs.append(log_probs)
    return torch.cat(outputs, 1)[:, step.model.delay :]


def stream_of(step, x, length):
    """Returns a stream of whole chunks: `length` frames of x, a frame that reaches into the silence, then silence."""
    frames = length + 1 + tail_padding_frames(step.model)
    stream = torch.full((frames + -frames % step.chunk, x.shape[1]), SILENT_BIN)
    stream[: length + 1] = torch.cat([x[:length], x[:1] - 1])
    return stream


def lengths(chunk):
    """Lengths of streams; none ends with a chunk, whose last frame would be computed before the silence is known."""
    return [length for length in (1, 29, 53, 54, 60, 77) if (length + 1) % chunk]


def test_the_states_have_the_shapes_that_the_loader_computes(make_model, streaming_kind):
    step = SherpaStep(make_model(**streaming_kind))
    state = step.initial_state(1)
    assert [tuple(tensor.shape) for tensor in state] == shapes_of_the_loader(step.metadata())
    assert all((tensor == 0).all() for tensor in state) and state[-1].dtype == torch.int64
    assert [tensor.shape for tensor in step(torch.zeros(1, step.chunk, BINS), state)[1:]] == [t.shape for t in state]


def test_calls_give_the_log_probs_of_forward_and_blanks_after_the_end(make_model, streaming_kind):
    model = make_model(**streaming_kind)
    step = SherpaStep(model)
    x = torch.randn(80, BINS, generator=torch.Generator().manual_seed(1))
    assert lengths(step.chunk)
    for length in lengths(step.chunk):
        with torch.no_grad():
            expected, lens = model(x[None, :length], torch.tensor([length]))
        log_probs = run_calls(step, stream_of(step, x, length)[None])
        torch.testing.assert_close(log_probs[:, :lens], expected, rtol=1e-4, atol=1e-4)
        assert log_probs.shape[1] > lens and (log_probs[:, lens:].argmax(-1) == 0).all()


def test_the_frames_before_the_delay_are_blank(make_model, streaming_kind):
    step = SherpaStep(make_model(**streaming_kind))
    frames = torch.randn(1, step.chunk * (2 + step.model.delay), BINS, generator=torch.Generator().manual_seed(1))
    state = step.initial_state(1)
    with torch.no_grad():
        outputs = []
        for chunk in frames.split(step.chunk, 1):
            log_probs, *state = step(chunk, state)
            outputs.append(log_probs)
    log_probs = torch.cat(outputs, 1)
    assert log_probs[:, : step.model.delay, 0].tolist() == [[0.0] * step.model.delay]
    assert (log_probs[:, step.model.delay :, 0] < 0).all()


def test_streams_of_a_batch_do_not_change_each_other(make_model, streaming_kind):
    step = SherpaStep(make_model(**streaming_kind))
    x = torch.randn(2, 80, BINS, generator=torch.Generator().manual_seed(2))
    long, short = stream_of(step, x[0], 76), stream_of(step, x[1], 40)
    short = torch.cat([short, torch.full((len(long) - len(short), BINS), SILENT_BIN)])
    both = run_calls(step, torch.stack([long, short]))
    torch.testing.assert_close(both[0], run_calls(step, long[None])[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1], run_calls(step, short[None])[0], rtol=1e-4, atol=1e-4)


def test_a_stream_goes_on_after_digital_silence(make_model, streaming_kind):
    """Output in the silence is blank, except for the frames that come only after it, and then no longer."""
    step = SherpaStep(make_model(**streaming_kind))
    x = torch.randn(60 * step.chunk, BINS, generator=torch.Generator().manual_seed(3))
    x[10 * step.chunk : 40 * step.chunk] = SILENT_BIN
    log_probs = run_calls(step, x[None])[0]
    per_call = step.chunk // step.model.subsampling.factor
    certain = log_probs[:, 0] == 0
    assert certain[11 * per_call : 40 * per_call - step.model.delay].all() and not certain[40 * per_call :].any()


def test_initial_values_other_than_zero_are_offsets(make_model):
    model = make_model(mask="chunk", chunk_size=3, memory=4)
    zeros = SherpaStep(model)
    usual = model.initial_state

    def ones(batch):
        first, lens, *state = usual(batch)
        return [first, lens, *(tensor + 1 for tensor in state)]

    model.initial_state = ones
    step = SherpaStep(model)
    x = torch.randn(1, step.chunk, BINS)
    assert all((tensor == 0).all() for tensor in step.initial_state(1))
    state = [*ones(1)]
    with torch.no_grad():
        expected = model.step(x, torch.tensor([step.chunk]), state)[1][2:]
        _, cache, *_ = step(x, step.initial_state(1))
        _, other, *_ = zeros(x, zeros.initial_state(1))
    for one, two in zip(step.layout.unpack(cache[0])[2:], expected, strict=True):
        torch.testing.assert_close(one, two)
    assert not torch.allclose(cache, other)
