"""An estimate of the signal-to-noise ratio of an utterance from its samples alone."""

import numpy as np

FRAME_SECONDS = 0.02  # short enough to fall between words, long enough to average the periods of a voice
MIN_FRAMES = 25  # half a second: with less, the quietest tenth is two frames
NOISE_SHARE = 0.1  # the quietest tenth of the frames is noise: read speech pauses for more than that
SPEECH_SHARE = 0.5  # the loudest half is speech
SILENCE = 1e-10  # power of -100 dB of full scale; below that a file is digital silence, which has no noise
MAX_SNR = 80.0  # dB; beyond that the noise is the rounding of 16-bit samples


def estimate_snr(samples: np.ndarray, sampling_rate: int) -> float | None:
    """Returns the estimated SNR in dB of one channel `samples` (n,), float in -1 .. 1; None where it is unknown.

    The power of the quietest tenth of the 20 ms frames is taken as noise, the power of the loudest half as speech with
    noise. It is a figure to sort utterances by and not a measurement: speech without pauses, and audio whose silence
    was cut off, get too low a value; the lowest is 0. None is returned for less than half a second and for digital
    silence. Frames of digital silence within other audio are left out: they are padding or an editor's cut.
    """
    frame = max(1, round(FRAME_SECONDS * sampling_rate))
    count = len(samples) // frame
    powers = np.square(np.asarray(samples[: count * frame], dtype=np.float64)).reshape(count, frame).mean(axis=1)
    powers = np.sort(powers[powers > SILENCE])
    if len(powers) < MIN_FRAMES:
        return None
    noise = powers[: max(1, round(NOISE_SHARE * len(powers)))].mean()
    speech = powers[-round(SPEECH_SHARE * len(powers)) :].mean()
    return float(np.clip(10 * np.log10(max(speech - noise, noise) / noise), 0, MAX_SNR))
