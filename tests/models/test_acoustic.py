"""The interface of every acoustic model: lengths, precision, randomness."""

import pytest
import torch

from asrtool.config_file import load_config
from asrtool.models.acoustic import AcousticModel

BATCH = (50, 20, 1)


def batch():
    generator = torch.Generator().manual_seed(13)
    return torch.randn(len(BATCH), max(BATCH), 7, generator=generator), torch.tensor(BATCH)


@torch.no_grad()
def test_out_length_is_the_number_of_output_frames(make_model, kind):
    model = make_model(**kind)
    for length in [*range(1, 30), 99, 200]:
        log_probs, out_lens = model(torch.zeros(1, length, 7), torch.tensor([length]))
        assert log_probs.shape == (1, model.out_length(length), 5) and out_lens.tolist() == [model.out_length(length)]


@pytest.mark.parametrize("bf16", [False, True])
def test_log_probs_are_normalised_float32_also_under_autocast(make_model, kind, bf16):
    model = make_model(**kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        log_probs, out_lens = model(*batch())
    assert log_probs.dtype == torch.float32 and out_lens.dtype == torch.int64
    torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(log_probs.shape[:2]), rtol=0, atol=1e-5)


def test_autocast_changes_little_and_trains_every_weight(make_model, kind):
    """bf16 has 8 bits: 0.4 % in each of some dozens of operations, on log-probs of about -3."""
    model = make_model(**kind)
    expected, out_lens = model(*batch())
    with torch.autocast("cpu", torch.bfloat16):
        log_probs, _ = model(*batch())
    for row, right, length in zip(log_probs, expected, out_lens, strict=True):
        assert 0 < (row[:length] - right[:length]).abs().mean() < 0.1
    log_probs[0].pow(2).mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_a_step_under_autocast_keeps_the_dtypes_of_its_state(make_model, streaming_kind):
    model = make_model(**streaming_kind)
    state, chunk = model.initial_state(2), model.latency().chunk
    before = [tensor.dtype for tensor in state]
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            log_probs, state = model.step(torch.randn(2, chunk, 7), torch.tensor([chunk, chunk]), state)
            assert log_probs.dtype == torch.float32
            assert [tensor.dtype for tensor in state] == before


def test_float64_stays_float64(make_model, kind):
    """So that numbers can be compared to more digits."""
    x, lens = batch()
    assert make_model(torch.float64, **kind)(x.double(), lens)[0].dtype == torch.float64


def test_the_same_input_gives_the_same_bits_in_evaluation_mode(make_model, kind):
    model = make_model(**kind | {"dropout": 0.5})
    assert torch.equal(model(*batch())[0], model(*batch())[0])


def test_dropout_is_drawn_in_training_mode(make_model, kind):
    model = make_model(**kind | {"dropout": 0.5}).train()
    assert not torch.equal(model(*batch())[0], model(*batch())[0])


def test_every_preset_of_the_recipes_builds(preset):
    config = load_config(preset)
    with torch.device("meta"):  # shapes without memory: some are large
        model = AcousticModel(config.model, config.features.num_bins, 500)
    assert len(model.output.bias) == 500


@pytest.mark.parametrize("convolution", [{}, {"convolution": {"kind": "none"}}])  # without, a CPU leaves out padding
def test_intermediate_log_probs_are_those_of_the_lower_half_of_the_blocks(make_model, kind, convolution):
    if "blstm" in kind.get("architecture", ""):
        pytest.skip("a BLSTM has no blocks")
    model = make_model(**kind | convolution)
    whole, lens, intermediate = model(*batch(), with_intermediate=True)
    assert torch.equal(whole, model(*batch())[0])
    model.encoder.blocks = model.encoder.blocks[:1]
    half = model(*batch())[0]
    for row, expected, length in zip(intermediate, half, lens, strict=True):
        assert torch.equal(row[:length], expected[:length])
