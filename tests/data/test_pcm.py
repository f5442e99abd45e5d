"""Raw PCM: the samples do not depend on how the bytes are cut, and what is not PCM is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrtool.data.pcm import PcmDecoder, PcmFormat, parse_pcm_format
from asrtool.errors import UserError


@pytest.mark.parametrize(
    "text, expected",
    [
        ("16000", (16000, "s16le", 1)),
        ("48000:f32le", (48000, "f32le", 1)),
        ("44100:s32le:2", (44100, "s32le", 2)),
    ],
)
def test_a_format_is_rate_type_and_channels(text, expected):
    parsed = parse_pcm_format(text)
    assert (parsed.rate, parsed.sample_type, parsed.channels) == expected


@pytest.mark.parametrize(
    "text, complaint",
    [
        *[(text, "is not a PCM format; give RATE") for text in ("", "x", "-1", "1.5", "٣", "16000:s16le:1:1")],
        ("16000:", "'' is not a PCM format"),
        ("16000:S16_LE", "give one of s16le, s32le, f32le"),
        ("16000:u8", "give one of s16le"),
        ("10", "10 Hz"),
        ("999999", "999999 Hz"),
        ("16000:s16le:0", "0 channels"),
        ("16000:s16le:65", "65 channels"),
        ("16000:s16le:x", "is not a PCM format; give RATE"),
        ("9" * 20, "is not a PCM format; give RATE"),
    ],
)
def test_an_impossible_format_is_refused(text, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_pcm_format(text)


@given(
    st.sampled_from(["s16le", "s32le", "f32le"]),
    st.integers(1, 3),
    st.lists(st.integers(0, 30), max_size=20),
    st.data(),
)
def test_the_cuts_of_the_bytes_do_not_matter(sample_type, channels, sizes, data):
    dtype = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}[sample_type]
    values = data.draw(st.lists(st.integers(-32768, 32767), min_size=10, max_size=60))
    frames = np.array(values[: len(values) - len(values) % channels]).reshape(-1, channels)
    samples = (frames / 32768 if sample_type == "f32le" else frames).astype(dtype)
    content = samples.tobytes()
    bounds = np.minimum(np.cumsum([0, *sizes]), len(content))
    pieces = [content[a:b] for a, b in zip(bounds, bounds[1:], strict=False)] + [content[bounds[-1] :]]
    decoder = PcmDecoder(PcmFormat(16000, sample_type, channels))
    result = np.concatenate([decoder.accept(piece) for piece in pieces])
    decoder.finish()
    assert result.dtype == samples.dtype and np.array_equal(result, samples)


def test_an_incomplete_sample_at_the_end_is_an_error():
    decoder = PcmDecoder(PcmFormat(16000, "s16le", 2))
    assert decoder.accept(bytes(7)).shape == (1, 2)
    with pytest.raises(UserError, match="after 3 of the 4 bytes of a sample .s16le, 2 channels."):
        decoder.finish()


@pytest.mark.parametrize("value, complaint", [(np.nan, "not finite numbers, first at 1.001 s"), (3000.0, "up to 3000")])
def test_floats_that_are_not_audio_are_refused(value, complaint):
    decoder = PcmDecoder(PcmFormat(1000, "f32le"))
    decoder.accept(np.zeros(1000, "<f4").tobytes())
    with pytest.raises(UserError, match=complaint):
        decoder.accept(np.array([1.0, value], "<f4").tobytes())


@pytest.mark.parametrize("sizes", [(1,), (3, 5), (1000,)])
@pytest.mark.parametrize("sample_type", ["s16le", "f32le"])
@pytest.mark.parametrize(
    "header",
    [
        b"RIFF\x24\x08\0\0WAVE",
        b"fLaC\0\0\0\x22",
        b"OggS\0\2\0\0",
        b"ID3\4\0\0\0\0",
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81",
        b"\0\0\0\x20ftypM4A ",
    ],
)
def test_an_audio_file_is_not_raw_pcm(header, sample_type, sizes):
    content = header + bytes(40)
    bounds = np.minimum(np.cumsum([0, *sizes]), len(content))
    pieces = [content[a:b] for a, b in zip(bounds, bounds[1:], strict=False)] + [content[bounds[-1] :]]
    decoder = PcmDecoder(PcmFormat(16000, sample_type))
    with pytest.raises(UserError, match="begins with the header of a file, and is not raw PCM"):
        for piece in pieces:
            decoder.accept(piece)


def test_the_bytes_of_a_header_within_a_stream_are_samples():
    decoder = PcmDecoder(PcmFormat(16000))
    assert len(decoder.accept(bytes(2))) == 1
    assert len(decoder.accept(b"RIFFftyp" * 3)) == 12
