"""Faults of the audio of utterances, from the measures of their recordings (asrtool/doctor/data_audio.py)."""

from collections.abc import Iterable, Sequence

from asrtool.data.samples import LENGTH_TOLERANCE
from asrtool.doctor.data_audio import MIN_PEAK, Measured
from asrtool.doctor.data_entries import Source, Utterance
from asrtool.doctor.data_faults import Faults
from asrtool.doctor.data_signal import Signal

MAX_OFFSET = 0.01  # of full scale: recordings through a capacitor, which is nearly all, have a thousandth at most
MIN_OFFSET_SECONDS = 0.5  # the mean of a few periods of a voice is not zero
MAX_CLIPPED_SHARE = 2e-4  # of the samples: three a second at 16 kHz; speech that is only loud has none in runs
MIN_LEVEL = -50.0  # dB of full scale, of the loud frames: 20 dB below quiet recordings of LibriSpeech
MIN_SNR = 5.0  # dB
MIN_SPEECH_SHARE = 0.15  # of the audio: single words in a second of audio have 0.4
MIN_PAUSE_SECONDS = 3.0  # of an utterance that is mostly silent
MAX_NOISE_RANGE = 4.0  # dB between loud and quiet frames: steady noise has 2, speech 25 and more
MIN_FLATNESS = -8.0  # dB: noise is flat, steady tones are not
MIN_OVERLAP = 0.1  # seconds that two segments share: less is the rounding of their times


def check_recording(measured: Measured, source: Source, utterances: Sequence[Utterance], faults: Faults) -> None:
    """Adds the faults of one recording to each of its utterances."""
    problems = measured.problems + _differences(measured, source)
    for utterance in utterances:
        for kind, detail in problems:
            faults.add(kind, utterance.id, detail)
        if utterance.channel not in source.channels:
            faults.add("manifest-differs", utterance.id, f"its recording has no channel {utterance.channel}")
    if len(source.channels) > 1 and measured.info and measured.info.channels > 1:
        _check_channels(measured, utterances, faults)


def _differences(measured: Measured, source: Source) -> list[tuple[str, str]]:
    """Returns how the header of the file differs from the manifest."""
    info = measured.info
    if info is None:
        return []
    if not source.is_plain and info.rate < source.rate:
        return [("band-limited", f"recorded at {info.rate} Hz, resampled to {source.rate} Hz")]
    manifest: list[str] = []
    file: list[str] = []
    if source.is_plain and info.rate != source.rate:
        manifest.append(f"{source.rate} Hz")
        file.append(f"{info.rate} Hz")
    if source.is_plain and abs(info.samples / info.rate - source.samples / source.rate) > 1e-3:
        manifest.append(f"{source.samples / source.rate:.3f} s")
        file.append(f"{info.samples / info.rate:.3f} s")
    if info.channels != max(1, len(source.channels)):
        manifest.append(f"{len(source.channels)} channels")
        file.append(f"{info.channels} channels")
    if not manifest:
        return []
    return [("manifest-differs", f"{', '.join(manifest)} in the manifest, {', '.join(file)} in the file")]


def _check_channels(measured: Measured, utterances: Sequence[Utterance], faults: Faults) -> None:
    for utterance in utterances:
        peaks = measured.peaks
        if utterance.channel < len(peaks) and peaks[utterance.channel] < MIN_PEAK <= max(peaks):
            faults.add("dead-channel", utterance.id, f"channel {utterance.channel} of {len(peaks)}")
        elif measured.relation:
            faults.add(f"{measured.relation}-channels", utterance.id)
        else:
            faults.add("several-channels", utterance.id, f"{measured.info.channels if measured.info else 0} channels")


def check_signal(utterance: Utterance, measured: Measured, number: int, faults: Faults) -> None:
    """Adds the faults of the samples of one utterance, number `number` of its set."""
    missing = measured.missing.get(number, 0.0)
    if missing > LENGTH_TOLERANCE and not measured.problems and not faults.has("manifest-differs", utterance.id):
        faults.add("beyond-recording", utterance.id, f"by {missing:.3f} s")
    signal = measured.signals.get(number)
    if signal is None:
        return
    if signal.wrong_samples:
        kind = "beyond-full-scale" if signal.is_finite else "not-finite"
        faults.add(kind, utterance.id, f"{signal.wrong_samples} samples")
    elif signal.peak < MIN_PEAK:
        if not faults.has("dead-channel", utterance.id):
            faults.add("silent", utterance.id, f"no sample above {signal.peak:.2g} of full scale")
    else:
        for kind, detail in _signal_faults(signal, utterance.seconds):
            faults.add(kind, utterance.id, detail)


def _signal_faults(signal: Signal, seconds: float) -> Iterable[tuple[str, str]]:
    pause = seconds - signal.speech_seconds
    if is_steady_noise(signal):
        yield "noise-only", f"level {signal.level:.0f} dB, within {signal.level_range:.1f} dB"
    elif signal.speech_seconds < MIN_SPEECH_SHARE * seconds and pause > MIN_PAUSE_SECONDS:
        yield "mostly-silent", f"{signal.speech_seconds:.1f} s of speech in {seconds:.1f} s"
    elif signal.snr is not None and signal.snr < MIN_SNR:
        yield "low-snr", f"about {signal.snr:.0f} dB"
    if signal.clipped_share > MAX_CLIPPED_SHARE:
        yield "clipped", f"{100 * signal.clipped_share:.2f} % of the samples"
    elif abs(signal.offset) > MAX_OFFSET and seconds >= MIN_OFFSET_SECONDS:  # clipping of one side moves the mean, too
        yield "dc-offset", f"{100 * signal.offset:+.1f} % of full scale"
    if signal.level < MIN_LEVEL:
        yield "low-level", f"{signal.level:.0f} dB of full scale"
    if signal.bandwidth is not None:
        yield "band-limited", f"nothing above about {signal.bandwidth:.0f} Hz"
    if signal.dropouts:
        yield "dropouts", f"{signal.dropouts} of 20 ms or more"


def is_steady_noise(signal: Signal) -> bool:
    """Returns True for audio of one level with a flat spectrum."""
    is_flat = signal.flatness is not None and signal.flatness > MIN_FLATNESS
    return is_flat and signal.level_range < MAX_NOISE_RANGE


def check_overlaps(utterances: Sequence[Utterance], faults: Faults) -> None:
    """Adds a fault for each utterance that overlaps the one before it in its recording and channel, at its speed."""
    by_channel: dict[tuple, list[Utterance]] = {}
    for utterance in utterances:
        if utterance.source is not None:
            by_channel.setdefault((utterance.source.audio, utterance.channel, utterance.speed), []).append(utterance)
    for segments in by_channel.values():
        segments.sort(key=lambda segment: segment.start)
        previous = segments[0]
        for segment in segments[1:]:
            overlap = min(previous.start + previous.seconds, segment.start + segment.seconds) - segment.start
            is_same_span = (previous.start, previous.seconds) == (segment.start, segment.seconds)
            other_speakers = previous.speaker and segment.speaker and previous.speaker != segment.speaker
            if overlap > MIN_OVERLAP and not is_same_span and not other_speakers:
                faults.add("overlapping-segments", segment.id, f"by {overlap:.2f} s with {previous.id}")
            if segment.start + segment.seconds > previous.start + previous.seconds:
                previous = segment
