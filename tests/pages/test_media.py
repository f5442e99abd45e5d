"""Audio and pictures in a page can be decoded, and are what they were made from."""

import base64
import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from asrtool.pages.media import LEVELS, ROWS, audio_uri, grey_png, spectrogram_levels, spectrogram_uri, top_hertz
from tests.tiny import tone


def decoded(uri, kind):
    head, _, data = uri.partition(";base64,")
    assert head == f"data:{kind}"
    return io.BytesIO(base64.b64decode(data))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_audio_can_be_decoded_and_is_small(rate):
    samples = tone(440, 2.0, rate=rate)
    file = decoded(audio_uri(samples, rate), "audio/ogg")
    assert len(file.getbuffer()) < 30_000
    heard, heard_rate = soundfile.read(file)
    assert heard_rate == rate and abs(len(heard) - len(samples)) < 0.1 * rate
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * heard_rate / len(heard) == pytest.approx(440, abs=5)


def test_a_picture_has_the_greys_that_it_was_made_from():
    levels = np.random.default_rng(0).integers(LEVELS, size=(5, 7)).astype(np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(grey_png(levels))))  # 0 .. 255
    assert np.array_equal(picture // (255 // (LEVELS - 1)), levels)


def test_a_tone_is_darkest_in_its_row_and_while_it_lasts():
    rate = 16_000
    samples = np.concatenate([np.zeros(rate, np.float32), tone(2000, 1.0)])
    levels = spectrogram_levels(samples, rate)
    assert levels.shape == (ROWS, 200)
    row = int(ROWS * (1 - 2000 / top_hertz(rate)))
    assert abs(int(levels[:, 150].argmin()) - row) <= 1
    assert levels[:, :90].min() == LEVELS - 1 and levels[:, 150].min() == 0


@pytest.mark.parametrize("samples", [np.zeros(100, np.float32), np.zeros(0, np.float32)])
def test_silence_and_nothing_have_a_spectrogram(samples):
    decoded(spectrogram_uri(samples, 16_000), "image/png")
