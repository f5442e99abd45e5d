"""Room impulse responses (RIRs): simulated rooms, recorded responses, and the convolution with speech.

A simulated response has the direct sound and the reflections of a room, whose number grows with the square of the time
and whose energy decays exponentially (statistical room acoustics; Kuttruff, Room Acoustics, chapters 4 and 5). The
ratio of direct sound to reverberation follows Sabine's formula. It takes milliseconds, where the image method takes
seconds. Random approximations like this one, such as FRA-RIR (arXiv 2208.04101), train as well as simulated geometry.
"""

import numpy as np

SPEED_OF_SOUND = 343.0  # m/s
VOLUMES = (20.0, 500.0)  # m3, drawn on a logarithmic scale: from an office to a lecture hall
MAX_REFLECTIONS = 20_000  # drawn; in the dense end of a response, each stands for several
PEAK_LEAD_SECONDS = 0.002  # that are kept before the peak of a recorded response, the rise of the direct sound


def simulate_response(
    sampling_rate: int, t60: float, distance: float, generator: np.random.Generator, volume: float | None = None
) -> np.ndarray:
    """Returns the impulse response (n,) float32 of a room; its first sample is the direct sound, of amplitude 1.

    `t60` is the reverberation time in seconds, `distance` how far the microphone is in metres, and `volume` the room's
    volume in m3, which is drawn if it is None.
    """
    if volume is None:
        volume = float(np.exp(generator.uniform(*np.log(VOLUMES))))
    start = distance / SPEED_OF_SOUND  # seconds until the direct sound arrives
    end = start + t60
    count = 4 / 3 * np.pi * SPEED_OF_SOUND**3 * (end**3 - start**3) / volume  # reflections until then
    drawn = int(min(generator.poisson(count) if count < MAX_REFLECTIONS else MAX_REFLECTIONS, MAX_REFLECTIONS))
    # The number of reflections until t is proportional to t ** 3
    times = np.cbrt(generator.uniform(start**3, end**3, size=drawn))
    amplitudes = (start / times) * 10 ** (-3 * (times - start) / t60)  # 60 dB in t60; the direct sound has 1
    amplitudes *= generator.choice((-1.0, 1.0), size=drawn) * np.sqrt(max(1.0, count / MAX_REFLECTIONS))
    samples = ((times - start) * sampling_rate).astype(np.int64)
    response = np.bincount(samples, amplitudes, minlength=round(t60 * sampling_rate) + 1)
    response[0] += 1.0
    return response.astype(np.float32)


def trim_response(response: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, int]:
    """Returns a recorded response without the silence before its direct sound, and the sample of its peak.

    Recordings begin when the source is switched on, so that the response has the delay of the room in it.
    """
    peak = int(np.abs(response).argmax())
    first = max(0, peak - round(PEAK_LEAD_SECONDS * sampling_rate))
    return response[first:], peak - first


def reverberate(samples: np.ndarray, response: np.ndarray, peak: int = 0) -> np.ndarray:
    """Returns samples (n,) float32 convolved with an impulse response, of the same length and energy.

    The sample `peak` of the response is the direct sound: speech stays where it is, and alignments stay valid. The
    reverberation after the end is cut off.
    """
    from scipy.signal import fftconvolve  # here: it takes half as long to import as torch

    wet = fftconvolve(samples, response)[peak : peak + len(samples)]
    energy = float(np.square(samples, dtype=np.float64).sum())
    wet_energy = float(np.square(wet, dtype=np.float64).sum())
    if not wet_energy > 0:
        return samples
    return (wet * np.sqrt(energy / wet_energy)).astype(np.float32)
