"""Many streams at once: the words of each are those of a stream alone, and one that fails harms no other."""

import gc
import logging
import math
import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import asrtool
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.live.engine_lane import Lane
from asrtool.live.live_stream import LiveStream
from asrtool.live.stream_engine import StreamEngine
from asrtool.live.stream_searches import StreamSearches
from asrtool.streaming.recogniser import frame_extractor
from asrtool.streaming.utterance_input import UtteranceInput
from asrtool.streaming.utterance_search import UtteranceSearch
from tests.decoding.graphs import save_word_graph
from tests.models.conftest import KINDS, WHOLE
from tests.tiny import RATE, make_experiment, tone

WAIT = 20  # seconds until a test gives up


class Listener:
    """Collects what the engine calls for one stream."""

    def __init__(self):
        self.results = []
        self.ends = []
        self.ended = threading.Event()

    def on_results(self, results):
        assert not self.ends
        self.results += results

    def on_end(self, error):
        self.ends.append(error)
        self.ended.set()

    def wait(self):
        assert self.ended.wait(WAIT)
        return self

    @property
    def finals(self):
        return [result for result in self.results if result.is_final]


def open_stream(engine, **options):
    listener = Listener()
    return engine.open(on_results=listener.on_results, on_end=listener.on_end, **options), listener


def sound(seconds, seed):
    """Tones of changing height: a model of random weights makes many words of it."""
    draw = np.random.default_rng(seed)
    parts = [tone(draw.uniform(200, 4000), 0.2, seed + number) for number in range(round(seconds / 0.2))]
    return np.concatenate(parts)


def alone(model, samples, endpoint, rate=None):
    """The final results of the samples in a stream of their own."""
    return [result for result in model.stream(rate, endpoint).results([samples]) if result.is_final]


def assert_same(results, expected):
    """Everything is equal, and confidences up to the order of additions."""
    assert [(one.start, one.end) for one in results] == [(one.start, one.end) for one in expected]
    for one, other in zip(results, expected, strict=True):
        words = [[(word.text, word.start, word.end) for word in result.words] for result in (one, other)]
        assert words[0] == words[1]
        confidences = [[result.confidence, *(word.confidence for word in result.words)] for result in (one, other)]
        np.testing.assert_allclose(*np.array(confidences, dtype=float), atol=2e-3)  # None, without frames, is nan


def feed(streams, sounds, sizes):
    """Gives each stream its sound in pieces, all streams in turn; the sizes of the pieces in turn as well."""
    begins = [0] * len(sounds)
    number = 0
    while any(begin is not None for begin in begins):
        for index, (stream, samples) in enumerate(zip(streams, sounds, strict=True)):
            if begins[index] is None:
                continue
            size = sizes[number % len(sizes)]
            number += 1
            stream.accept(samples[begins[index] : begins[index] + size])
            begins[index] += size
            if begins[index] >= len(samples):
                stream.finish()
                begins[index] = None


@pytest.fixture(scope="module")
def options(stream_experiment, tmp_path_factory):
    """The options of each method."""
    tokenizer = asrtool.load(stream_experiment, method="greedy", device="cpu").experiment.tokenizer
    graph = save_word_graph(tmp_path_factory.mktemp("graph"), tokenizer)
    return {"greedy": {}, "prefix": {"beam": 3}, "graph": {"graph": graph}}


@pytest.fixture(scope="module")
def model(stream_experiment):
    return asrtool.load(stream_experiment, method="greedy", device="cpu")


@pytest.fixture(params=[0, 2], ids=["in its thread", "in processes"])
def engine(request, model):
    """Engines that search in their own thread, and in two processes."""
    with StreamEngine(model, search_workers=request.param) as engine:
        yield engine


