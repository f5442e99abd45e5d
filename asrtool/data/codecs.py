"""Lossy codecs and filters of transmission channels: audio as it sounds after a call, a compressed file or a filter.

libsndfile encodes and decodes in memory. Its encoders keep the length and the start of the audio, so that alignments
stay valid. All functions take and return mono samples (n,) float32 of the same length.
"""

import io
import random
from functools import lru_cache

import numpy as np
import soundfile
import soxr

from asrtool.errors import UserError

TELEPHONE_RATE = 8000  # Hz
TELEPHONE_BAND = (300.0, 3400.0)  # Hz, of an analogue telephone line (ITU-T G.712)
FILTER_ORDER = 4  # of the low-pass filter: 24 dB per octave
BAND_ORDER = 8  # of the telephone's band-pass filter
HIGHEST_CUTOFF = 0.95  # of half the sampling rate: a filter above that would pass everything

# libsndfile's compression levels that are drawn from. 1 is the highest compression; MP3 refuses it at any rate, and
# Opus below 0.85 has more than 45 kbit/s, which changes speech little
COMPRESSION = {"mp3": (0.0, 0.99), "opus": (0.85, 1.0), "vorbis": (0.0, 1.0)}
FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "vorbis": ("OGG", "VORBIS")}
TELEPHONE_FORMATS = {"gsm": ("WAV", "GSM610"), "mulaw": ("WAV", "ULAW")}
RATES = {  # Hz; others are refused by the encoder
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}


def require_codecs(codecs: tuple[str, ...], sampling_rate: int) -> None:
    """Raises UserError unless this installation can encode all `codecs` at `sampling_rate` Hz."""
    for codec in codecs:
        rates = RATES.get(codec)
        if rates and sampling_rate not in rates:
            usable = ", ".join(map(str, rates))
            raise UserError(f"data.augment.codec: {codec} has no {sampling_rate} Hz, only {usable}; leave it out")
        kind, subtype = FORMATS.get(codec) or TELEPHONE_FORMATS[codec]
        if not soundfile.check_format(kind, subtype):
            raise UserError(f"data.augment.codec: this libsndfile has no encoder for {codec}; leave it out")


def draw_compression(codec: str, generator: random.Random) -> float | None:
    """Returns a compression level for `codec`, None where it has a fixed bit rate."""
    limits = COMPRESSION.get(codec)
    return generator.uniform(*limits) if limits else None


def through_codec(samples: np.ndarray, sampling_rate: int, codec: str, compression: float | None) -> np.ndarray:
    """Returns samples that were encoded and decoded; gsm and mulaw at 8 kHz, the others at their sampling rate."""
    peak = float(np.abs(samples).max(initial=0.0))
    scale = max(1.0, peak)  # encoders clip beyond full scale
    if codec in TELEPHONE_FORMATS:
        narrow = resample(samples / scale, sampling_rate, TELEPHONE_RATE)
        decoded = _encode_and_decode(narrow, TELEPHONE_RATE, *TELEPHONE_FORMATS[codec], None)
        decoded = resample(decoded, TELEPHONE_RATE, sampling_rate)
    else:
        decoded = _encode_and_decode(samples / scale, sampling_rate, *FORMATS[codec], compression)
    return fit_length(decoded, len(samples)) * np.float32(scale)


def _encode_and_decode(
    samples: np.ndarray, sampling_rate: int, kind: str, subtype: str, compression: float | None
) -> np.ndarray:
    with io.BytesIO() as file:
        settings = {} if compression is None else {"compression_level": compression}
        soundfile.write(file, samples, sampling_rate, format=kind, subtype=subtype, **settings)
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
    return decoded


def through_telephone(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Returns samples limited to the band of a telephone, 300 to 3400 Hz, at a sampling rate of 8 kHz in between."""
    from scipy.signal import sosfilt  # here: it takes half as long to import as torch

    narrow = resample(samples, sampling_rate, TELEPHONE_RATE)
    filtered = sosfilt(_telephone_band(), narrow).astype(np.float32)
    return fit_length(resample(filtered, TELEPHONE_RATE, sampling_rate), len(samples))


@lru_cache(maxsize=1)
def _telephone_band() -> np.ndarray:
    from scipy.signal import butter

    return butter(BAND_ORDER // 2, TELEPHONE_BAND, btype="bandpass", fs=TELEPHONE_RATE, output="sos")


def through_lowpass(samples: np.ndarray, sampling_rate: int, cutoff: float) -> np.ndarray:
    """Returns samples without the frequencies above `cutoff` Hz, which a filter of 24 dB per octave attenuates.

    The filter runs forwards and backwards, half of its order each time: it delays nothing.
    """
    from scipy.signal import butter, sosfiltfilt

    highest = HIGHEST_CUTOFF * sampling_rate / 2
    sections = butter(FILTER_ORDER // 2, min(cutoff, highest), fs=sampling_rate, output="sos")
    padding = min(len(samples) - 1, 3 * (2 * len(sections) + 1))
    return sosfiltfilt(sections, samples, padlen=padding).astype(np.float32)


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Returns samples (n,) at another rate, (n * to_rate / from_rate,) float32."""
    return samples if from_rate == to_rate else soxr.resample(samples, from_rate, to_rate)


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
    """Returns `length` samples: the first ones, or all of them and zeros behind them."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
