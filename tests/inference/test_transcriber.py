"""Recognition of recordings: what comes out does not depend on how segments are batched, nor on processes."""

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest

from asrtool.data.speech_segments import AudioSegment
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.inference.detectors import open_detector
from asrtool.inference.results import Alternative, Word
from asrtool.inference.segment_batches import FollowedSegment, length_batches, segment_windows, with_next_overlaps
from asrtool.inference.segment_search import SearchProcessEnded, SegmentSearch
from asrtool.inference.training_lengths import longest_utterance
from asrtool.inference.transcriber import RecognisedSegment, SegmentPlace, Transcriber, join_segments
from tests.inference.test_model import assert_same_words
from tests.tiny import RATE, tone


@pytest.fixture(scope="module")
def opened(experiment):
    """The experiment with random weights, opened."""
    return open_experiment(experiment, "best", "cpu")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Twenty seconds of tones between pauses, of different lengths."""
    pieces = []
    for number in range(10):
        pieces += [tone(300 + 200 * number, 0.5 + 0.2 * number, number), 0.001 * tone(100, 0.7, number)]
    return np.concatenate(pieces)


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_words_do_not_depend_on_batches_and_processes(opened, samples, method):
    settings = [(1, 1), (7, 1), (1000, 1), (10, 2)]
    results = []
    for batch_seconds, jobs in settings:
        transcriber = Transcriber(opened, method, {}, jobs, batch_seconds, max_seconds=3, vad="energy")
        results.append(transcriber.transcribe(samples, rate=RATE))
        transcriber.close()
    assert len(results[0].segments) > 4
    for result in results[1:]:
        assert_same_words(result.words, results[0].words)


def test_segments_are_those_of_the_transcript_and_times_are_in_order(opened, samples):
    transcriber = Transcriber(opened, "greedy", {}, max_seconds=3, vad="none")
    transcript = transcriber.transcribe(samples, rate=RATE)
    assert list(transcriber.segments(samples, rate=RATE)) == transcript.segments
    assert transcript.seconds == pytest.approx(len(samples) / RATE, abs=1e-3)
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts)
    assert starts[0] >= 0 and transcript.words[-1].end <= transcript.seconds
    for segment in transcript.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


@pytest.mark.parametrize("count", [0, 1, 50, 139])
def test_audio_without_a_frame_has_no_words(opened, count):
    transcriber = Transcriber(opened, "greedy", {}, vad="none")
    for samples in (np.zeros(max(count, 1), np.float32), tone(500, max(count, 1) / RATE)):
        assert transcriber.transcribe(samples, rate=RATE).words == []


def test_the_first_segment_is_recognised_before_the_recording_is_read(opened, samples, monkeypatch):
    read = []

    def blocks(self, rate, channel):
        for begin in range(0, len(samples), RATE):
            read.append(begin)
            yield samples[begin : begin + RATE]

    monkeypatch.setattr("asrtool.data.audio_blocks.AudioRecording.blocks", blocks)
    transcriber = Transcriber(opened, "greedy", {}, max_seconds=2, vad="none")
    next(transcriber.segments(samples, rate=RATE))
    assert len(read) < len(samples) / RATE / 2


def test_windows_keep_the_order_begin_with_one_segment_and_grow_to_a_bound():
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 100, 200)
    segments = [FollowedSegment(AudioSegment(n, np.zeros(length, np.float32)), 0.0) for n, length in enumerate(lengths)]
    windows = list(segment_windows(segments, rate=10, max_seconds=40))
    assert [followed.segment.start for window in windows for followed in window] == list(range(200))
    assert len(windows[0]) == 1
    seconds = [sum(len(followed.segment.samples) for followed in window) / 10 for window in windows]
    assert all(after >= before for before, after in zip(seconds[:3], seconds[1:3], strict=False))
    assert max(seconds) < 40 + 10


def test_batches_have_every_segment_once_and_bounded_padding():
    draw = np.random.default_rng(2)
    for _ in range(100):
        lengths = draw.integers(0, 50, draw.integers(0, 30)).tolist()
        batches = length_batches(lengths, 100)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 100


def test_each_segment_knows_the_overlap_of_the_next_one():
    overlaps = [0.0, 2.0, 0.0, 1.5, 3.0]
    segments = [AudioSegment(n, np.zeros(1, np.float32), overlap) for n, overlap in enumerate(overlaps)]
    followed = list(with_next_overlaps(segments))
    assert [one.segment for one in followed] == segments
    assert [one.next_overlap for one in followed] == [*overlaps[1:], 0.0]
    assert list(with_next_overlaps([])) == []


def recognised(start: float, end: float, overlap: float, next_overlap: float, spoken) -> RecognisedSegment:
    """A segment that recognised all words of `spoken`, (start, text), of 0.3 s each, that are whole within it."""
    words = [Word(text, time, time + 0.3) for time, text in spoken if start <= time and time + 0.3 <= end]
    place = SegmentPlace(start, end, overlap, next_overlap)
    return RecognisedSegment(place, words)


def test_overlapping_segments_have_each_word_once():
    draw = np.random.default_rng(3)
    for _ in range(50):
        spoken = [(0.2 + 0.4 * n, f"w{n}") for n in range(100)]
        segments, start, overlap = [], 0.0, 0.0
        while start < 40:
            end = start + draw.uniform(6, 12)
            next_overlap = float(draw.choice([0.0, 3.0])) if end < 40 else 0.0
            if next_overlap == 0:  # a pause: the cut is between words
                end = 0.15 + 0.4 * round(end / 0.4)
            segments.append(recognised(start, end, overlap, next_overlap, spoken))
            start, overlap = end - next_overlap, next_overlap
        joined = list(join_segments(segments))
        assert len(joined) == len(segments)
        assert [word.text for segment in joined for word in segment.words] == [text for _, text in spoken]


def test_a_segment_without_an_overlap_does_not_wait_for_the_next_one():
    taken = []

    def segments():
        for number in range(3):
            taken.append(number)
            yield recognised(number, number + 1, 0.0, 0.0, [(number + 0.1, "a")])

    next(join_segments(segments()))
    assert taken == [0]


@pytest.mark.parametrize("name", ["webrtc", "", "Silero"])
def test_unknown_detectors_are_refused(name):
    with pytest.raises(UserError, match="auto, silero, energy, none"):
        open_detector(name)


def test_segments_are_as_long_as_the_utterances_of_the_training(experiment, opened, samples, tmp_path, asr):
    longest = longest_utterance(opened)
    assert 2 < longest < 4 < opened.config.data.max_seconds  # of the tiny corpus
    assert asr("pack", experiment, tmp_path / "pack", "--checkpoint", "best")[0] == 0
    assert longest_utterance(open_experiment(tmp_path / "pack", device="cpu")) == longest


START = '{"event": "start", "step": 0, "ranks": 1, "device": "cpu"'


def without_data(opened, folder):
    """The system in another folder, without its training data."""
    data = opened.config.data.model_copy(update={"train": folder / "nowhere.jsonl.gz"})
    return replace(opened, folder=folder, config=opened.config.model_copy(update={"data": data}))


def test_a_system_that_moved_away_from_its_data_has_the_length_in_its_log(opened, tmp_path):
    (tmp_path / "log.jsonl").write_text(f'{START}, "longest_seconds": 3.25}}\n')
    assert longest_utterance(without_data(opened, tmp_path)) == 3.25


@pytest.mark.parametrize("log", [None, "", "[]\n", f"{START}}}\n"])
def test_logs_that_do_not_say_it_leave_the_manifest_or_the_limit(opened, tmp_path, log):
    if log is not None:
        (tmp_path / "log.jsonl").write_text(log)
    assert longest_utterance(replace(opened, folder=tmp_path)) == longest_utterance(opened) < 4
    assert longest_utterance(without_data(opened, tmp_path)) == opened.config.data.max_seconds


@pytest.mark.parametrize("value", ["[1]", '"long"', "true"])
def test_a_log_with_a_wrong_length_is_one_line(opened, tmp_path, value):
    (tmp_path / "log.jsonl").write_text(f'{START}, "longest_seconds": {value}}}\n')
    with pytest.raises(UserError, match="log.jsonl:1: longest_seconds"):
        longest_utterance(replace(opened, folder=tmp_path))


def with_alternatives(segment: RecognisedSegment, *texts: str) -> RecognisedSegment:
    """A segment with confidences of its words, and with these alternatives after its own text."""
    words = [replace(word, confidence=round(0.9 - 0.1 * n, 1)) for n, word in enumerate(segment.words)]
    own = " ".join(word.text for word in words)
    alternatives = tuple(Alternative(text, -float(n)) for n, text in enumerate([own, *texts]))
    return segment._replace(words=words, confidence=0.123, alternatives=alternatives)


def test_alternatives_and_confidence_of_overlapping_segments_are_those_of_their_words():
    spoken = [(0.5, "a"), (1.5, "b"), (2.5, "c"), (3.5, "d"), (4.5, "e"), (5.5, "f")]
    left = with_alternatives(recognised(0, 4, 0, 2, spoken), "x b c d", "a b c y", "a b x d")
    right = with_alternatives(recognised(2, 6, 2, 0, spoken), "c d e x", "y d e f", "c e f")
    joined = [segment.as_segment() for segment in join_segments([left, right])]
    assert " ".join(segment.text for segment in joined) == "a b c d e f"
    assert {segment.text for segment in joined} != {"a b c d", "c d e f"}  # at least one was trimmed
    for segment, whole in zip(joined, [left, right], strict=True):
        assert segment.alternatives[0].text == segment.text
        texts = [alternative.text for alternative in segment.alternatives]
        assert len(set(texts)) == len(texts) and len(texts) < len(whole.alternatives)
        if len(segment.words) < len(whole.words):
            mean = sum(word.confidence for word in segment.words) / len(segment.words)
            assert segment.confidence == pytest.approx(mean, abs=1e-4)
    (alone,) = join_segments([left._replace(place=left.place._replace(next_overlap=0.0))])
    assert alone == left._replace(place=alone.place)  # without an overlap nothing changes


def test_alternatives_whose_first_one_has_other_words_than_the_segment_are_left_out():
    words = [Word(text, n, n + 0.5) for n, text in enumerate("abc")]
    segment = RecognisedSegment(SegmentPlace(0, 3, 0, 1), words, None, (Alternative("a bc", 0), Alternative("a c", -1)))
    assert segment.with_words(0, 2).alternatives == () and segment.with_words(0, 2).confidence is None
    assert segment.with_words(0, 3) == segment


@pytest.fixture(scope="module")
def some_samples(samples):
    """Seconds of tones, as few as three segments have."""
    return samples[: 8 * RATE]


@pytest.fixture(scope="module")
def words(opened, some_samples):
    """Their words, searched in this process."""
    return Transcriber(opened, "greedy", {}, max_seconds=3, vad="energy").transcribe(some_samples, rate=RATE).words


def kill_one(transcriber):
    """Kills a search process."""
    os.kill(next(iter(transcriber._processes.pool._processes)), signal.SIGKILL)


@pytest.mark.parametrize("when", ["free", "running", "free and known"])
def test_what_a_killed_search_process_had_is_searched_again(opened, some_samples, words, monkeypatch, when):
    transcriber = Transcriber(opened, "greedy", {}, 2, 10, max_seconds=3, vad="energy")
    frames = transcriber._with_frames

    def frames_and_kill(segments):
        for number, item in enumerate(frames(segments)):
            if number == 2:
                kill_one(transcriber)
            yield item

    if when == "running":
        monkeypatch.setattr(transcriber, "_with_frames", frames_and_kill)
    else:
        kill_one(transcriber)
    if when == "free and known":
        with pytest.raises(BrokenProcessPool):
            while True:
                transcriber._processes.pool.submit(int).result(20)
    assert_same_words(transcriber.transcribe(some_samples, rate=RATE).words, words)
    transcriber.close()


def test_a_segment_that_kills_its_search_process_ends_its_recording_alone(opened, some_samples, monkeypatch):
    monkeypatch.setattr(SegmentSearch, "__call__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    transcriber = Transcriber(opened, "greedy", {}, 2, max_seconds=3, vad="energy")
    with pytest.raises(SearchProcessEnded, match="fewer --jobs"):
        transcriber.transcribe(some_samples, rate=RATE)
    monkeypatch.undo()
    assert transcriber.transcribe(some_samples, rate=RATE).words
    transcriber.close()


def test_two_recordings_at_a_time_survive_a_killed_search_process(opened, some_samples, words):
    transcriber = Transcriber(opened, "greedy", {}, 2, max_seconds=3, vad="energy")
    one, other = (transcriber.segments(some_samples, rate=RATE) for _ in range(2))
    results = [[next(one)], [next(other)]]
    kill_one(transcriber)
    results[0] += one
    results[1] += other
    for segments in results:
        assert_same_words([word for segment in segments for word in segment.words], words)
    transcriber.close()