@pytest.mark.parametrize("method", ["greedy", "prefix", "graph"])
@settings(max_examples=6, deadline=None)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(0, 9000) | st.just(40000), min_size=1, max_size=4).map(lambda sizes: [*sizes, 700]),
    max_batch=st.integers(1, 4),
    workers=st.integers(0, 1),
)
def test_any_interleaving_has_the_words_of_streams_alone(
    stream_experiment, options, method, data, sizes, max_batch, workers
):
    model = asrtool.load(stream_experiment, method=method, device="cpu", **options[method])
    seconds = data.draw(st.lists(st.sampled_from([0.0, 0.01, 0.2, 1.0, 2.6, 4.0]), min_size=1, max_size=4))
    endpoints = [data.draw(st.sampled_from([["length=1"], [], ["default"]])) for _ in seconds]
    sounds = [
        sound(one, seed) if one >= 0.2 else np.zeros(int(one * RATE), np.float32) for seed, one in enumerate(seconds)
    ]
    with StreamEngine(model, max_batch=max_batch, search_workers=workers) as engine:
        opened = [open_stream(engine, endpoint=endpoint) for endpoint in endpoints]
        feed([stream for stream, _ in opened], sounds, sizes)
        for (_, listener), samples, endpoint in zip(opened, sounds, endpoints, strict=True):
            assert listener.wait().ends == [None]
            assert_same(listener.finals, alone(model, samples, endpoint))


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in WHOLE])
def test_each_architecture_has_the_words_of_streams_alone(tiny_config, tokenizer_file, tmp_path, kind):
    experiment = make_experiment(tmp_path, tiny_config(model=KINDS[kind]), tokenizer_file, bias=1.0)
    model = asrtool.load(experiment, method="greedy", device="cpu")
    sounds = [sound(seconds, seed) for seed, seconds in enumerate([1.0, 3.0, 2.0, 0.4])]
    with StreamEngine(model, search_workers=0) as engine:
        opened = [open_stream(engine, endpoint=["length=1.3"]) for _ in sounds]
        feed([stream for stream, _ in opened], sounds, [1600, 700, 12000])
        for (_, listener), samples in zip(opened, sounds, strict=True):
            assert listener.wait().ends == [None]
            assert_same(listener.finals, alone(model, samples, ["length=1.3"]))


def test_streams_that_take_turns_have_the_words_of_streams_alone(model, engine):
    endpoint = ["length=1.5"]
    sounds = [sound(seconds, seed) for seed, seconds in enumerate([0.2, 2.0, 4.0, 3.0])]
    streams = [open_stream(engine, endpoint=endpoint) for _ in sounds]
    for begin in range(0, 4 * RATE, 1000):
        for (stream, _), samples in zip(streams, sounds, strict=True):
            stream.accept(samples[begin : begin + 1000])
    for stream, _ in streams:
        stream.finish()
    for (stream, listener), samples in zip(streams, sounds, strict=True):
        assert listener.wait().ends == [None]
        assert listener.finals == alone(model, samples, endpoint)
        assert stream.audio_seconds == pytest.approx(len(samples) / RATE)
        assert stream.backlog_seconds == 0 and stream.compute_seconds > 0
    assert sum(len(final.words) for _, listener in streams for final in listener.finals) > 2
    assert engine.num_streams == 0
    assert engine.statistics().audio_seconds == pytest.approx(sum(map(len, sounds)) / RATE)


def test_a_callback_that_fails_ends_its_stream_only(model, engine):
    samples = sound(2.0, 1)
    good, listener = open_stream(engine)
    ends = Listener()

    def fail(_):
        raise ZeroDivisionError

    bad = engine.open(on_results=fail, on_end=ends.on_end)
    for stream in (bad, good):
        stream.accept(samples)
        stream.finish()
    assert isinstance(ends.wait().ends[0], ZeroDivisionError)
    assert listener.wait().ends == [None] and listener.finals == alone(model, samples, ["default"])


def test_a_cancelled_stream_hears_nothing_further(model, engine):
    stream, listener = open_stream(engine)
    stream.cancel()
    stream.accept(sound(1.0, 1))
    stream.finish()
    other, last = open_stream(engine)
    other.accept(sound(1.0, 2))
    other.finish()
    last.wait()
    assert listener.results == listener.ends == [] and engine.num_streams == 0


def test_samples_of_a_wrong_type_or_after_the_end_are_refused(engine):
    stream, listener = open_stream(engine)
    with pytest.raises(UserError, match="samples are"):
        stream.accept(np.zeros(4, np.uint8))
    stream.finish()
    with pytest.raises(UserError, match="was finished"):
        stream.accept(np.zeros(4, np.int16))
    assert listener.wait().ends == [None]


def test_what_does_not_fit_is_refused_when_a_stream_is_opened(engine):
    for options in ({"rate": 0}, {"endpoint": ["nonsense"]}):
        with pytest.raises(UserError):
            open_stream(engine, **options)
    assert engine.num_streams == 0


def test_a_closed_engine_ends_its_streams_and_opens_none(model):
    engine = StreamEngine(model)
    stream, listener = open_stream(engine)
    stream.accept(sound(1.0, 1))
    engine.close()
    assert isinstance(listener.wait().ends[0], UserError)
    with pytest.raises(UserError, match="closed"):
        open_stream(engine)


