"""A stream's features are those of the whole recording, however it is cut."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.data.features import count_frames, extractor
from asrtool.streaming.feature_stream import FeatureStream, FrameExtractor

ROUNDING = 2e-6  # features are near 10; the last bits depend on how many frames are multiplied at once


def audio(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def streamed(samples, rate, sizes, kept=0):
    extractor = FrameExtractor(rate, 20)
    stream, pieces, taken = FeatureStream(extractor), [torch.zeros(0, 20)], 0
    for number in itertools.count():
        size = sizes[number % len(sizes)]
        stream.add(samples[:size])
        samples = samples[size:]
        if not len(samples):
            stream.end()
        count = stream.num_frames - taken
        if count:
            windows = stream.take(count)
            assert len(windows) == extractor.num_samples(count)
            pieces.append(extractor.features(windows[None])[0])
        taken += count
        stream.release(max(0, taken - kept))
        if not len(samples):
            return torch.cat(pieces)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(200, 6000),
    sizes=st.lists(st.integers(0, 900), max_size=4).map(lambda sizes: [*sizes, 61]),
    rate=st.sampled_from([8000, 16000, 22050]),
    kept=st.integers(0, 30),
)
def test_features_of_pieces_equal_those_of_the_whole_recording(samples, sizes, rate, kept):
    samples += rate // 40  # offline, less than a window cannot be mirrored
    whole = extractor(rate, 20).extract(audio(samples, samples), rate)
    torch.testing.assert_close(streamed(audio(samples, samples), rate, sizes, kept), whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("samples", [140, 160, 239, 240, 401])
def test_features_of_the_shortest_recordings_equal_those_of_the_whole(samples):
    whole = extractor(16000, 20).extract(audio(samples), 16000)
    assert len(whole) == count_frames(samples, 16000)
    torch.testing.assert_close(streamed(audio(samples), 16000, [7]), whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("samples", [0, 1, 79, 139])
def test_recordings_that_are_too_short_to_be_mirrored_have_no_frames(samples):
    assert streamed(audio(samples), 16000, [50]).shape == (0, 20)


def test_a_frame_is_complete_as_soon_as_its_last_sample_arrives():
    extractor = FrameExtractor(16000, 20)
    stream = FeatureStream(extractor)
    assert extractor.look_ahead == 0.0075
    ready = round((3 * 0.01 + extractor.look_ahead) * 16000)  # three frames
    stream.add(audio(ready - 1))
    assert stream.num_frames == 2
    stream.add(audio(1))
    assert stream.num_frames == 3


@pytest.mark.parametrize("frame", [0, 1, 7, 20])
def test_samples_are_kept_from_the_frame_that_was_not_released(frame):
    stream = FeatureStream(FrameExtractor(16000, 20))
    whole = audio(4000)
    for piece in whole.split(700):
        stream.add(piece)
        stream.take(stream.num_frames - stream._num_taken)
        stream.release(min(frame, stream.num_frames))
    assert torch.equal(stream.samples_from(frame), whole[160 * frame :])
    assert len(stream._samples) <= 4000 - 160 * frame + 160
