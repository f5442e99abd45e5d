"""Faults that tests plant in the corpus of tests/doctor/corpus.py. Each function changes one utterance."""

import io
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

from tests.data.voice import RATE, vowels
from tests.doctor.corpus import NOISE, Item

Plant = Callable[[Item], Any]


def missing_file(item: Item) -> None:
    item.recording["sources"][0]["source"] = "/nowhere/audio.wav"


def command(item: Item) -> None:
    item.recording["sources"][0].update(type="command", source="cat audio.wav")


def no_audio_file(item: Item) -> None:
    item.file_bytes = b"<html>404 not found</html>" * 100


def file_bytes(item: Item, format: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, item.samples, item.rate, format=format, subtype="PCM_16")
    return buffer.getvalue()


def truncated(item: Item) -> None:
    content = file_bytes(item, "WAV")
    item.file_bytes = content[: len(content) // 2]


def damaged(item: Item) -> None:
    content = bytearray(file_bytes(item, "FLAC"))
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    item.name, item.file_bytes = f"{item.id}.flac", bytes(content)


def other_duration(item: Item) -> None:
    item.recording["num_samples"] += 8000
    item.recording["duration"] += 0.5


def other_channels(item: Item) -> None:
    item.samples = np.stack([item.samples, item.samples], 1)


def beyond_recording(item: Item) -> None:
    item.cut["start"] = 0.5


def other_rate(item: Item) -> None:
    item.set_samples(resample_poly(item.samples, 1, 2).astype(np.float32), RATE // 2)


def not_finite(item: Item) -> None:
    item.subtype = "FLOAT"
    item.samples[1000:1010] = np.nan


def integers_as_floats(item: Item) -> None:
    item.subtype = "FLOAT"
    item.samples = item.samples * 32768


def silent(item: Item) -> None:
    item.samples = np.zeros_like(item.samples)


def dead_channel(item: Item) -> None:
    item.set_samples(np.stack([np.zeros_like(item.samples), item.samples], 1))


def opposite_channels(item: Item) -> None:
    item.set_samples(np.stack([item.samples, -item.samples], 1))


def noise_only(item: Item) -> None:
    item.samples = 0.05 * np.random.default_rng(1).normal(size=len(item.samples)).astype(np.float32)


def mostly_silent(item: Item) -> None:
    quiet = 1e-4 * np.random.default_rng(1).normal(size=25 * RATE).astype(np.float32)
    item.set_samples(np.concatenate([item.samples, quiet]))


def clipped(item: Item) -> None:
    item.samples = np.clip(10 * item.samples, -1, 1)


def clipped_and_attenuated(item: Item) -> None:
    item.samples = 0.4 * np.clip(8 * item.samples, -1, 1)


def offset(item: Item) -> None:
    item.samples = item.samples + 0.05


def low_level(item: Item) -> None:
    item.samples = item.samples * 10 ** (-40 / 20)


def upsampled(item: Item) -> None:
    """A voice with energy at all frequencies, of which resampling removed those above 4 kHz."""
    bright = item.samples + np.abs(item.samples) * np.random.default_rng(1).normal(size=len(item.samples))
    narrow = resample_poly(0.3 * bright, 1, 2)  # none of the samples is clipped
    item.samples = resample_poly(narrow, 2, 1)[: len(item.samples)].astype(np.float32)


def dropouts(item: Item) -> None:
    loud = 500 + int(np.argmax(np.convolve(item.samples[500:-2000] ** 2, np.ones(1000), "valid")))
    begin = loud // 160 * 160 + 160
    item.samples[begin : begin + 480] = 0.0


def long_dropout(item: Item) -> None:
    """Loses one second in the middle, whose begin or end may be in a pause."""
    middle = len(item.samples) // 2
    item.samples[middle - RATE // 2 : middle + RATE // 2] = 0.0


def silent_ends(item: Item) -> None:
    """Adds a second of digital silence at both ends, as an editor of audio does."""
    item.set_samples(np.pad(item.samples, RATE))


def too_short(item: Item) -> None:
    item.set_samples(item.samples[8000:9120])
    item.text = "a"


def too_long(item: Item) -> None:
    samples = vowels(np.random.default_rng(5), 40.0) + NOISE * np.random.default_rng(6).normal(size=40 * RATE)
    item.set_samples(samples.astype(np.float32))
    item.text = "abcdefg hijklmno " * 20


def infeasible(item: Item) -> None:
    item.text = "abab" + " bbbbbbbbbbbbbbb" * 4


def too_many_characters(item: Item) -> None:
    item.text = " ".join([item.text.replace(" ", "")] * 3)


def too_few_characters(item: Item) -> None:
    item.text = "ab"


def empty(item: Item) -> None:
    item.text = ""


def unknown_character(item: Item) -> None:
    item.text = item.text[:-1] + "ß"


def control_character(item: Item) -> None:
    item.text = item.text[:3] + "\x07" + item.text[3:]


def invisible(item: Item) -> None:
    item.text = item.text[:3] + "\u200b" + item.text[3:]


def decomposed(item: Item) -> None:
    item.text = unicodedata.normalize("NFD", item.text[:-1] + "é")


def wrong_encoding(item: Item) -> None:
    item.text = (item.text[:-1] + "é").encode("utf-8").decode("latin-1")


def markup(item: Item) -> None:
    item.text = item.text + " [noise]"


def unknown_word(item: Item) -> None:
    item.text = item.text + " <unk>"


def digits(item: Item) -> None:
    item.text = item.text + " 12"


def mixed_scripts(item: Item) -> None:
    item.text = item.text + " п\u0430p"  # the last letter is Latin


def upper_case(item: Item) -> None:
    item.text = item.text.upper()


def repeated_words(item: Item) -> None:
    item.text = " ".join(["abc"] * 7)


def no_speaker(item: Item) -> None:
    del item.supervision["speaker"]


def similar_speaker(item: Item) -> None:
    item.supervision["speaker"] = item.supervision["speaker"].upper()


def two_supervisions(item: Item) -> None:
    item.cut["supervisions"].append(dict(item.supervision))


def transcript_beyond_cut(item: Item) -> None:
    item.supervision["duration"] += 1.0


def no_features(item: Item) -> None:
    features = {"type": "fbank", "num_frames": 100, "num_features": 80, "frame_shift": 0.01, "sampling_rate": RATE}
    features |= {"start": 0.0, "duration": 1.0, "storage_type": "numpy_files", "storage_path": "/nowhere"}
    item.cut["features"] = {**features, "storage_key": "a.npy", "channels": 0}


PLANTED: dict[str, tuple[Plant, set[str]]] = {  # name -> how it is planted, the kinds that must be found
    "missing file": (missing_file, {"missing-file"}),
    "command": (command, {"command-or-address"}),
    "no audio": (no_audio_file, {"unreadable-audio"}),
    "truncated": (truncated, {"truncated", "manifest-differs"}),
    "damaged": (damaged, {"damaged-audio"}),
    "other duration": (other_duration, {"manifest-differs"}),
    "other channels": (other_channels, {"manifest-differs"}),
    "beyond its recording": (beyond_recording, {"beyond-recording"}),
    "other rate": (other_rate, {"wrong-rate"}),
    "NaN": (not_finite, {"not-finite"}),
    "integers as floats": (integers_as_floats, {"beyond-full-scale"}),
    "silent": (silent, {"silent"}),
    "dead channel": (dead_channel, {"dead-channel"}),
    "opposite channels": (opposite_channels, {"opposite-channels"}),
    "noise": (noise_only, {"noise-only"}),
    "mostly silent": (mostly_silent, {"mostly-silent"}),
    "clipped": (clipped, {"clipped"}),
    "clipped, then attenuated": (clipped_and_attenuated, {"clipped"}),
    "offset": (offset, {"dc-offset"}),
    "low level": (low_level, {"low-level"}),
    "upsampled": (upsampled, {"band-limited"}),
    "dropouts": (dropouts, {"dropouts"}),
    "long dropout": (long_dropout, {"dropouts"}),
    "silent ends": (silent_ends, set()),
    "too short": (too_short, {"too-short"}),
    "too long": (too_long, {"too-long"}),
    "infeasible": (infeasible, {"ctc-infeasible", "too-many-characters"}),
    "too many characters": (too_many_characters, {"too-many-characters"}),
    "too few characters": (too_few_characters, {"too-few-characters"}),
    "empty": (empty, {"no-transcript"}),
    "unknown character": (unknown_character, {"unknown-units"}),
    "control character": (control_character, {"control-characters", "unknown-units"}),
    "invisible character": (invisible, {"invisible-characters"}),
    "not NFC": (decomposed, {"not-composed", "unknown-units"}),
    "wrong encoding": (wrong_encoding, {"wrong-encoding", "unknown-units", "case-differs"}),
    "markup": (markup, {"markup", "unknown-units"}),
    "unknown word": (unknown_word, {"markup", "unknown-units"}),
    "digits": (digits, {"digits", "unknown-units"}),
    "mixed scripts": (mixed_scripts, {"mixed-scripts", "unknown-units"}),
    "upper case": (upper_case, {"case-differs", "unknown-units"}),
    "repeated words": (repeated_words, {"repeated-words"}),
    "no speaker": (no_speaker, {"some-without-speaker"}),
    "two supervisions": (two_supervisions, {"several-supervisions"}),
    "transcript beyond its cut": (transcript_beyond_cut, {"transcript-beyond-cut"}),
    "no features": (no_features, {"missing-features"}),
}
