"""Samples in, words out: those of the same audio offline, whatever the pieces, one utterance after the other."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.data.features import extractor
from asrtool.decoding.search_setup import open_search
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.models.acoustic import AcousticModel
from asrtool.streaming.endpointing import Endpointing, EndpointRule
from asrtool.streaming.recogniser import Recogniser, require_streaming_model
from asrtool.streaming.search_setup import open_streaming_search
from tests.decoding.graphs import save_word_graph
from tests.tiny import RATE, tone

METHODS = ("greedy", "prefix", "graph")
SIZES = st.lists(st.integers(0, 9000) | st.just(40000), min_size=1, max_size=4).map(lambda sizes: [*sizes, 700])


def sound(seconds, seed=0):
    """Tones of changing height: a model of random weights makes many words of it."""
    draw = np.random.default_rng(seed)
    parts = [tone(draw.uniform(200, 4000), 0.2, seed + number) for number in range(round(seconds / 0.2))]
    return torch.from_numpy(np.concatenate(parts))


@pytest.fixture(scope="module")
def opened(stream_experiment):
    return open_experiment(stream_experiment, device="cpu")


@pytest.fixture(scope="module")
def options(opened, tmp_path_factory):
    """The options of each method."""
    graph = save_word_graph(tmp_path_factory.mktemp("graph"), opened.tokenizer)
    return {"greedy": {}, "prefix": {"beam": 3}, "graph": {"graph": graph}}


def offline(experiment, samples, method, options, frames=None):
    """The hypothesis for the audio, of its first `frames` output frames."""
    features = extractor(RATE, 20).extract(samples, RATE)[None]
    with torch.no_grad():
        log_probs, lens = experiment.model(features, torch.tensor([features.shape[1]]))
    find = open_search(method, experiment.tokenizer, options[method]).search
    return find(log_probs, lens if frames is None else torch.tensor([frames]))[0]


def stream_recording(recogniser, samples, sizes):
    """All results for the samples, cut into pieces of `sizes` in turn."""
    found, count = [], 0
    while len(samples):
        size = sizes[count % len(sizes)]
        found += recogniser.accept(samples[:size])
        samples, count = samples[size:], count + 1
    return found + recogniser.finish()


def assert_same(found, expected):
    close = replace(expected, score=pytest.approx(expected.score, abs=1e-2))
    assert replace(found, lattice="") == close


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=6, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99), seconds=st.sampled_from([0.2, 1.0, 2.6]))
def test_the_hypothesis_of_pieces_of_audio_is_that_of_the_whole(opened, options, method, sizes, seed, seconds):
    new_search = open_streaming_search(method, opened.tokenizer, options[method]).new_search
    *partials, last = stream_recording(Recogniser(opened, new_search), sound(seconds, seed), sizes)
    assert_same(last.hypothesis, offline(opened, sound(seconds, seed), method, options))
    assert last.num_final == len(last.words) == len(last.times) and last.start == 0
    assert all(result.hypothesis is None for result in partials)
    assert all(result.words[: result.num_final] == last.words[: result.num_final] for result in partials)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=4, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_after_an_endpoint_the_next_utterance_begins_right_there(opened, options, method, sizes, seed):
    samples = sound(4.0, seed)
    new_search = open_streaming_search(method, opened.tokenizer, options[method]).new_search
    results = stream_recording(Recogniser(opened, new_search, Endpointing((EndpointRule(length=1.0),))), samples, sizes)
    utterances = [result for result in results if result.hypothesis]
    assert len(utterances) == 4 and utterances[0].start == 0 and utterances[-1].end == pytest.approx(4.0, abs=0.05)
    for number, one in enumerate(utterances):
        last = number == len(utterances) - 1
        # Chunks are 80 ms, and every second one is looked at: whatever the pieces, it is 1.12 s that are enough.
        assert last or one.end == utterances[number + 1].start == pytest.approx(one.start + 1.12)
        frames = None if last else round((one.end - one.start) / 0.04)
        alone = offline(opened, samples[round(one.start * RATE) :], method, options, frames)
        assert_same(one.hypothesis, alone)
        assert all(one.start <= time < one.end for time in one.times)


def test_partial_results_follow_the_latency_of_the_model(opened, options):
    recogniser = Recogniser(opened, open_streaming_search("greedy", opened.tokenizer, {}).new_search)
    chunk, right = opened.model.latency().chunk, opened.model.latency().right
    heard = [recogniser.accept(piece)[-1].end for piece in sound(1.0).split(RATE // 100)]
    assert heard == sorted(heard)
    for number, end in enumerate(heard, 1):  # of 10 ms; 7.5 ms behind them belong to a frame of features
        ready = number - 1 - right
        assert end == pytest.approx(max(0, ready - ready % chunk) / 100)


def test_the_recogniser_can_be_used_for_another_stream(opened, options):
    recogniser = Recogniser(opened, open_streaming_search("greedy", opened.tokenizer, {}).new_search)
    first, second = (stream_recording(recogniser, sound(2.6), [3000])[-1] for _ in range(2))
    assert first == second and first.words


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [0, 100])
def test_audio_of_less_than_a_frame_has_no_words(opened, options, method, samples):
    new_search = open_streaming_search(method, opened.tokenizer, options[method]).new_search
    recogniser = Recogniser(opened, new_search, Endpointing())
    assert [result.words for result in recogniser.accept(torch.zeros(samples))] == [[]]
    (result,) = recogniser.finish()
    assert result.words == result.hypothesis.tokens == [] and (result.start, result.end) == (0, 0)


@pytest.mark.parametrize("samples", [np.zeros(100, dtype=np.int16), np.zeros((2, 100), dtype=np.float32)])
def test_samples_that_are_not_float_or_not_mono_are_refused(opened, samples):
    recogniser = Recogniser(opened, open_streaming_search("greedy", opened.tokenizer, {}).new_search)
    with pytest.raises(ValueError, match="samples are"):
        recogniser.accept(samples)


@pytest.mark.parametrize(
    "model, complaint",
    [
        (
            {"mask": "chunk", "chunk_size": 2, "memory": 2, "normalise": "utterance"},
            "train with model.normalise=global",
        ),
        ({"architecture": "blstm"}, "model.architecture is blstm"),
        ({}, "model.mask is full; train with model.mask=chunk"),
        ({"mask": "sliding", "left_context": 2}, "model.left_context or model.right_context is null"),
    ],
)
def test_a_model_that_cannot_stream_is_refused_with_the_setting_to_change(tiny_config, opened, model, complaint):
    config = tiny_config(model=model)
    experiment = SimpleNamespace(
        model=AcousticModel(config.model, config.features.num_bins, 5), config=config, folder="exp/whole"
    )
    with pytest.raises(UserError, match="exp/whole cannot stream: ") as error:
        require_streaming_model(experiment)
    assert complaint in str(error.value)
