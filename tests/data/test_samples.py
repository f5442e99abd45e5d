"""Audio that is not what its manifest says, or no audio at all, is that cut's problem, by name and in finite time."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Features, MonoCut, Recording

from asrtool.data import features
from asrtool.data.features import compute_features, count_frames, load_features
from asrtool.data.samples import block_reader, load_samples
from asrtool.data.sources import InvalidEntry

BINS = 20


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


@pytest.fixture
def make(tmp_path):
    """make(samples, rate=16000, name="a.wav") -> a cut of a file of these samples."""

    def write(samples, rate=16000, name="a.wav") -> MonoCut:
        soundfile.write(tmp_path / name, samples, rate, "FLOAT" if name.endswith("wav") else None)
        return Recording.from_file(tmp_path / name).to_cut()

    return write


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 32767.0, -1e30])
@pytest.mark.parametrize("at", [0, 8000, 15999])
def test_a_sample_that_cannot_be_audio_is_named_with_its_time(make, value, at):
    samples = noise(16000)
    samples[at] = value
    cut = make(samples)
    for read in (load_samples, lambda cut: block_reader(cut)(0, 16000), lambda cut: compute_features(cut, BINS)):
        with pytest.raises(InvalidEntry, match=f"^{cut.id}: the sample at {at / 16000:.3f} s is "):
            read(cut)


def test_large_samples_that_overflow_in_the_features_are_named(monkeypatch, make):
    cut = make(noise(32000))
    broken = torch.zeros(200, BINS)
    broken[150, 3] = torch.inf
    monkeypatch.setattr(features.extractor(16000, BINS), "extract", lambda *_: broken)
    with pytest.raises(InvalidEntry, match=f"^{cut.id}: its features are not finite at 1.50 s"):
        compute_features(cut, BINS)
    features.extractor.cache_clear()


@pytest.mark.parametrize("change", ["longer", "shorter", "rate"])
@pytest.mark.parametrize("kind", ["plain", "speed", "resampled", "segment"])
def test_a_file_that_differs_from_its_manifest_is_named(make, tmp_path, change, kind):
    cut = make(noise(32000))
    cut = {
        "plain": cut,
        "speed": cut.perturb_speed(1.1),
        "resampled": cut.resample(8000),
        "segment": cut.truncate(offset=0.5, duration=0.5),
    }[kind]
    new = {"longer": (64000, 16000), "shorter": (24000, 16000), "rate": (32000, 8000)}[change]
    soundfile.write(tmp_path / "a.wav", noise(new[0]), new[1])
    with pytest.raises(InvalidEntry, match=rf"^{cut.id}: the manifest says .* the file has .*a\.wav"):
        load_samples(cut)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "gone", "text", "empty"])
def test_a_source_that_is_not_an_audio_file_is_named_without_waiting(make, tmp_path, kind):
    cut, path = make(noise(16000)), tmp_path / "a.wav"
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "gone": lambda: None,
        "text": lambda: path.write_text("x" * 5000),
        "empty": path.touch,
    }[kind]()
    with pytest.raises(InvalidEntry, match=rf"^{cut.id}: cannot read .*a\.wav"):
        load_samples(cut)


def test_the_samples_of_a_cut_are_of_its_channel(tmp_path):
    left, right = noise(16000), noise(16000)[::-1]
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), 16000, "FLOAT")
    recording = Recording.from_file(tmp_path / "stereo.wav")
    for channel, wanted in enumerate((left, right)):
        cut = MonoCut("c", 0.0, 1.0, channel, recording=recording)
        assert np.array_equal(load_samples(cut), wanted)
        assert np.array_equal(block_reader(cut)(4000, 9000), wanted[4000:9000])
    with pytest.raises(InvalidEntry, match="^c: cannot read"):
        load_samples(MonoCut("c", 0.0, 1.0, 2, recording=recording))


def test_a_cut_above_the_limit_is_refused_before_its_file_is_opened(make):
    cut = make(noise(16000))
    os.unlink(cut.recording.sources[0].source)
    with pytest.raises(InvalidEntry, match="minutes long, more than --max-minutes"):
        load_samples(cut, max_seconds=0.5)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("start", [0.0, 0.3217])
@pytest.mark.parametrize("samples", [48000, 48079, 48080, 32161, 32160])
@pytest.mark.parametrize("change", ["none", "speed"])
def test_features_computed_in_blocks_equal_those_of_the_whole(monkeypatch, make, name, start, samples, change):
    whole = make(noise(samples + round(start * 16000)), name=name)
    cut = whole.truncate(offset=start, preserve_id=True) if start else whole
    cut = cut.perturb_speed(0.9) if change == "speed" else cut
    wanted = compute_features(cut, BINS)
    for name in ("MAX_WHOLE_SECONDS", "BLOCK_SECONDS"):
        monkeypatch.setattr(features, name, 0.5)
    found = compute_features(cut, BINS)
    assert len(found) == count_frames(cut.num_samples, 16000)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 79, 100, 139])
def test_audio_of_less_than_a_frame_is_named(make, samples):
    cut = make(noise(samples))
    with pytest.raises(InvalidEntry, match=f"^{cut.id}: shorter than one frame"):
        compute_features(cut, BINS)
    assert len(compute_features(make(noise(140)), BINS)) == 1


def test_a_cut_without_a_recording_is_named():
    with pytest.raises(InvalidEntry, match="^c: no recording"):
        load_samples(MonoCut("c", 0.0, 1.0, 0))
    with pytest.raises(InvalidEntry, match="^c: the manifest has no stored features"):
        load_features(MonoCut("c", 0.0, 1.0, 0), "stored", BINS)


BOMB = """
import sys
from lhotse import Recording
from asrtool.data.features import compute_features
from asrtool.data.sources import InvalidEntry
cut = Recording.from_file(sys.argv[1]).to_cut()
if sys.argv[2] == "part":
    cut = cut.truncate(duration=3500.0)
