import os
import struct

import numpy as np
import pytest
import soundfile

from asrtool.data.audio import AudioInfo, inspect_audio, inspect_mono_audio
from asrtool.data.sources import InvalidEntry, allow_commands

SAMPLES = (8000 * np.sin(0.1 * np.arange(16000))).astype(np.int16)


@pytest.fixture
def sound(tmp_path):
    """sound(name, samples, rate=16000, **format) -> the path of an audio file, as text"""

    def write(name, samples=SAMPLES, rate=16000, **options) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(tmp_path / name, samples, rate, **options)
        return str(tmp_path / name)

    return write


def sphere(path, samples=SAMPLES, coding="pcm", count=None) -> str:
    """A NIST SPHERE file, made by hand."""
    lines = ["NIST_1A", "   1024", "channel_count -i 1", "sample_rate -i 16000", "sample_n_bytes -i 2"]
    lines += [f"sample_count -i {len(samples) if count is None else count}", "sample_byte_format -s2 01"]
    lines += [f"sample_coding -s{len(coding)} {coding}", "sample_sig_bits -i 16", "end_head", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode().ljust(1024, b" ") + samples.astype("<i2").tobytes())
    return str(path)


def refused(path) -> str:
    with pytest.raises(InvalidEntry) as caught:
        inspect_audio(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW"])
def test_rate_length_and_channels_are_returned(sound, subtype):
    stereo = np.stack([SAMPLES, SAMPLES], 1) / 32768
    assert inspect_audio(sound("a.wav", stereo, 8000, subtype=subtype)) == AudioInfo(8000, 16000, 2)
    with pytest.raises(InvalidEntry, match="2 channels"):
        inspect_mono_audio(sound("a.wav", stereo))


@pytest.mark.parametrize("name", ["a.sph", "x; touch PWNED; echo .sph", "$(touch PWNED).sph", "a b/`touch PWNED`.sph"])
def test_sphere_files_are_read_without_a_shell(tmp_path, monkeypatch, name):
    from asrtool.data.lhotse_objects import deserialize_entry

    monkeypatch.chdir(tmp_path)
    path = sphere(tmp_path / name)
    assert inspect_audio(path) == AudioInfo(16000, 16000, 1)
    recording = deserialize_entry(
        {"id": "r", "sources": [{"type": "file", "channels": [0], "source": path}], "sampling_rate": 16000}
        | {"num_samples": 16000, "duration": 1.0}
    )
    np.testing.assert_array_equal(recording.load_audio()[0], (SAMPLES / 32768).astype(np.float32))
    assert not list(tmp_path.rglob("PWNED"))


def test_a_compressed_sphere_file_is_refused_with_the_remedy(tmp_path):
    assert "sph2pipe" in refused(sphere(tmp_path / "a.sph", coding="pcm,embedded-shorten-v2.00"))


def test_a_truncated_sphere_file_is_refused(tmp_path):
    assert "truncated" in refused(sphere(tmp_path / "a.sph", count=16001))


@pytest.mark.parametrize("suffix", ["aiff", "au", "wav", "flac"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_file_is_refused_in_each_format(sound, suffix, share):
    path = sound(f"a.{suffix}")
    inspect_audio(path)
    os.truncate(path, int(share * os.path.getsize(path)))
    assert path in refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("place", [0, 5000, 15999])
def test_a_sample_that_is_not_a_finite_number_is_named_with_its_time(sound, value, subtype, place):
    samples = SAMPLES / 32768
    samples[place] = value
    assert f"not finite numbers, first at {place / 16000:.3f} s" in refused(sound("a.wav", samples, subtype=subtype))


def test_float_samples_in_the_range_of_integers_are_refused(sound):
    problem = refused(sound("a.wav", SAMPLES.astype(np.float32), subtype="FLOAT"))
    assert "samples up to 7999" in problem
    assert "divide by 32768" in problem
    inspect_audio(sound("b.wav", SAMPLES / 32768 * 5, subtype="FLOAT"))  # a little too loud is none of our business


def test_an_impossible_sampling_rate_or_length_is_refused(sound):
    assert "claims 7 Hz" in refused(sound("a.wav", rate=7))
    assert "claims 1000000 Hz" in refused(sound("a.wav", rate=1_000_000))


@pytest.mark.parametrize("samples", [16000 * 86401, 2**36 - 1])
def test_an_impossible_length_is_refused_before_samples_are_read(sound, samples):
    path = sound("a.flac")
    with open(path, "r+b") as file:  # the 36 bits of STREAMINFO
        file.seek(21)
        first = file.read(1)[0]
        file.seek(21)
        file.write(struct.pack(">BI", first & 0xF0 | samples >> 32, samples & 0xFFFFFFFF))
    assert "hours" in refused(path)


@pytest.mark.parametrize("place", ["wav.ark:4", "/dump/raw/data.3.ark:123456", "file.wav.ark:0"])
def test_a_place_in_an_archive_is_named_with_the_remedy(place):
    with pytest.raises(InvalidEntry, match=f"within an archive is not read: {place}; copy it to a file"):
        inspect_audio(place)


def test_a_file_that_is_called_like_a_place_in_an_archive_is_read(sound, tmp_path):
    os.rename(sound("a.wav"), tmp_path / "wav.ark:4")
    assert inspect_audio(str(tmp_path / "wav.ark:4")).samples == len(SAMPLES)


def test_a_pipe_or_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, "/dev/zero"):
        assert "not a regular file" in refused(path)
    for path in (tmp_path / "none.wav", tmp_path / ("x" * 300), f"{tmp_path}/a\0b.wav"):
        assert "audio" in refused(path)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_headers_are_refused_or_read_and_never_raise_anything_else(tmp_path, sound, seed):
    draw = np.random.default_rng(seed)
    path = sound(f"a.{['wav', 'flac', 'ogg', 'au', 'aiff'][seed % 5]}")
    content = np.fromfile(path, np.uint8)
    content[draw.integers(64, size=4)] = draw.integers(256, size=4)
    content.tofile(path)
    try:
        inspect_audio(path)
    except InvalidEntry as problem:
        assert path in str(problem)


def test_a_command_runs_only_if_it_is_allowed(tmp_path, sound, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"touch RAN; cat {sound('a.wav')} |"
    assert "--allow-commands" in refused(command)
    assert not (tmp_path / "RAN").exists()
    allow_commands()
    try:
        assert inspect_audio(command) == AudioInfo(16000, 16000, 1)
    finally:
        allow_commands(False)
    assert (tmp_path / "RAN").exists()
