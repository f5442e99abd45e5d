import io
import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.data import audio_spool
from asrtool.data.audio_blocks import open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from tests.data.media import write_media, write_video

RATE = 16_000
DRAW = np.random.default_rng(0)
SAMPLES = (0.3 * np.convolve(DRAW.uniform(-1, 1, 3 * RATE), np.ones(8) / 8, "same")).astype(np.float32)  # below 2 kHz


def read(source, rate=RATE, channel="mix", **options) -> np.ndarray:
    return np.concatenate(list(open_recording(source, **options).blocks(rate, channel)))


def refused(source, channel="mix", **options) -> str:
    with pytest.raises(InvalidEntry) as caught:
        read(source, channel=channel, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def sound(tmp_path):
    """sound(name, samples, rate, **format) -> the path of an audio file, as text"""

    def write(name, samples=SAMPLES, rate=RATE, **options) -> str:
        soundfile.write(tmp_path / name, samples, rate, **options)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("name", "options", "least_correlation"),
    [
        *[("a.wav", {"subtype": subtype}, 0.999) for subtype in ("PCM_16", "PCM_24", "FLOAT", "ULAW")],
        *[("a.flac", {}, 0.9999), ("a.aiff", {}, 0.9999), ("a.mp3", {}, 0.97), ("a.ogg", {}, 0.97)],
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, 0.9),
    ],
)
def test_files_keep_their_length_and_times_in_each_format(sound, name, options, least_correlation):
    samples = read(sound(name, **options))
    assert len(samples) == len(SAMPLES)
    assert np.corrcoef(samples, SAMPLES)[0, 1] > least_correlation


def test_an_mp3_is_read_without_lines_from_its_decoder(sound, capfd):
    """The decoder prints lines by itself where it has to begin again in the middle of a loud file."""
    path = sound("a.mp3", DRAW.normal(0, 0.1, 20 * RATE))
    assert len(read(path)) == 20 * RATE
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "codec", "excess"),
    [("a.m4a", "aac", 0), ("a.mp4", "aac", 0), ("a.mkv", "aac", 1024), ("a.webm", "libopus", 960), ("a.mov", "aac", 0)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_media_containers_keep_their_length_and_times(tmp_path, name, codec, excess, channels):
    path = write_media(tmp_path / name, np.stack([SAMPLES] * channels, 1), 48_000, codec)
    recording = open_recording(path)
    samples = np.concatenate(list(recording.blocks(48_000)))
    assert (recording.sampling_rate, recording.channels) == (48_000, channels)
    assert 0 <= len(samples) - len(SAMPLES) <= excess  # Matroska keeps the padding of the last frame
    assert np.corrcoef(samples[: len(SAMPLES)], SAMPLES)[0, 1] > 0.9  # noise is hard to code


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_audio_that_begins_after_the_video_keeps_its_times(tmp_path, name):
    samples = read(write_media(tmp_path / name, SAMPLES, RATE, first_time=0.5))
    assert np.abs(samples[: RATE // 2 - 1024]).max() < 0.01
    begin = RATE // 2
    assert np.corrcoef(samples[begin : begin + len(SAMPLES)], SAMPLES)[0, 1] > 0.95


def test_a_lost_packet_of_a_container_becomes_silence_of_its_length(tmp_path):
    path = write_media(tmp_path / "a.mkv", SAMPLES, RATE, skipped={10, 11})  # packets of 1024 samples
    samples = read(path)
    lost, rest = slice(9500, 10500), slice(13_000, len(SAMPLES))
    assert np.abs(samples[lost]).max() < 0.01
    assert np.corrcoef(samples[rest], SAMPLES[rest])[0, 1] > 0.95


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_stream_whose_format_changes_keeps_the_format_of_its_beginning(tmp_path, order):
    times = [np.arange(rate) / rate for rate in (16000, 44100)]
    mono, left = [0.5 * np.sin(2 * np.pi * 440 * time) for time in times]
    parts = [(mono, 16000), (np.stack([left, left], axis=1), 44100)]
    files = [Path(write_media(tmp_path / f"{number}.aac", *part)) for number, part in enumerate(parts)]
    joined = tmp_path / "joined.aac"
    joined.write_bytes(b"".join(files[number].read_bytes() for number in order))
    samples, rate = parts[order[0]]
    blocks = list(open_recording(joined).blocks(rate, "mix"))
    lengths = [len(samples) / rate for samples, rate in parts]
    assert sum(map(len, blocks)) / rate == pytest.approx(sum(lengths), abs=0.3)
    assert np.abs(np.concatenate(blocks)).max() > 0.1


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_to_that_of_the_model(sound, rate):
    seconds = np.arange(2 * rate) / rate
    samples = read(sound("a.wav", 0.5 * np.sin(2 * np.pi * 500 * seconds), rate))
    expected = 0.5 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE)
    assert len(samples) == 2 * RATE
    assert np.abs(samples - expected)[800:-800].max() < 1e-3


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.int16, 2**15), (np.int32, 2**31), (np.float32, 1), (np.float64, 1), (np.float16, 1)]
)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_of_each_type_give_the_same_samples(dtype, scale, channels):
    samples = (SAMPLES * scale).astype(dtype)
    if channels:
        samples = np.stack([samples] * channels, 1)
    np.testing.assert_allclose(read(samples, rate_of_array=RATE), SAMPLES, atol=2e-4)


