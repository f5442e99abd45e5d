"""The Python interface: loading, transcribing arrays, files and lists, streaming."""

import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest
import soundfile

import asrtool
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from tests.decoding.graphs import save_word_graph
from tests.tiny import RATE, tone


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Six seconds of tones, float32."""
    return np.concatenate([tone(300 + 400 * number, 1.0, number) for number in range(6)])


@pytest.fixture(scope="module")
def model(experiment) -> asrtool.Model:
    """The experiment with random weights."""
    return asrtool.load(experiment, method="greedy", device="cpu", vad="none")


@pytest.fixture(scope="module")
def stream_model(stream_experiment) -> asrtool.Model:
    """One that can stream."""
    return asrtool.load(stream_experiment, method="greedy", device="cpu", vad="none", max_seconds=10)


def assert_same_words(words, expected):
    """Texts and times are equal, and confidences up to the order of additions."""
    assert [word[:3] for word in map(astuple, words)] == [word[:3] for word in map(astuple, expected)]
    confidences = [[word.confidence for word in one] for one in (words, expected)]
    np.testing.assert_allclose(*confidences, atol=2e-4)


def test_import_is_light():
    code = "import asrtool, sys; dir(asrtool); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_of_the_package_are_attribute_errors():
    with pytest.raises(AttributeError, match="transcribe"):
        asrtool.transcribe  # noqa: B018
    assert {*asrtool.__all__} <= {*dir(asrtool)}


def test_array_file_and_open_file_have_the_same_words(model, samples, tmp_path):
    path = tmp_path / "tones.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    of_array = model.transcribe(samples, rate=RATE)
    assert of_array.words
    assert model.transcribe(path).words == of_array.words
    assert model.transcribe(str(path)).words == of_array.words
    with path.open("rb") as file:
        assert model.transcribe(file).words == of_array.words
    assert list(model.segments(path)) == of_array.segments


def test_a_list_gives_a_list(model, samples, tmp_path):
    path = tmp_path / "tones.wav"
    soundfile.write(path, samples, RATE)
    transcripts = model.transcribe([path, str(path)])
    assert [transcript.source for transcript in transcripts] == [str(path)] * 2
    assert transcripts[0].words == transcripts[1].words


def test_channels_are_mixed_or_chosen(model, samples):
    silent = 1e-4 * tone(50, len(samples) / RATE)
    stereo = np.stack([samples, silent], axis=1)
    assert model.transcribe(stereo, rate=RATE, channel=0).words == model.transcribe(samples, rate=RATE).words
    assert model.transcribe(stereo, rate=RATE, channel=0).channel == 0
    assert (
        model.transcribe(np.stack([samples, samples], axis=1), rate=RATE).text
        == model.transcribe(samples, rate=RATE).text
    )


def test_nbest_lists_begin_with_the_result(experiment, samples):
    model = asrtool.load(experiment, method="prefix", device="cpu", vad="none")
    (segment,) = model.transcribe(samples[: 2 * RATE], rate=RATE, nbest=3).segments
    assert len(segment.alternatives) == 3
    assert segment.alternatives[0].text == segment.text
    scores = [alternative.score for alternative in segment.alternatives]
    assert scores == sorted(scores, reverse=True)
    (segment,) = model.transcribe(samples[: 2 * RATE], rate=RATE).segments
    assert segment.alternatives == ()


def test_hotwords_are_a_list_or_a_file(experiment, samples, tmp_path):
    (tmp_path / "hotwords.txt").write_text("four\t100\n")
    plain = asrtool.load(experiment, method="prefix", device="cpu", vad="none").transcribe(samples, rate=RATE)
    texts = []
    for hotwords in (["four\t100"], tmp_path / "hotwords.txt", str(tmp_path / "hotwords.txt")):
        model = asrtool.load(experiment, method="prefix", device="cpu", vad="none", hotwords=hotwords)
        texts.append(model.transcribe(samples, rate=RATE).text)
    assert len(set(texts)) == 1
    assert texts[0].split().count("four") > plain.text.split().count("four")


def test_a_pack_is_loaded_as_its_experiment(experiment, samples, tmp_path, asr):
    status, _, error = asr("pack", experiment, tmp_path / "pack", "--checkpoint", "best")
    assert status == 0, error
    results = [
        asrtool.load(folder, method="greedy", device="cpu", vad="none").transcribe(samples, rate=RATE)
        for folder in (experiment, tmp_path / "pack")
    ]
    assert results[0].words and results[0] == results[1]


def test_progress_grows_to_the_end(model, samples):
    seconds: list[float] = []
    transcript = model.transcribe(samples, rate=RATE, on_progress=seconds.append)
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(transcript.seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "viterbi"}, "'viterbi' is not a search method; give one of greedy"),
        ({"method": "graph"}, "--graph"),
        ({"method": "greedy", "beam": 4}, "beam has no effect on the method greedy; it is for prefix or graph"),
        ({"beem": 4}, "no option beem .did you mean 'beam'"),
        ({"graph": "nowhere"}, "nowhere"),
        ({"device": "tpu"}, "tpu"),
        ({"method": "prefix", "beam": "4"}, "beam is '4'; give a number"),
        ({"max_seconds": "a"}, "max_seconds is 'a'; give a number"),
        ({"max_seconds": -1}, "max_seconds is -1; give a number of seconds above 0"),
        ({"batch_seconds": 0}, "batch_seconds is 0; give a number of seconds above 0"),
        ({"jobs": 0}, "jobs is 0; give a whole number from 1 on"),
        ({"jobs": 1.5}, "jobs is 1.5; give a whole number"),
        ({"method": "prefix", "nbest": 0}, "nbest is 0; give a whole number from 1 on"),
        ({"graph": 3}, "graph is 3; give the path"),
        ({"no_rescore": "yes"}, "no_rescore is 'yes'; give True or False"),
        ({"method": "prefix", "hotwords": ["one", 2]}, "hotwords has an element that is 2; give a list of texts"),
    ],
)
def test_impossible_options_are_one_line(experiment, options, message, samples):
    with pytest.raises(UserError, match=message) as caught:
        asrtool.load(experiment, vad="none", **options).transcribe(samples, rate=RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [None, 3, ["exp/mine"]])
def test_a_system_is_a_path(path):
    with pytest.raises(UserError, match="the trained system is .*; give the path of a file or folder"):
        asrtool.load(path)


def test_an_unknown_detector_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match="'siler' is not a speech detector; did you mean 'silero'"):
        asrtool.load("no-such-folder", vad="siler")


@pytest.mark.parametrize("rate", ["16k", 0, -8000, 22050.5, True])
def test_an_impossible_rate_is_one_line(model, stream_model, samples, rate):
    for call in (model.transcribe, model.segments, lambda x, rate: model.align(x, "one", rate)):
        with pytest.raises(UserError, match="rate is .*; give the sampling rate in Hz"):
            call(samples, rate)
    with pytest.raises(UserError, match="rate is .*; give the sampling rate in Hz"):
        stream_model.stream(rate)


def test_the_rate_may_stand_without_its_name(model, samples):
    assert model.transcribe(samples, RATE) == model.transcribe(samples, rate=RATE)


@pytest.mark.parametrize("source", [[0.1, 0.2], [np.float32(0.1)], None, [None], {}])
def test_what_is_no_recording_is_one_line(model, source):
    with pytest.raises(UserError, match="a recording is .*; give a path, an open binary file or a NumPy array"):
        model.transcribe(source, rate=RATE)


@pytest.mark.parametrize("nbest", [0, -1, "3", 2.5])
def test_an_nbest_list_has_at_least_one_hypothesis(model, samples, nbest):
    with pytest.raises(UserError, match="nbest is .*; give a whole number"):
        model.transcribe(samples, rate=RATE, nbest=nbest)


def test_a_stream_has_the_words_of_the_whole(stream_model, samples):
    whole = stream_model.transcribe(samples, rate=RATE)
    stream = stream_model.stream(endpoint=[])
    for size in (len(samples), 1600, 777):
        pieces = [samples[begin : begin + size] for begin in range(0, len(samples), size)]
        *partial, final = stream.results(pieces)
        assert final.is_final and not any(result.is_final for result in partial)
        assert_same_words(final.words, whole.words)
        for result in partial:
            assert result.words[: result.num_final] == [] or result.text.startswith(
                " ".join(word.text for word in final.words[: result.num_final])
            )


def test_audio_of_a_lower_rate_than_the_models_is_said_once(stream_model, samples, caplog):
    expected = "audio of 8000 Hz has nothing above 4000 Hz"
    stream = stream_model.stream(rate=8000)
    assert list(stream.results(np.split(samples[::2], 4))) and caplog.text.count(expected) == 1
    stream_model.transcribe(samples[::2], rate=8000)
    assert caplog.text.count(expected) == 2
    list(stream_model.segments(samples[::2], rate=8000))
    assert caplog.text.count(expected) == 3


WRONG_SAMPLES = {
    "integers as floats": lambda samples: samples * 32768,
    "integers as halves": lambda samples: (samples * 32768).astype(np.float16),
    "one channel of integers as floats": lambda samples: np.stack([samples, samples * 32768], 1),
    "channels that cancel each other": lambda samples: np.stack([samples * 1000, samples * -1000], 1),
    "not a number": lambda samples: np.append(samples, np.float32(np.nan)),
    "infinite": lambda samples: np.append(samples, np.float64(np.inf)),
}


@pytest.mark.parametrize("kind", WRONG_SAMPLES)
def test_samples_that_are_not_audio_are_refused_by_streams_as_by_whole_recordings(stream_model, samples, kind):
    wrong = WRONG_SAMPLES[kind](samples)
    with pytest.raises((UserError, InvalidEntry)) as whole:
        stream_model.transcribe(wrong, rate=RATE)
    with pytest.raises(UserError) as piece:
        stream_model.stream().accept(wrong)
    expected = "divide by 32768" if np.isfinite(wrong).all() else "not finite numbers"
    assert expected in str(whole.value) and expected in str(piece.value)


def test_a_stream_takes_other_rates_types_and_channels(stream_model, samples):
    soxr = pytest.importorskip("soxr")
    fast = soxr.resample(samples, RATE, 48000)
    integers = (np.clip(fast, -1, 1) * 32767).astype(np.int16)
    stream = stream_model.stream(rate=48000, endpoint=[])
    of_floats = [*stream.results(np.split(fast, 10))][-1]
    of_integers = [*stream.results(np.split(np.stack([integers] * 2, 1), 10))][-1]
    whole = stream_model.transcribe(samples, rate=RATE)
    assert of_floats.text == of_integers.text == whole.text
    starts = np.array([[word.start for word in result.words] for result in (of_floats, whole)])
    assert np.abs(starts[0] - starts[1]).max() <= stream_model.experiment.frame_seconds


def test_endpoints_end_utterances_and_times_go_on(stream_model, samples):
    stream = stream_model.stream(endpoint=["length=1.5"])
    finals = [result for result in stream.results(np.split(samples, 12)) if result.is_final]
    assert len(finals) >= 4
    assert all(before.end <= after.start + 1e-6 for before, after in zip(finals, finals[1:], strict=False))
    assert all(final.start <= word.start <= word.end <= final.end for final in finals for word in final.words)


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2)), np.zeros(4, np.uint8), np.array([0.0, np.nan]), np.array(["a"])])
def test_bad_samples_are_refused(stream_model, bad):
    with pytest.raises(UserError, match="samples are"):
        stream_model.stream().accept(bad)


def test_a_model_that_needs_whole_utterances_does_not_stream(model):
    with pytest.raises(UserError, match="cannot stream"):
        model.stream()


@pytest.mark.parametrize("endpoint", ["words,trailing=1.2", "default", None, [1], {"words"}])
def test_endpoint_rules_are_a_list_of_texts(stream_model, endpoint):
    with pytest.raises(UserError, match="^endpoint .*; give a list of texts$"):
        stream_model.stream(endpoint=endpoint)


def test_align_gives_each_word_of_the_text_its_time(model, samples, tmp_path):
    transcript = model.transcribe(samples, rate=RATE)
    alignment = model.align(samples, transcript.text, rate=RATE)
    assert [word.text for word in alignment.words] == transcript.text.split()
    starts = [word.start for word in alignment.words]
    assert starts == sorted(starts) and alignment.words[-1].end <= alignment.seconds
    text = tmp_path / "text.txt"
    text.write_text(transcript.text)
    assert model.align(samples, text, rate=RATE).words == alignment.words


def test_align_refuses_what_is_no_text_or_no_audio(model, samples, tmp_path):
    with pytest.raises(UserError, match="no words"):
        model.align(samples, " ", rate=RATE)
    for text in (["ONE"], None, b"ONE"):
        with pytest.raises(UserError, match="the text is .*; give one string with all words, or the Path"):
            model.align(samples, text, rate=RATE)
    with pytest.raises(UserError, match="no-audio.wav"):
        model.align(tmp_path / "no-audio.wav", "one two")


def test_words_of_a_graph_have_the_posteriors_of_a_lattice(model, samples, tmp_path):
    graph = save_word_graph(tmp_path / "graph", model.experiment.tokenizer)
    options = {"device": "cpu", "vad": "none", "graph": graph}
    by_lattice = asrtool.load(model.experiment.folder, **options)
    assert (by_lattice.options["beam"], by_lattice.options["lattice_beam"]) == (12.0, 6.0)
    limited = asrtool.load(model.experiment.folder, **options, max_active=7000, beam=12.0)
    first, second = (one.transcribe(samples, rate=RATE) for one in (by_lattice, limited))
    assert first.text == second.text and first.text
    assert [word.confidence for word in first.words] != [word.confidence for word in second.words]
    assert all(0 <= word.confidence <= 1 for word in first.words)