def test_closing_waits_for_streams_that_finish(model):
    engine = StreamEngine(model)
    stream, listener = open_stream(engine)
    stream.accept(sound(2.0, 1))
    stream.finish()
    engine.close(drain_seconds=WAIT)
    assert listener.ends == [None]


def test_a_stream_in_which_the_model_fails_ends_alone(model, engine, monkeypatch):
    monkeypatch.setattr("asrtool.inference.stream.MAX_SAMPLE", math.inf)  # so that the model gets such samples
    loud, ends = open_stream(engine)
    quiet, listener = open_stream(engine)
    samples = sound(2.0, 3)
    feed([loud, quiet], [samples * np.float32(1e25), samples], [4000])
    assert isinstance(ends.wait().ends[0], InvalidEntry) and "not finite" in str(ends.ends[0])
    assert listener.wait().ends == [None]
    assert_same(listener.finals, alone(model, samples, ["default"]))


def test_a_step_that_fails_is_repeated_for_each_stream(model, engine, monkeypatch):
    """So that the stream that it fails for ends alone. A step that fails at its end leaves the streams as before."""
    advance = type(model.experiment.model).advance
    failures = []

    def fail_in_batches(self, x, *rest):
        result = advance(self, x, *rest)
        if len(x) > 1:
            failures.append(len(x))
            raise RuntimeError("no memory for a batch")
        return result

    monkeypatch.setattr(type(model.experiment.model), "advance", fail_in_batches)
    sounds = [sound(2.0, seed) for seed in range(3)]
    opened = [open_stream(engine) for _ in sounds]
    feed([stream for stream, _ in opened], sounds, [RATE])
    for (_, listener), samples in zip(opened, sounds, strict=True):
        assert listener.wait().ends == [None]
        assert_same(listener.finals, alone(model, samples, ["default"]))
    assert failures


def wait_for_results(listeners):
    """Waits until something was searched of each stream."""
    for listener in listeners:
        while not listener.results:
            time.sleep(0.01)


def test_a_killed_search_process_ends_its_streams_and_is_replaced(model):
    samples = sound(2.0, 3)
    with StreamEngine(model, search_workers=2) as engine:
        opened = [open_stream(engine) for _ in range(4)]
        for stream, _ in opened:
            stream.accept(samples[:RATE])
        wait_for_results(listener for _, listener in opened)
        before = engine.search_pids
        os.kill(before[0], signal.SIGKILL)
        failed = [listener for _, listener in opened[::2]]
        for listener in failed:
            (error,) = listener.wait().ends
            assert isinstance(error, UserError) and "search process" in str(error)
        for stream, _ in opened[1::2]:
            stream.accept(samples[RATE:])
            stream.finish()
        opened += [open_stream(engine) for _ in range(2)]
        for stream, _ in opened[-2:]:
            stream.accept(samples)
            stream.finish()
        for _, listener in (*opened[1::2], opened[-2]):
            assert listener.wait().ends == [None]
            assert_same(listener.finals, alone(model, samples, ["default"]))
        assert before[0] not in engine.search_pids and before[1] in engine.search_pids


@pytest.mark.parametrize("when", ["before any audio", "before the first reply", "with no other process"])
def test_a_stream_of_which_a_killed_process_has_searched_nothing_goes_on(model, monkeypatch, when):
    samples = sound(2.0, 3)

    def refused(*_):
        raise BlockingIOError("no process is left")

    with StreamEngine(model, search_workers=1) as engine:
        (process,) = engine.search_pids
        os.kill(process, signal.SIGSTOP)  # as one whose end is not seen yet
        stream, listener = open_stream(engine)
        if when != "before any audio":
            stream.accept(samples)
            stream.finish()
            while not (engine.statistics().steps and engine._loop._lanes[stream].is_waiting):
                time.sleep(0.01)
        if when == "with no other process":
            monkeypatch.setattr("asrtool.live.engine_loop.SearchProcess", refused)
        os.kill(process, signal.SIGKILL)
        if when == "before any audio":
            stream.accept(samples)
            stream.finish()
        assert listener.wait().ends == [None]
        assert_same(listener.finals, alone(model, samples, ["default"]))
        assert process not in engine.search_pids


def test_a_stream_that_kills_its_search_process_is_tried_twice(model, monkeypatch):
    monkeypatch.setattr(StreamSearches, "run", lambda *_: os._exit(1))
    with StreamEngine(model, search_workers=1) as engine:
        before = engine.search_pids
        stream, listener = open_stream(engine)
        stream.accept(sound(2.0, 3))
        (error,) = listener.wait().ends
        assert isinstance(error, UserError) and "search process" in str(error)
        assert engine.search_pids != before