elif sys.argv[2] == "lie":
    cut.recording.num_samples, cut.recording.duration, cut.duration = 16000, 1.0, 1.0
try:
    print(len(compute_features(cut, 80)))
except InvalidEntry as problem:
    print(problem)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "part", "lie"])
def test_hours_of_silence_in_a_megabyte_take_bounded_memory(tmp_path, kind):
    with soundfile.SoundFile(tmp_path / "silence.flac", "w", 16000, 1) as file:
        for _ in range(6 * 60):
            file.write(np.zeros(60 * 16000, np.int16))
    arguments = [sys.executable, "-c", BOMB, tmp_path / "silence.flac", kind]
    ran = subprocess.run(arguments, capture_output=True, text=True)
    message, peak = ran.stdout.splitlines()
    assert int(peak) < 500, message
    wanted = {"whole": "360.0 minutes long", "part": "350000", "lie": "the file has 21600.000 s"}[kind]
    assert wanted in message, ran.stderr


@pytest.mark.parametrize(
    "transform, message",
    [
        ({"name": "Speed", "kwargs": {"factor": 0}}, "a speed of 0"),
        ({"name": "Speed", "kwargs": {"factor": float("nan")}}, "a speed of nan"),
        ({"name": "Speed", "kwargs": {"factor": "x"}}, "transforms cannot be applied"),
        ({"name": "Speed", "kwargs": {"factor": 1.23457}}, "takes gigabytes at 16000 Hz; 1.2345 does not"),
        ({"name": "Tempo", "kwargs": {"factor": 0}}, "transforms cannot be applied"),
        (
            {"name": "Resample", "kwargs": {"source_sampling_rate": 16000, "target_sampling_rate": 2 * 10**9}},
            "2000000000 Hz",
        ),
    ],
)
def test_an_impossible_or_huge_transform_is_a_problem_of_its_cut(make, transform, message):
    cut = make(noise(16000))
    cut.recording.transforms = [transform]
    with pytest.raises(InvalidEntry, match=message):
        load_samples(cut)


@pytest.mark.parametrize("speed, rate", [(0.9, 16000), (1.1, 8000), (0.95, 44100), (1.2345, 16000), (0.900227, 11025)])
def test_speeds_with_a_small_filter_are_accepted(make, speed, rate):
    assert len(load_samples(make(noise(rate), rate).perturb_speed(speed)))


@pytest.mark.parametrize("key", ["fifo", "/fifo", "sub/../fifo"])
def test_stored_features_in_a_named_pipe_are_refused_without_waiting(make, tmp_path, key):
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "fifo")
    cut = make(noise(16000))
    kind = features.extractor(16000, BINS).name
    stored = {"type": kind, "num_frames": 100, "num_features": BINS, "frame_shift": 0.01, "sampling_rate": 16000}
    where = {"storage_type": "numpy_files", "storage_path": str(tmp_path), "storage_key": key}
    cut.features = Features(**stored, **where, start=0.0, duration=1.0, recording_id=cut.recording.id, channels=0)
    with pytest.raises(InvalidEntry, match="not a regular file"):
        load_features(cut, "stored", BINS)
