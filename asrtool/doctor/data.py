"""`asrtool doctor data`: all faults of the audio and the transcripts of training, development and test sets.

Each audio file is decoded once, in several processes, whichever sets and utterances use it.
"""

import logging
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asrtool.config import Config
from asrtool.doctor.data_audio import Measured, RecordingJob, Segment, measure_recording
from asrtool.doctor.data_audio_checks import check_overlaps, check_recording, check_signal
from asrtool.doctor.data_entries import Source, Utterance, read_utterances
from asrtool.doctor.data_faults import Faults
from asrtool.doctor.data_kinds import KINDS
from asrtool.doctor.data_rates import Limits, check_lengths, check_speaking_rates, length_limits
from asrtool.doctor.data_sets import DataSet, check_duplicates, check_shared, check_speakers
from asrtool.doctor.data_signal import Signal
from asrtool.doctor.data_statistics import format_facts, set_facts
from asrtool.doctor.data_text_checks import check_transcripts
from asrtool.doctor.findings import Report
from asrtool.errors import UserError, did_you_mean
from asrtool.forking import fork_context
from asrtool.interrupts import init_worker
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

CHUNK = 8  # recordings that are sent to a process at once


@dataclass(frozen=True)
class DataFindings:
    """The reports of all sets, in their order, and the utterances of the training sets to exclude: id -> reasons."""

    reports: list[Report]
    excluded: dict[str, str]


def examine_data(
    train: Sequence[Path],
    dev: Sequence[Path] = (),
    test: Sequence[Path] = (),
    tokenizer: Tokenizer | None = None,
    config: Config | None = None,
    jobs: int = 1,
    ignored: Iterable[str] = (),
    left_out: Container[str] = (),
) -> DataFindings:
    """Checks the manifests of one or several sets, their audio included, and returns all findings.

    With a `tokenizer`, transcripts are checked against its units; with a `config`, audio against its sampling rate and
    its limits of length. `ignored` are kinds of fault (KINDS) that are not reported, `left_out` ids of training and
    development sets that are not checked. Raises UserError for a manifest that does not exist, and for an unknown kind.
    """
    sets = _read_sets({"train": train, "dev": dev, "test": test}, _known_kinds(ignored), left_out)
    limits = length_limits(config)
    measured = _measure_all(sets, limits, jobs)
    signals = {number: signal for record in measured.values() for number, signal in record.signals.items()}
    expected_rate = limits.rate or _usual_rate(sets)
    for data in sets:
        data.signals = signals
        _check_set(data, measured, limits, tokenizer, expected_rate)
    training_sets = [data for data in sets if data.role == "train"]
    for data in sets:
        if data.role != "train":
            check_shared(training_sets, data)
    excluded = _excluded(training_sets)
    return DataFindings([_report(data, measured, excluded) for data in sets], excluded)


def _excluded(training_sets: Sequence[DataSet]) -> dict[str, str]:
    """Returns the ids to exclude with their reasons. An id that occurs twice stays: all its copies would go."""
    counts = Counter(utterance.id for data in training_sets for utterance in data.utterances)
    excluded: dict[str, str] = {}
    for data in training_sets:
        excluded |= {name: reasons for name, reasons in data.faults.excluded().items() if counts[name] == 1}
    return excluded


def _known_kinds(ignored: Iterable[str]) -> frozenset[str]:
    for kind in ignored:
        if kind not in KINDS:
            raise UserError(f"unknown kind of fault '{kind}'; {did_you_mean(kind, KINDS)}")
    return frozenset(ignored)


def _read_sets(paths: Mapping[str, Sequence[Path]], ignored: frozenset[str], left_out: Container[str]) -> list[DataSet]:
    sets: list[DataSet] = []
    first = 0
    for role, role_paths in paths.items():
        for path in role_paths:
            faults = Faults(ignored)
            utterances, num_left_out = read_utterances(path, faults, () if role == "test" else left_out)
            if not utterances and not num_left_out and not faults.by_kind:
                raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
            sets.append(DataSet(path, role, utterances, faults, first, num_left_out))
            first += len(utterances)
    return sets