def test_search_processes_leave_sigterm_to_their_parent(model):
    """A service manager may send it to all processes, and the streams are then drained."""
    samples = sound(2.0, 3)
    with StreamEngine(model, search_workers=1) as engine:
        stream, listener = open_stream(engine)
        stream.accept(samples[:RATE])
        subprocess.run(["kill", "-TERM", str(engine.search_pids[0])], check=True)  # not sent by the parent itself
        stream.accept(samples[RATE:])
        stream.finish()
        assert listener.wait().ends == [None]
        assert_same(listener.finals, alone(model, samples, ["default"]))


def test_where_no_search_process_can_be_started_the_engine_searches_itself(model, monkeypatch, caplog):
    samples = sound(2.0, 3)
    monkeypatch.setattr(logging.getLogger("asrtool"), "propagate", True)

    def refused(*_):
        raise BlockingIOError("no process is left")

    with StreamEngine(model, search_workers=1) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("asrtool.live.engine_loop.SearchProcess", refused)
            first, failed = open_stream(engine)
            first.accept(samples)
            wait_for_results([failed])
            os.kill(engine.search_pids[0], signal.SIGKILL)
            assert isinstance(failed.wait().ends[0], UserError)
            stream, listener = open_stream(engine)
            feed([stream], [samples], [RATE])
            assert listener.wait().ends == [None] and not engine.search_pids
            assert_same(listener.finals, alone(model, samples, ["default"]))
            assert "no process is left" in caplog.text
        stream, listener = open_stream(engine)
        feed([stream], [samples], [RATE])
        assert listener.wait().ends == [None] and len(engine.search_pids) == 1
        assert_same(listener.finals, alone(model, samples, ["default"]))


@pytest.mark.parametrize("place", ["engine_loop.next_batch", "engine_loop.ModelSteps.open"])
def test_streams_end_where_the_engine_fails_and_later_ones_are_recognised(model, engine, monkeypatch, place):
    samples = sound(2.0, 3)

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f"asrtool.live.{place}", no_memory)
        opened = [open_stream(engine) for _ in range(2)]
        feed([stream for stream, _ in opened], [samples, samples], [RATE])
        assert [type(listener.wait().ends[0]) for _, listener in opened] == [MemoryError, MemoryError]
    stream, listener = open_stream(engine)
    feed([stream], [samples], [RATE])
    assert listener.wait().ends == [None]
    assert_same(listener.finals, alone(model, samples, ["default"]))


def test_search_processes_end_with_the_engine(model):
    with StreamEngine(model, search_workers=2) as engine:
        pids = engine.search_pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_utterance_without_rules_ends_at_the_longest_length(model, engine, monkeypatch):
    monkeypatch.setattr("asrtool.live.stream_engine.MAX_UTTERANCE_SECONDS", 1.5)
    stream, listener = open_stream(engine, endpoint=[])
    samples = sound(4.0, 5)
    feed([stream], [samples], [1000])
    assert_same(listener.wait().finals, alone(model, samples, ["length=1.5"]))
    assert len(listener.finals) == 3


def live_objects(*kinds):
    """The objects of these kinds, after the engine's thread had time to leave its last step."""
    time.sleep(0.1)
    gc.collect()
    return sum(isinstance(one, kinds) for one in gc.get_objects())


def test_streams_that_have_ended_leave_nothing(model, engine, monkeypatch):
    """Whether they finish, are cancelled or fail; in the search processes as well."""
    monkeypatch.setattr("asrtool.inference.stream.MAX_SAMPLE", math.inf)  # so that the model gets such samples

    def run(count):
        for number in range(count):
            opened = [open_stream(engine) for _ in range(4)]
            for stream, _ in opened:
                stream.accept(sound(0.6, number))
            opened[0][0].cancel()
            opened[1][0].accept(np.full(RATE, 1e25, np.float32))
            for stream, _ in opened[2:]:
                stream.finish()
            for _, listener in opened[1:]:
                listener.wait()

    run(3)
    kinds = (Lane, UtteranceInput, UtteranceSearch, torch.Tensor)
    before = min(live_objects(*kinds) for _ in range(3))
    slots = engine._loop._steps.capacity
    run(40)
    assert engine.num_streams == 0
    assert min(live_objects(*kinds) for _ in range(10)) <= before + 4  # what the last step still refers to
    assert live_objects(LiveStream) <= 4
    assert engine._loop._steps.capacity == slots


