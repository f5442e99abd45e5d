"""A stream's features are those of the whole recording, however it is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.data.features import count_frames, extractor
from asrtool.streaming.feature_stream import FeatureStream

ROUNDING = 2e-6  # features are near 10; the last bits depend on how many frames are multiplied at once


def audio(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def streamed(samples, rate, sizes):
    stream, pieces = FeatureStream(rate, 20), []
    while len(samples):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.accept(samples[:size]))
        samples = samples[size:]
    return torch.cat([*pieces, stream.finish()])


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(200, 6000),
    sizes=st.lists(st.integers(0, 900), max_size=4).map(lambda sizes: [*sizes, 61]),
    rate=st.sampled_from([8000, 16000, 22050]),
)
def test_features_of_pieces_equal_those_of_the_whole_recording(samples, sizes, rate):
    samples += rate // 40  # offline, less than a window cannot be mirrored
    whole = extractor(rate, 20).extract(audio(samples, samples), rate)
    torch.testing.assert_close(streamed(audio(samples, samples), rate, sizes), whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("samples", [140, 160, 239, 240, 401])
def test_features_of_the_shortest_recordings_equal_those_of_the_whole(samples):
    whole = extractor(16000, 20).extract(audio(samples), 16000)
    assert len(whole) == count_frames(samples, 16000)
    torch.testing.assert_close(streamed(audio(samples), 16000, [7]), whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("samples", [0, 1, 79, 139])
def test_recordings_that_are_too_short_to_be_mirrored_have_no_frames(samples):
    assert streamed(audio(samples), 16000, [50]).shape == (0, 20)


def test_a_frame_is_returned_as_soon_as_its_last_sample_arrives():
    stream = FeatureStream(16000, 20)
    assert stream.look_ahead == 0.0075
    ready = round((3 * 0.01 + stream.look_ahead) * 16000)  # three frames
    assert len(stream.accept(audio(ready - 1))) == 2
    assert len(stream.accept(audio(1))) == 1