def _usual_rate(sets: Sequence[DataSet]) -> int | None:
    """Returns the sampling rate in Hz of most utterances."""
    rates = Counter(u.source.rate for data in sets for u in data.utterances if u.source)
    return rates.most_common(1)[0][0] if rates else None


def _measure_all(sets: Sequence[DataSet], limits: Limits, jobs: int) -> dict[Source, Measured]:
    """Returns the measures of every recording of the sets."""
    segments: dict[Source, list[Segment]] = {}
    for data in sets:
        for number, utterance in enumerate(data.utterances, data.first):
            if source := utterance.source:
                segments.setdefault(source, []).append(_segment(number, utterance, source))
    tasks = [RecordingJob(source, tuple(parts), limits.rate or source.rate) for source, parts in segments.items()]
    start_time = time.monotonic()
    results = list(progress(_measure(tasks, jobs), "checking audio", len(tasks), "recordings"))
    _log_speed(segments, time.monotonic() - start_time)
    return dict(zip(segments, results, strict=True))


def _segment(number: int, utterance: Utterance, source: Source) -> Segment:
    channels = source.channels
    index = channels.index(utterance.channel) if utterance.channel in channels else utterance.channel
    return Segment(number, utterance.start, utterance.seconds, index)


def _measure(tasks: Sequence[RecordingJob], jobs: int) -> Iterator[Measured]:
    """Yields the measures of recordings in their order, by `jobs` processes."""
    jobs = min(jobs, max(1, len(tasks) // CHUNK))
    if jobs == 1:
        yield from map(measure_recording, tasks)
        return
    initializer = partial(init_worker, ends_on_sigterm=True)
    try:
        with ProcessPoolExecutor(jobs, fork_context(), initializer) as pool:
            yield from pool.map(measure_recording, tasks, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise UserError(f"a process was killed; memory may have run out: lower --jobs ({jobs})") from error


def _log_speed(segments: Mapping[Source, Sequence[Segment]], seconds: float) -> None:
    audio = sum(source.seconds for source in segments)
    if segments and seconds > 1:
        speed = audio / seconds
        logger.info(f"{len(segments)} recordings, {audio / 3600:.2f} h in {seconds:.0f} s, {speed:.0f} times real time")


def _check_set(
    data: DataSet,
    measured: Mapping[Source, Measured],
    limits: Limits,
    tokenizer: Tokenizer | None,
    expected_rate: int | None,
) -> None:
    """Adds all faults that one set has by itself."""
    by_source: dict[Source, list[Utterance]] = {}
    for utterance in data.utterances:
        if utterance.source:
            by_source.setdefault(utterance.source, []).append(utterance)
    for source, utterances in by_source.items():
        check_recording(measured[source], source, utterances, data.faults)
    for number, utterance in enumerate(data.utterances, data.first):
        if not utterance.source:
            continue
        check_signal(utterance, measured[utterance.source], number, data.faults)
        if utterance.source.rate != expected_rate:
            data.faults.add("wrong-rate", utterance.id, f"{utterance.source.rate} Hz, not {expected_rate} Hz")
    check_transcripts(data.utterances, tokenizer, data.faults, data.role == "test")
    check_lengths(data.utterances, limits, tokenizer, data.faults)
    check_speaking_rates(data.utterances, data.signals, data.first, data.faults)
    check_overlaps(data.utterances, data.faults)
    check_duplicates(data)
    check_speakers(data)


def _report(data: DataSet, measured: Mapping[Source, Measured], excluded: Mapping[str, str]) -> Report:
    """Returns the facts and findings of one set."""
    own: dict[Source, Measured] = {u.source: measured[u.source] for u in data.utterances if u.source}
    last = data.first + len(data.utterances)
    signals: list[Signal | None] = [data.signals.get(number) for number in range(data.first, last)]
    facts = {**set_facts(data.utterances, signals), **format_facts(own)}
    if data.num_left_out:
        facts["left out"] = f"{data.num_left_out} utterances, by data.exclude"
    is_training = data.role == "train"
    if is_training and (own_excluded := data.faults.excluded().keys() & excluded.keys()):
        facts["to exclude"] = f"{len(own_excluded)} utterances (--exclude OUT lists them)"
    report = Report(f"Data of {data.path} ({data.role})", facts)
    report.add(data.faults.findings(data.path, is_training))
    return report
