"""A synthetic voice for tests: vowels by a source and a filter, in noise."""

import numpy as np
from scipy.signal import lfilter

RATE = 16_000
FORMANTS = [(700, 1200, 2500), (300, 2300, 3000), (400, 800, 2500), (500, 1700, 2500)]  # Hz, of a, i, u, e


def vowels(draw: np.random.Generator, seconds: float) -> np.ndarray:
    """Syllables of about 0.2 s each: a pulse train through the resonances of changing vowels, (n,) up to about 0.3."""
    parts, missing = [], round(seconds * RATE)
    while missing > 0:
        size = min(missing, int(draw.integers(RATE // 8, RATE // 4)))
        pitch = draw.uniform(110, 160) * (1 + 0.1 * np.linspace(0, 1, size))
        phase = np.cumsum(pitch / RATE)
        sound = np.diff(np.floor(phase), prepend=0.0)  # one pulse each period
        for formant in FORMANTS[draw.integers(len(FORMANTS))]:
            radius = np.exp(-np.pi * 80 / RATE)  # 80 Hz wide
            sound = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], sound)
        parts.append(sound * np.hanning(size) ** 0.3 / (1e-9 + np.abs(sound).max()))
        missing -= size
    return 0.3 * np.concatenate([np.zeros(0), *parts])


def pauses_and_voice(seed: int, pauses, seconds: float = 2.0, noise_db: float = -60.0):
    """For each pause, in seconds: the pause, then `seconds` of voice; noise everywhere.

    Returns the samples (n,) float32 and which of them are voice (n,) bool.
    """
    draw = np.random.default_rng(seed)
    samples = np.concatenate([np.concatenate([np.zeros(round(p * RATE)), vowels(draw, seconds)]) for p in pauses])
    voice = np.concatenate([np.repeat([False, True], [round(p * RATE), round(seconds * RATE)]) for p in pauses])
    noise = 10 ** (noise_db / 20) * draw.normal(size=len(samples))
    return (samples + noise).astype(np.float32), voice
