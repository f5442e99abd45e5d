"""What a corpus is like: hours, speakers, sampling rates, lengths, characters and words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from asrtool.data.audio import AudioInfo, inspect_audio
from asrtool.data.corpora import Utterance
from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import UtteranceChecks
from asrtool.progress import progress
from asrtool.recipes.audio_sample import AudioSample, every_nth, sample_audio

MAX_INSPECTED = 20_000  # recordings whose header is read: half a minute; the hours of larger corpora are estimated
MAX_LISTENED = 24  # recordings whose samples are read for level and noise: a few seconds
USUAL_LONGEST, LONGEST = 30.0, 40.0  # seconds of a cut; attention to all frames makes longer ones slow
INSPECTING_THREADS = 8  # reading headers waits for the disk


@dataclass(frozen=True)
class CorpusFacts:
    """Measurements of one corpus; transcripts as they are in it, before any normalisation."""

    utterances: int
    seconds: float
    speakers: frozenset[str]  # names; empty where speakers are not known
    rates: Counter[int]  # Hz -> recordings
    channels: Counter[int]  # number of channels -> recordings
    lengths: tuple[float, float, float]  # seconds: the shortest, the median, the longest utterance
    texts: list[str]
    audio: AudioSample
    long_share: float = 0.0  # of the audio that is in utterances of more than USUAL_LONGEST seconds
    problems: list[str] = field(default_factory=list)  # one for each utterance that cannot be used
    num_bad: int = 0  # utterances that cannot be used, with an estimate for recordings that were not inspected
    is_estimate: bool = False  # hours and lengths are of a sample of the recordings

    @property
    def hours(self) -> float:
        """Hours of audio of the utterances."""
        return self.seconds / 3600

    @property
    def characters(self) -> Counter[str]:
        """How often each character occurs in the transcripts; white space is left out."""
        return Counter(character for text in self.texts for character in text if not character.isspace())

    @property
    def words(self) -> Counter[str]:
        """How often each word occurs in the transcripts."""
        return Counter(word for text in self.texts for word in text.split())

    @property
    def sentences(self) -> int:
        """Number of different transcripts."""
        return len(set(self.texts))


def measure_corpus(rows: Iterable[Utterance | str]) -> CorpusFacts:
    """Returns the facts of the utterances that a reader yields (asrtool/data/corpora.py).

    The header of every recording is read, or of MAX_INSPECTED of them, evenly spaced, in a larger corpus. Utterances
    without text, and those whose recording cannot be read or ends before them, are problems and do not count.
    """
    listed = list(rows)
    utterances = [row for row in listed if isinstance(row, Utterance)]
    paths = list(dict.fromkeys(utterance.audio for utterance in utterances))
    inspected = every_nth(paths, MAX_INSPECTED)
    recordings = _inspect(inspected)
    readable = {path: info for path, info in recordings.items() if isinstance(info, AudioInfo)}
    problems = [row for row in listed if isinstance(row, str)]
    problems += [f"{row.id}: empty transcript" for row in utterances if not row.text.strip()]
    checks = UtteranceChecks()
    usable: list[Utterance] = []
    seconds: list[float] = []
    num_checked = num_bad = 0  # utterances with a transcript, of inspected recordings
    for row in utterances:
        if not row.text.strip():
            continue
        if row.audio in recordings:
            num_checked += 1
            try:
                seconds.append(_seconds(row, recordings[row.audio], checks))
            except InvalidEntry as problem:
                problems.append(f"{row.id}: {problem}")
                num_bad += 1
                continue
        usable.append(row)
    unchecked = len(usable) - len(seconds)
    return CorpusFacts(
        utterances=len(usable),
        seconds=float(np.mean(seconds or [0.0])) * len(usable),
        speakers=frozenset(row.speaker for row in usable if row.speaker),
        rates=Counter(info.rate for info in readable.values()),
        channels=Counter(info.channels for info in readable.values()),
        lengths=_spread(seconds),
        texts=[" ".join(row.text.split()) for row in usable],
        audio=sample_audio(every_nth(list(readable), MAX_LISTENED)),
        long_share=sum(length for length in seconds if length > USUAL_LONGEST) / max(1e-9, sum(seconds)),
        problems=problems,
        num_bad=len(problems) + round(unchecked * num_bad / max(1, num_checked)),
        is_estimate=len(inspected) < len(paths),
    )


def _inspect(paths: Sequence[str]) -> dict[str, AudioInfo | InvalidEntry]:
    def inspect(path: str) -> AudioInfo | InvalidEntry:
        try:
            return inspect_audio(path)
        except InvalidEntry as problem:
            return problem

    with ThreadPoolExecutor(INSPECTING_THREADS) as pool:
        results = progress(pool.map(inspect, paths), "looking at the recordings", len(paths), "recordings")
        return dict(zip(paths, results, strict=True))


def _seconds(utterance: Utterance, info: AudioInfo | InvalidEntry, checks: UtteranceChecks) -> float:
    """Returns the seconds of an utterance, which ends with its recording unless it says otherwise.

    Raises InvalidEntry if the recording cannot be read, or ends before the utterance.
    """
    if isinstance(info, InvalidEntry):
        raise InvalidEntry(f"{utterance.audio}: {info}")
    length = info.samples / info.rate
    end = length if utterance.end is None else utterance.end
    return checks.check_end(utterance.start, end, length) - utterance.start


def _spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    if not seconds:
        return 0.0, 0.0, 0.0
    return float(np.min(seconds)), float(np.median(seconds)), float(np.max(seconds))