@pytest.mark.parametrize("workers", [0, 1])
def test_hotwords_of_one_stream_do_not_change_the_others(stream_experiment, workers):
    samples = sound(3.0, 4)
    model = asrtool.load(stream_experiment, method="prefix", device="cpu")
    whole = asrtool.load(stream_experiment, method="prefix", device="cpu", hotwords=["three\t20"])
    expected, plain = alone(whole, samples, ["default"]), alone(model, samples, ["default"])
    assert [one.text for one in expected] != [one.text for one in plain]
    with StreamEngine(model, search_workers=workers) as engine:
        opened = [open_stream(engine, hotwords=hotwords) for hotwords in (["three\t20"], [])]
        feed([stream for stream, _ in opened], [samples] * 2, [8000])
        for (_, listener), right in zip(opened, (expected, plain), strict=True):
            assert listener.wait().ends == [None]
            assert_same(listener.finals, right)
        for wrong in (["six"], ["three"] * 500, ["three " * 2000], ["\t\t"]):
            with pytest.raises(UserError):
                open_stream(engine, hotwords=wrong)


def test_hotwords_of_a_stream_need_a_search_that_takes_them(engine):
    with pytest.raises(UserError, match="prefix and graph"):
        open_stream(engine, hotwords=["three"])
    assert engine.num_streams == 0


def one_chunk(model):
    """Sound that is enough for the first step of a stream, and not for another one."""
    frames = UtteranceInput(model.experiment, frame_extractor(model.experiment))
    assert frames.ready_size() == 0
    return sound(2.0, 6)[: frames.missing_samples()]


def test_a_step_waits_for_further_streams_until_there_are_max_batch(model, monkeypatch):
    """Without a limit that ends the wait in this test; the first step has none before it."""
    monkeypatch.setattr("asrtool.live.engine_events.STEP_INTERVALS", math.inf)
    samples = one_chunk(model)
    with StreamEngine(model, max_batch=3, gather_chunks=1e6, search_workers=0) as engine:
        done = threading.Event()
        first = engine.open(on_results=lambda _: done.set(), on_end=print)
        first.accept(samples[:-1])
        assert engine.statistics().steps == 0  # a sample is missing
        first.accept(samples[-1:])
        assert done.wait(WAIT)
        arrived = [threading.Event() for _ in range(3)]
        for one in arrived:
            assert not any(event.is_set() for event in arrived)
            engine.open(on_results=lambda _, one=one: one.set(), on_end=print).accept(samples)
        assert all(one.wait(WAIT) for one in arrived)
        statistics = engine.statistics()
        assert (statistics.steps, statistics.step_streams) == (2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_workers": -1}, "search_workers is -1; give a whole number from 0 on"),
        ({"search_workers": 1.5}, "search_workers is 1.5; give a whole number"),
        ({"gather_chunks": -0.1}, "gather_chunks is -0.1; give a number from 0 on"),
        ({"gather_chunks": math.nan}, "gather_chunks is nan; give a number"),
        ({"max_batch": 0}, "max_batch is 0; give a whole number from 1 on"),
    ],
)
def test_an_impossible_number_of_an_engine_is_one_line(model, options, message):
    with pytest.raises(UserError, match=message):
        StreamEngine(model, **options)


@pytest.mark.parametrize(
    "options", [{"hotwords": "four"}, {"hotwords": [4]}, {"endpoint": "length=5"}, {"endpoint": None}]
)
def test_hotwords_and_rules_of_a_stream_are_lists_of_texts(model, options):
    with StreamEngine(model, search_workers=0) as engine:
        with pytest.raises(UserError, match="; give a list of texts"):
            engine.open(on_results=print, on_end=print, **options)
        assert engine.num_streams == 0


def test_a_stream_that_is_behind_does_not_wait(model, monkeypatch):
    monkeypatch.setattr("asrtool.live.engine_events.STEP_INTERVALS", math.inf)
    with StreamEngine(model, gather_chunks=1e6, search_workers=0) as engine:
        stream, listener = open_stream(engine)
        samples = sound(6.0, 7)
        stream.accept(samples)
        while stream.backlog_seconds > 1.0:  # the last chunks wait for further streams
            assert not listener.ended.wait(0.01)
        assert engine.statistics().steps > 2


def test_the_statistics_count_steps_and_what_waits(model, engine):
    streams = [open_stream(engine) for _ in range(3)]
    for stream, _ in streams:
        stream.accept(sound(2.0, 1))
        stream.finish()
    for _, listener in streams:
        listener.wait()
    statistics = engine.statistics()
    assert 0 < statistics.steps <= statistics.step_streams
    assert statistics.step_seconds > 0 and statistics.backlog_seconds == 0
    assert statistics.audio_seconds == pytest.approx(6.0)
