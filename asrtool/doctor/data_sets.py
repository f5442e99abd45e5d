"""Faults that show when utterances are compared: duplicates in a set, and what training and test sets share."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.doctor.data_audio_checks import MIN_PEAK
from asrtool.doctor.data_entries import Utterance
from asrtool.doctor.data_faults import Faults
from asrtool.doctor.data_signal import Signal
from asrtool.doctor.data_text_checks import SMALL_VOCABULARY
from asrtool.doctor.findings import shortened
from asrtool.text.words import composed

MIN_SECONDS = 0.1  # of audio that is compared: shorter clips are equal by chance
MIN_SENTENCE_WORDS = 4  # of a shared sentence: shorter ones are shared by nature
MIN_SENTENCE_CHARACTERS = 20  # of one without spaces


@dataclass
class DataSet:
    """One manifest: its role ("train", "dev" or "test"), its utterances and their faults."""

    path: Path
    role: str
    utterances: list[Utterance]
    faults: Faults
    first: int = 0  # number of its first utterance among the utterances of all sets
    num_left_out: int = 0  # lines that data.exclude names
    signals: Mapping[int, Signal] = field(default_factory=dict)  # number -> measures, of all sets

    def digests(self) -> Iterable[tuple[Utterance, bytes]]:
        """Yields the utterances whose audio can be compared, with the digest of their samples."""
        for number, utterance in enumerate(self.utterances, self.first):
            signal = self.signals.get(number)
            if signal and not signal.wrong_samples and signal.peak >= MIN_PEAK and utterance.seconds >= MIN_SECONDS:
                yield utterance, signal.digest


def check_duplicates(data: DataSet) -> None:
    """Adds faults of audio and transcripts that occur more than once in one set; copies at other speeds are none."""
    first_with: dict[tuple[bytes, float], Utterance] = {}
    for utterance, digest in data.digests():
        first = first_with.setdefault((digest, utterance.speed), utterance)
        if first is utterance or (first.id == utterance.id and _sentence(first) == _sentence(utterance)):
            continue  # a repeated line is a duplicate-id
        if _sentence(first) == _sentence(utterance):
            data.faults.add("duplicate-audio", utterance.id, f"as {first.id}")
        else:
            texts = f"{shortened(first.text or '', 60)!r} and {shortened(utterance.text or '', 60)!r}"
            data.faults.add("same-audio-other-text", utterance.id, f"as {first.id}: {texts}")
            data.faults.add("same-audio-other-text", first.id, f"as {utterance.id}: {texts}")
    counts = Counter((_sentence(utterance), utterance.speed) for utterance in data.utterances)
    counts_at_one_speed: dict[str, int] = {}
    for (sentence, _), count in counts.most_common():
        counts_at_one_speed.setdefault(sentence, count)
    for sentence, count in counts_at_one_speed.items():
        if count > 1 and _is_long(sentence):
            data.faults.add("duplicate-transcripts", shortened(sentence, 80), f"{count} times")


def check_speakers(data: DataSet) -> None:
    """Adds faults of the names of speakers in one set."""
    speakers = Counter(utterance.speaker for utterance in data.utterances)
    names = [name for name in speakers if name is not None]
    if not data.utterances:
        return
    if not names:
        data.faults.add("no-speakers", data.path.name)
    elif speakers[None]:
        for utterance in data.utterances:
            if utterance.speaker is None:
                data.faults.add("some-without-speaker", utterance.id)
    elif len(names) == 1:
        data.faults.add("one-speaker", names[0])
    alike: dict[str, str] = {}
    for name in names:
        key = re.sub(r"[\W_]+", "", name.casefold()) or name
        if (other := alike.setdefault(key, name)) != name:
            data.faults.add("similar-speakers", name, f"and {other}")


def check_shared(train: Sequence[DataSet], other: DataSet) -> None:
    """Adds faults for what a development or test set shares with the training sets.

    Audio that must leave the training set is a fault of that set; everything else is one of the other set.
    """
    _check_shared_audio(train, other)
    trained_ids = {utterance.id for data in train for utterance in data.utterances}
    trained_speakers = {utterance.speaker for data in train for utterance in data.utterances} - {None}
    for utterance in other.utterances:
        if utterance.id in trained_ids:
            other.faults.add("shared-ids", utterance.id)
    speakers = Counter(utterance.speaker for utterance in other.utterances)
    if len(trained_speakers) > 1:  # with one speaker, nothing else is possible: see "one-speaker"
        for name in sorted(trained_speakers & set(speakers), key=str):
            other.faults.add("shared-speakers", str(name), f"{speakers[name]} utterances")
    _check_shared_sentences(train, other)


def _check_shared_audio(train: Sequence[DataSet], other: DataSet) -> None:
    held_out = {digest: utterance for utterance, digest in other.digests()}
    for data in train:
        for utterance, digest in data.digests():
            if digest in held_out:
                data.faults.add("shared-audio", utterance.id, f"as {held_out[digest].id} of {other.path.name}")


def _check_shared_sentences(train: Sequence[DataSet], other: DataSet) -> None:
    vocabulary = {word for data in train for utterance in data.utterances for word in utterance.words}
    if len(vocabulary) < SMALL_VOCABULARY:
        return
    trained = {_sentence(utterance) for data in train for utterance in data.utterances}
    for utterance in other.utterances:
        sentence = _sentence(utterance)
        if sentence in trained and _is_long(sentence):
            other.faults.add("shared-sentences", utterance.id, shortened(sentence, 100))


def _sentence(utterance: Utterance) -> str:
    """Returns the transcript without differences of case, punctuation and white space."""
    text = composed(utterance.text or "").casefold()
    return " ".join(re.sub(r"[^\w\s'’]+", " ", text).split())


def _is_long(sentence: str) -> bool:
    words = sentence.split()
    return len(words) >= MIN_SENTENCE_WORDS or (len(words) == 1 and len(sentence) >= MIN_SENTENCE_CHARACTERS)