def test_a_channel_is_chosen_or_the_mean_of_all_taken(sound):
    path = sound("a.wav", np.stack([SAMPLES, -0.5 * SAMPLES], 1), subtype="FLOAT")
    for channel, gain in ((0, 1.0), (1, -0.5), ("mix", 0.25)):
        np.testing.assert_allclose(read(path, channel=channel), gain * SAMPLES, atol=1e-6)
    assert "channels 0 to 1" in refused(path, channel=2)
    assert "one channel, 0" in refused(sound("b.wav"), channel=1)
    for channel in (-1, "left", 0.5):
        with pytest.raises(UserError, match="neither mix nor a number"):
            read(path, channel=channel)


def write_and_close(target, content: bytes) -> None:
    with open(target, "wb") as file:
        file.write(content)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg", "flac"])
def test_file_objects_and_pipes_give_what_the_file_gives(sound, tmp_path, suffix):
    path = sound(f"a.{suffix}")
    content = Path(path).read_bytes()
    expected = read(path)
    np.testing.assert_array_equal(read(io.BytesIO(content)), expected)
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: write_and_close(writer, content))
    thread.start()
    with open(reader, "rb") as pipe:  # does not seek
        np.testing.assert_array_equal(read(pipe), expected)
    thread.join()
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: write_and_close(tmp_path / "pipe", content))
    thread.start()
    np.testing.assert_array_equal(read(tmp_path / "pipe"), expected)
    thread.join()


def test_a_recording_can_be_read_more_than_once_and_leaves_no_temporary_file(sound, monkeypatch, tmp_path):
    monkeypatch.setattr(audio_spool.tempfile, "tempdir", str(tmp_path))
    recording = open_recording(io.BytesIO(Path(sound("a.flac")).read_bytes()))
    assert len(list(tmp_path.glob("*asrtool-audio-*"))) == 1
    first, second = (np.concatenate(list(recording.blocks(8000))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    del recording
    assert not list(tmp_path.glob("*asrtool-audio-*"))


def test_what_is_not_audio_is_one_line_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("words, not sound\n" * 100)
    (tmp_path / "noise.m4a").write_bytes(DRAW.bytes(5000))
    assert "0 bytes" in refused(tmp_path / "empty.wav")
    for name in ("text.mp3", "noise.m4a"):
        assert f"not readable as audio: {tmp_path / name}" in refused(tmp_path / name)
    assert "a folder" in refused(tmp_path)
    assert "no such audio file" in refused(tmp_path / "none.wav")
    assert "not a regular file" in refused("/dev/zero")
    assert refused(io.BytesIO(), name="standard input") == "no data: standard input is empty"
    assert "standard input" in refused(io.BytesIO(b"words" * 100), name="standard input")
    assert "text, not bytes" in refused(io.StringIO("words"))
    monkeypatch.setattr(audio_spool.spool_pipe, "__defaults__", (0.05,))
    os.mkfifo(tmp_path / "pipe")
    assert "nothing was written" in refused(tmp_path / "pipe")


def test_a_temporary_folder_without_space_is_named(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio_spool, "_copy", fail)
    assert "No space left on device; set TMPDIR" in refused(io.BytesIO(b"1"), name="standard input")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile '{path}'\n"),
        ("a.sdp", "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n"),
    ],
)
def test_a_playlist_does_not_open_the_files_that_it_names(sound, tmp_path, name, content):
    (tmp_path / name).write_text(content.format(path=sound("other.wav")))
    assert "not readable as audio" in refused(tmp_path / name)


