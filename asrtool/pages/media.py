"""Audio and spectrograms as data URIs, small enough that a page can hold dozens."""

import base64
import io
import struct
import zlib

import numpy as np
import soundfile

from asrtool.errors import UserError

# (container, encoding, type of the data URI), the smallest first. libsndfile before 1.0.29 has no Opus.
AUDIO_FORMATS = (("OGG", "OPUS", "audio/ogg"), ("OGG", "VORBIS", "audio/ogg"), ("FLAC", "PCM_16", "audio/flac"))
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)  # Hz, all that Opus has
COMPRESSION = 0.9  # of 1: about 20 kbit/s for Opus at 16 kHz, where speech is still clear

TOP_HERTZ = 8000.0  # highest frequency shown: speech has little above it
ROWS = 96  # frequencies
WINDOW_SECONDS = 0.025
SHIFT_SECONDS = 0.01
RANGE_DB = 65.0  # between white and black; the noise of a quiet room is at its lower end
LEVELS = 16  # greys, 4 bits a pixel


def audio_uri(samples: np.ndarray, sampling_rate: int) -> str:
    """Returns one channel of audio (n,), float in -1 .. 1, as a data URI: Opus where possible.

    Raises UserError where no encoder of libsndfile takes it.
    """
    for container, encoding, kind in AUDIO_FORMATS:
        if encoding == "OPUS" and sampling_rate not in OPUS_RATES:
            continue
        options = {} if encoding == "PCM_16" else {"compression_level": COMPRESSION}
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, samples, sampling_rate, encoding, format=container, **options)
        except (soundfile.LibsndfileError, ValueError, TypeError):
            continue
        return _data_uri(kind, buffer.getvalue())
    raise UserError(f"libsndfile cannot encode audio of {sampling_rate} Hz; update soundfile")


def top_hertz(sampling_rate: int) -> float:
    """Returns the frequency at the upper edge of a spectrogram."""
    return min(TOP_HERTZ, sampling_rate / 2)


def spectrogram_uri(samples: np.ndarray, sampling_rate: int) -> str:
    """Returns the spectrogram of one channel (n,) as a data URI: a grey PNG, ROWS high, a column each 10 ms.

    Loud is dark; the darkest is the loudest point of the utterance. The frequency rises from 0 to `top_hertz`.
    """
    return _data_uri("image/png", grey_png(spectrogram_levels(samples, sampling_rate)))


def spectrogram_levels(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Returns the greys (ROWS, T) uint8 of a spectrogram, from 0 (black) to LEVELS - 1; row 0 is the top."""
    window = max(2, round(WINDOW_SECONDS * sampling_rate))
    shift = max(1, round(SHIFT_SECONDS * sampling_rate))
    padded = np.pad(np.asarray(samples, dtype=np.float32), (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: max(1, len(samples)) : shift]  # (T, window)
    size = 1 << (window - 1).bit_length()
    powers = np.square(np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), size)))  # (T, size / 2 + 1)
    edges = np.linspace(0, size * top_hertz(sampling_rate) / sampling_rate, ROWS + 1)
    begins = edges[:-1].astype(int)
    ends = np.maximum(begins + 1, edges[1:].astype(int))
    bands = np.stack([powers[:, begin:end].mean(axis=1) for begin, end in zip(begins, ends, strict=True)])  # (ROWS, T)
    decibels = 10 * np.log10(np.maximum(bands, 1e-12))
    darkness = np.clip(1 + (decibels - decibels.max()) / RANGE_DB, 0, 1)
    return ((LEVELS - 1) * (1 - darkness[::-1])).round().astype(np.uint8)


def grey_png(levels: np.ndarray) -> bytes:
    """Returns greys (rows, columns) from 0 to LEVELS - 1 as PNG of 4 bits a pixel (ISO/IEC 15948)."""
    rows, columns = levels.shape
    even = np.pad(levels, ((0, 0), (0, columns % 2)))
    packed = (even[:, ::2] << 4 | even[:, 1::2]).astype(np.uint8)
    lines = np.pad(packed, ((0, 0), (1, 0)))  # each begins with its filter, 0: none
    header = struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0)  # 4 bits, grey
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
