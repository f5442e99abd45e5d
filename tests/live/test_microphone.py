"""`asrtool stream --microphone`, with a stand-in for sounddevice that plays a file; queue and threads are real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.live import microphone as microphone_module
from tests.tiny import tone

STAND_INS = Path(__file__).parent / "stand_ins"
RATE = 44100
SECONDS = 4.8


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A recording of 4.8 s at 44.1 kHz."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    frequencies = (300, 2500, 700, 3300, 1500, 500, 2900, 900) * 2
    sounds = [tone(frequency, 0.3, seed, RATE) for seed, frequency in enumerate(frequencies)]
    soundfile.write(path, np.concatenate(sounds), RATE)
    return path


@pytest.fixture
def record(stream_experiment, asr, monkeypatch, talk):
    """record("--json", then="unplug") -> exit status, stdout, stderr of a recording from the stand-in"""
    monkeypatch.syspath_prepend(STAND_INS)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)

    def run(*options, **settings):
        monkeypatch.setenv("STAND_IN_MICROPHONE", json.dumps({"wav": str(talk), "then": "interrupt"} | settings))
        return asr("stream", stream_experiment, "--microphone", "--endpoint", "length=1", *options)

    yield run
    sys.modules.pop("sounddevice", None)


def finals(out):
    return [row for row in map(json.loads, out.splitlines()) if row["type"] == "final"]


def without_clocks(rows):
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]


def test_the_results_are_those_of_the_same_audio_in_a_file(record, asr, stream_experiment, talk):
    status, out, err = record("--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and "listening to 'USB microphone' at 44100 Hz" in err
    expected = asr("stream", stream_experiment, "--wav", talk, "--endpoint", "length=1", "--json")[1]
    assert len(finals(out)) > 1 and without_clocks(finals(out)) == without_clocks(finals(expected))
    assert rows[-1]["type"] == "end" and rows[-1]["audio_seconds"] == SECONDS  # up to Ctrl-C, all of it


def test_a_device_is_chosen_by_its_number_or_name(record):
    for device in ("2", "camera"):
        status, out, err = record("--input-device", device)
        assert status == 0 and "listening to 'USB camera'" in err and out


@pytest.mark.parametrize(
    "device, complaint",
    [
        ("0", "Not an input device: 'Speaker'"),
        ("7", "Error querying device 7"),
        ("radio", "No input device matching 'radio'"),
        ("usb", "Multiple input devices found for 'usb':; [1] USB microphone; [2] USB camera"),
        ("9" * 30, "--input-device 999"),
    ],
)
def test_a_device_that_does_not_record_is_refused(record, device, complaint):
    status, out, err = record("--input-device", device)
    assert (status, out) == (2, "") and complaint in err and "--list-devices" in err and err.count("\n") == 1


def test_a_device_that_cannot_be_opened_is_named(record):
    status, out, err = record(refuse="Device unavailable [PaErrorCode -9985]")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "the microphone 'USB microphone' cannot record at 44100 Hz: Device unavailable" in err


def test_the_devices_are_listed_without_a_model(record, asr):
    record()
    status, out, _ = asr("stream", "--list-devices")
    lines = out.splitlines()
    assert status == 0 and [line[:6].split() for line in lines] == [["*", "1"], ["2"]]
    assert "USB camera, Stand-in (2 channels, 44100 Hz)" in lines[1]


def test_an_unplugged_microphone_is_an_error_after_the_results(record):
    expected = finals(record("--json")[1])
    status, out, err = record("--json", then="unplug")
    assert status == 2 and without_clocks(finals(out)) == without_clocks(expected)
    assert "the microphone 'USB microphone' stopped after 4.8 s; is it unplugged?" in err and "Traceback" not in err


def test_a_microphone_without_further_audio_is_an_error(record, monkeypatch):
    monkeypatch.setattr(microphone_module, "DEAD_SECONDS", 0.3)
    status, out, err = record("--json", then="nothing")
    assert status == 2 and finals(out) and "stopped after 4.8 s; is it unplugged?" in err


def test_lost_audio_is_reported(record):
    status, _, err = record(overflows=[3, 5])
    assert status == 0 and "WARNING: input overflow near 0.0 s" in err and "lost audio 2 times in all" in err


def test_recognition_that_is_too_slow_is_reported_once_and_loses_nothing(record, monkeypatch):
    monkeypatch.setattr(microphone_module, "BEHIND_SECONDS", 0.5)
    status, out, err = record("--json", then="unplug")  # all audio arrives at once
    assert status == 2 and json.loads(out.splitlines()[-1])["audio_seconds"] == SECONDS
    assert err.count("s behind the microphone; results come late, but no audio is lost") == 1


def test_recording_stops_where_recognition_cannot_catch_up(record, monkeypatch):
    monkeypatch.setattr(microphone_module, "MAX_BEHIND_SECONDS", 1.0)
    status, out, err = record("--json", then="silence")
    assert status == 2 and "since recognition was more than 1 s behind the microphone; try --method greedy" in err
    assert json.loads(out.splitlines()[-1])["audio_seconds"] >= 1.0 and finals(out)


def test_a_muted_microphone_is_reported(record, tmp_path):
    soundfile.write(tmp_path / "muted.wav", np.zeros(4 * RATE), RATE)
    status, _, err = record(wav=str(tmp_path / "muted.wav"))
    assert status == 0 and err.count("gives nothing but silence: is it muted") == 1


def microphone_command(experiment, folder, talk, then):
    """Runs the command in a process that imports sounddevice from `folder`."""
    paths = [str(folder), str(Path(__file__).parents[2])]
    settings = json.dumps({"wav": str(talk), "then": then})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "STAND_IN_MICROPHONE": settings}
    command = [sys.executable, "-m", "asrtool", "stream", experiment, "--microphone"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.slow  # a process of its own
def test_sigterm_ends_a_recording_as_ctrl_c_does_with_its_own_status(stream_experiment, talk):
    done = microphone_command(stream_experiment, STAND_INS, talk, "terminate")
    assert done.returncode == 143 and done.stderr.endswith("asrtool: error: terminated\n")
    assert float(done.stdout.splitlines()[-1].split()[1]) == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize(
    "error, complaint",
    [
        ("ModuleNotFoundError('sounddevice')", "pip install 'asrtool[microphone]'"),
        ("OSError('PortAudio library not found')", "(PortAudio library not found); install it, e.g. apt install"),
    ],
)
def test_what_is_missing_is_named(asr, stream_experiment, tmp_path, monkeypatch, error, complaint):
    (tmp_path / "sounddevice.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    for options in ([stream_experiment, "--microphone"], ["--list-devices"]):
        status, out, err = asr("stream", *options)
        assert (status, out) == (2, "") and complaint in err and err.count("\n") == 1


def test_a_machine_without_devices_says_what_else_there_is(record, asr, monkeypatch):
    record()
    monkeypatch.setattr(sys.modules["sounddevice"], "DEVICES", [])
    for options in (["EXP", "--microphone"], ["--list-devices"]):
        status, out, err = asr("stream", *options)
        assert (status, out) == (2, "") and "no input device" in err and "--pcm" in err and err.count("\n") == 1