def test_without_pyav_the_extra_that_reads_the_file_is_named(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.m4a", SAMPLES, RATE)
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'asrtool[audio]'" in refused(path)


def test_a_video_without_audio_is_named(tmp_path):
    write_video(tmp_path / "a.mp4")
    assert "no audio in it" in refused(tmp_path / "a.mp4")


@pytest.mark.parametrize(("name", "share"), [("a.wav", 0.5), ("a.flac", 0.6), ("a.aiff", 0.3), ("a.mp3", 0.5)])
def test_a_truncated_file_is_read_to_its_end_with_a_warning(sound, caplog, name, share):
    path = sound(name)
    os.truncate(path, int(share * os.path.getsize(path)))
    recording = open_recording(path)
    samples = np.concatenate(list(recording.blocks(RATE)))
    assert 0 < len(samples) < len(SAMPLES)
    assert np.corrcoef(samples[:8000], SAMPLES[:8000])[0, 1] > 0.97
    if name != "a.mp3":  # its frames have no number: libsndfile may count those that are there
        assert recording.missing_seconds == pytest.approx(3 - len(samples) / RATE, abs=0.02)
        assert f"truncated: {path} ends at" in caplog.text


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_truncated_container_is_read_to_its_end_with_a_warning(tmp_path, caplog, name):
    path = write_media(tmp_path / name, SAMPLES, 48_000, "libopus")
    os.truncate(path, int(0.6 * os.path.getsize(path)))
    assert 0 < len(read(path, 48_000)) < len(SAMPLES)
    assert f"truncated: {path} ends at" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, 20_000.0])
@pytest.mark.parametrize("place", [0, 40_000])
def test_samples_that_are_not_audio_are_named_with_their_time(sound, value, place):
    samples = SAMPLES.copy()
    samples[place] = value
    path = sound("a.wav", samples, subtype="FLOAT")
    for problem in (refused(path), refused(samples, rate_of_array=RATE)):
        assert "samples" in problem
    if not np.isfinite(value):
        assert f"first at {place / RATE:.3f} s: {path}" in refused(path)


def test_silent_and_clipped_recordings_are_read_with_a_warning(sound, caplog):
    assert not read(sound("silent.wav", np.zeros(RATE))).any()
    assert "silent: " in caplog.text
    read(sound("opposite.wav", np.stack([SAMPLES, -SAMPLES], 1)))
    assert "choose one with --channel" in caplog.text
    caplog.clear()
    read(sound("loud.wav", np.clip(20 * SAMPLES, -1, 1)))
    assert "clipped: " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(sound("good.wav"))
    assert not caplog.text


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (SAMPLES, None, "needs its sampling rate"),
        (np.zeros((2, RATE)), RATE, "give .samples, channels."),
        (np.zeros((2, 2, 2)), RATE, "3 dimensions"),
        (np.zeros(5, np.uint8), RATE, "uint8 is not audio"),
        (np.array(["a"]), RATE, "is not audio"),
        (np.zeros(0), RATE, "no samples"),
        (SAMPLES, 0, "claims 0 Hz"),
        (SAMPLES, -5, "claims -5 Hz"),
    ],
)
def test_arrays_that_are_not_audio_are_refused(array, rate, message):
    with pytest.raises((UserError, InvalidEntry), match=message):
        open_recording(array, rate)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_read_or_refused_and_never_raise_anything_else(tmp_path, sound, seed):
    draw = np.random.default_rng(seed)
    names = ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"]
    media = seed % 8 >= len(names)
    path = write_media(tmp_path / "a.mp4", SAMPLES, RATE) if media else sound(names[seed % 8])
    content = np.fromfile(path, np.uint8)
    content[draw.integers(min(4000, len(content)), size=8)] = draw.integers(256, size=8)
    content.tofile(path)
    try:
        read(path)
    except InvalidEntry as problem:
        assert path in str(problem)


@pytest.mark.parametrize("kind", [b"\x01\x7b", b"\xff\x7f", b"\x00\x00"])
def test_a_header_with_an_unknown_codec_is_refused(sound, kind):
    path = Path(sound("a.wav"))
    content = path.read_bytes()
    path.write_bytes(content[:20] + kind + content[22:])  # the format tag of a WAV
    assert "a.wav" in refused(str(path))
