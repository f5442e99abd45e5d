"""`asrtool align` and `asrtool segment` of a recording with its text, by a model that tells four tones apart."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from asrtool import experiment as experiment_module
from asrtool.data.features import features_of_samples
from asrtool.decoding.recording_log_probs import recording_log_probs
from asrtool.experiment import open_experiment
from asrtool.training.train import train
from tests.tiny import RATE, WORDS, make_experiment, tone

SENTENCES = ["one two three", "four one four two", "three one", "two four three one", "one three", "four two three"]
NUM_BINS = 20


class ToneModel(torch.nn.Module):
    """Log-probs of the four words and the blank from the strongest bin of every fourth frame."""

    def __init__(self, symbols):
        super().__init__()
        self.subsampling = SimpleNamespace(factor=4)
        self.unit_of = {}  # by the strongest bin
        for word, hertz in WORDS.items():
            strongest = features_of_samples(tone(hertz, 0.5), RATE, NUM_BINS).mean(0).argmax()
            self.unit_of[int(strongest)] = symbols.index(word)

    def forward(self, x, x_lens):
        frames = x[:, ::4]  # (N, T', F)
        strongest = frames.argmax(dim=-1)  # of white noise, one of the highest bins, which are the widest
        unit = torch.tensor([[self.unit_of.get(int(place), 0) for place in row] for row in strongest])
        probs = torch.full((*unit.shape, 5), 0.0001)
        probs.scatter_(2, unit[..., None], 0.9996)
        return probs.log(), (x_lens + 3) // 4


@pytest.fixture
def system(tiny_config, tokenizer_file, tmp_path, monkeypatch):
    """The folder of an experiment; commands open it with a ToneModel."""
    folder = make_experiment(tmp_path / "exp", tiny_config(), tokenizer_file)
    opened = open_experiment(folder, device="cpu")
    opened.model = ToneModel(opened.tokenizer.symbols)
    monkeypatch.setattr(experiment_module, "open_experiment", lambda *_: opened)
    return folder


def write_recording(path, sentences, pause=0.6, word_seconds=0.4, rate=RATE):
    """Writes tones for the words of the sentences; returns (word, start, end) of each, in seconds."""
    draw = np.random.default_rng(1)

    def silence(seconds):
        return draw.normal(0, 0.003, round(seconds * rate)).astype(np.float32)

    pieces, words = [silence(0.5)], []
    for sentence in sentences:
        for word in sentence.split():
            start = sum(map(len, pieces)) / rate
            pieces += [tone(WORDS[word], word_seconds, len(pieces), rate), silence(0.12)]
            words.append((word, start, start + word_seconds))
        pieces.append(silence(pause))
    soundfile.write(path, np.concatenate(pieces), rate)
    return words


def align(asr, system, audio, text, *options):
    """Runs `asrtool align`; returns what it printed and its JSON file."""
    audio.with_suffix(".txt").write_text(text, encoding="utf-8")
    status, out, err = asr("align", system, audio, audio.with_suffix(".txt"), *options)
    assert status == 0, err
    return out, json.loads(audio.with_name(f"{audio.stem}.aligned.json").read_text())


def test_words_have_their_times_in_all_outputs(asr, system, tmp_path):
    spoken = write_recording(tmp_path / "talk.wav", SENTENCES * 8)  # about 90 s: several windows of the model
    text = "\n".join(sentence.title() + "." for sentence in SENTENCES * 8)
    out, result = align(asr, system, tmp_path / "talk.wav", text)
    assert f"{len(spoken)} of {len(spoken)} words aligned" in out
    assert [word["text"] for word in result["words"]] == [word for word, _, _ in spoken]
    starts = [abs(word["start"] - start) for word, (_, start, _) in zip(result["words"], spoken, strict=True)]
    ends = [abs(word["end"] - end) for word, (_, _, end) in zip(result["words"], spoken, strict=True)]
    assert max(starts) <= 0.15 and max(ends) <= 0.15  # a word keeps up to 0.14 s of the pause around it
    assert all(word["confidence"] > 0.9 for word in result["words"])
    assert result["missing"] == result["extra"] == []
    ctm = (tmp_path / "talk.aligned.ctm").read_text().splitlines()
    assert len(ctm) == len(spoken) and ctm[0].split()[0] == "talk" and ctm[0].split()[4] == "one"
    from praatio import textgrid

    grid = textgrid.openTextgrid(str(tmp_path / "talk.aligned.TextGrid"), includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("words").entries] == [word for word, _, _ in spoken]
    assert len(grid.getTier("lines").entries) == len(SENTENCES) * 8


def test_differences_of_text_and_audio_are_reported(asr, system, tmp_path):
    spoken = write_recording(tmp_path / "talk.wav", SENTENCES * 3)
    lines = SENTENCES * 3
    inserted = "three three two two four four one one three two one four two one three four"
    text = [*lines[:3], inserted, *lines[3:7], *lines[11:]]
    first_word = sum(len(line.split()) for line in lines[:7])
    last_word = sum(len(line.split()) for line in lines[:11])
    out, result = align(asr, system, tmp_path / "talk.wav", "\n".join(text))
    missing = " ".join(part["text"] for part in result["missing"]).split()
    assert abs(len(missing) - len(inserted.split())) <= 2 and "not in the audio" in out
    extra = sum(part["end"] - part["start"] for part in result["extra"])
    assert extra == pytest.approx(spoken[last_word - 1][2] - spoken[first_word][1], rel=0.35)
    assert "not in the text" in out


def test_the_log_probs_of_windows_are_those_of_the_whole(system, tmp_path):
    write_recording(tmp_path / "talk.wav", SENTENCES * 6)
    opened = experiment_module.open_experiment(system)
    found, energy, seconds = recording_log_probs(opened, tmp_path / "talk.wav")
    samples, _ = soundfile.read(tmp_path / "talk.wav", dtype="float32")
    features = features_of_samples(samples, RATE, NUM_BINS)
    whole, _ = opened.model(features[None], torch.tensor([len(features)]))
    assert seconds == pytest.approx(len(samples) / RATE)
    assert found.shape == tuple(whole[0].shape) and energy.shape == (len(features), 1)
    np.testing.assert_allclose(energy, features.mean(dim=1, keepdim=True), atol=1e-3)
    assert (found.argmax(1) == whole[0].numpy().argmax(1)).mean() > 0.99


def aligned(asr, system, audio, *options):
    """Runs `asrtool align` with all sentences; returns status, last line and the names of the files that are there."""
    (audio.parent / "text").write_text("\n".join(SENTENCES))
    status, out, err = asr("align", system, audio, audio.parent / "text", *options)
    return status, (out if status == 0 else err).splitlines()[-1]


@pytest.mark.parametrize("is_edited", [True, False])
def test_what_is_done_is_not_aligned_again_and_what_was_edited_is_kept(asr, system, tmp_path, is_edited):
    write_recording(tmp_path / "talk.wav", SENTENCES)
    assert aligned(asr, system, tmp_path / "talk.wav")[0] == 0
    grid = tmp_path / "talk.aligned.TextGrid"
    written = grid.read_text()
    if is_edited:
        grid.write_text(written + "by hand")
    status, line = aligned(asr, system, tmp_path / "talk.wav")
    assert status == 0 and "done before" in line
    assert grid.read_text() == written + "by hand" * is_edited
    assert aligned(asr, system, tmp_path / "talk.wav", "--overwrite")[0] == 0
    assert grid.read_text() == written


@pytest.mark.parametrize("name", ["talk.aligned.json", "talk.aligned.ctm", "talk.aligned.TextGrid"])
def test_files_of_others_are_not_replaced(asr, system, tmp_path, name):
    write_recording(tmp_path / "talk.wav", SENTENCES)
    (tmp_path / name).write_text("mine")
    status, line = aligned(asr, system, tmp_path / "talk.wav")
    assert status == 2 and f"{name} was not written by asrtool" in line and "--overwrite" in line
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.glob("talk.aligned.*")] == [name]


def test_recordings_of_one_name_do_not_replace_each_others_files(asr, system, tmp_path):
    write_recording(tmp_path / "talk.wav", SENTENCES)
    write_recording(tmp_path / "talk.flac", SENTENCES, pause=0.7)
    assert aligned(asr, system, tmp_path / "talk.wav")[0] == 0
    before = (tmp_path / "talk.aligned.ctm").read_text()
    status, line = aligned(asr, system, tmp_path / "talk.flac")
    assert status == 2 and f"is the output of {tmp_path / 'talk.wav'}" in line
    assert (tmp_path / "talk.aligned.ctm").read_text() == before
    assert aligned(asr, system, tmp_path / "talk.flac", "--output-dir", tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").glob("talk.aligned.*"))) == 3


def test_a_name_without_a_suffix_of_audio_is_whole_in_the_outputs(asr, system, tmp_path):
    for day in ("30", "31"):
        write_recording(tmp_path / "talk.wav", SENTENCES, pause=float(day) / 50)
        (tmp_path / "talk.wav").rename(tmp_path / f"talk.2026-01-{day}")
        assert aligned(asr, system, tmp_path / f"talk.2026-01-{day}", "--format", "ctm")[0] == 0
        assert (tmp_path / f"talk.2026-01-{day}.aligned.ctm").read_text().startswith(f"talk.2026-01-{day} 1 ")


def test_a_name_that_is_not_utf8_is_escaped_in_the_outputs_and_refused_for_a_manifest(asr, system, tmp_path):
    write_recording(tmp_path / "talk.wav", SENTENCES)
    audio = (tmp_path / "talk.wav").rename(tmp_path / os.fsdecode(b"t\xfflk.wav"))
    out, result = align(asr, system, audio, "\n".join(SENTENCES))
    assert result["recording"] == f"{tmp_path}/t\\xfflk.wav" and result["words"]
    assert audio.with_name(f"{audio.stem}.aligned.ctm").read_text().startswith("t\\xfflk 1 ")
    status, _, err = asr("segment", system, audio, audio.with_suffix(".txt"), tmp_path / "o.jsonl.gz")
    assert status == 2 and "rename it" in err and "ffmpeg" not in err


@pytest.mark.parametrize("channel, number", [(None, "1"), (0, "1"), (1, "2")])
def test_outputs_name_the_channel(asr, system, tmp_path, channel, number):
    write_recording(tmp_path / "mono.wav", SENTENCES)
    samples, _ = soundfile.read(tmp_path / "mono.wav")
    soundfile.write(tmp_path / "talk.wav", np.stack([samples, samples], 1), RATE)
    assert aligned(asr, system, tmp_path / "talk.wav", *(() if channel is None else ("--channel", channel)))[0] == 0
    assert {line.split()[1] for line in (tmp_path / "talk.aligned.ctm").read_text().splitlines()} == {number}
    assert json.loads((tmp_path / "talk.aligned.json").read_text())["channel"] == channel


@pytest.mark.parametrize("rate", [8000, 11025, 22050])
def test_the_frames_of_a_recording_last_as_long_as_it(system, tiny_config, tmp_path, rate):
    soundfile.write(tmp_path / "talk.wav", np.random.default_rng(0).normal(0, 0.01, 300 * rate), rate)
    opened = experiment_module.open_experiment(system)
    opened.config = tiny_config(features={"sampling_rate": rate})
    found, _, seconds = recording_log_probs(opened, tmp_path / "talk.wav")
    assert len(found) * opened.frame_seconds == pytest.approx(seconds, abs=opened.frame_seconds)


@pytest.mark.parametrize("rate", [22050, 44100])
def test_other_sampling_rates_are_resampled(asr, system, tmp_path, rate):
    spoken = write_recording(tmp_path / "talk.flac", SENTENCES, rate=rate)
    _, result = align(asr, system, tmp_path / "talk.flac", " ".join(SENTENCES))
    assert len(result["words"]) == len(spoken)


def test_a_manifest_of_utterances_is_cut_at_sentences(asr, system, tmp_path, tiny_config):
    spoken = write_recording(tmp_path / "talk.wav", SENTENCES * 2)
    (tmp_path / "talk.txt").write_text("\n".join(SENTENCES * 2))
    limits = ["--min-seconds", 0.5, "--max-seconds", 6]
    status, out, err = asr(
        "segment", system, tmp_path / "talk.wav", tmp_path / "talk.txt", tmp_path / "o.jsonl.gz", *limits
    )
    assert status == 0, err
    cuts = list(CutSet.from_file(tmp_path / "o.jsonl.gz"))
    assert [cut.supervisions[0].text for cut in cuts] == SENTENCES * 2
    word = 0
    for cut in cuts:
        count = len(cut.supervisions[0].text.split())
        assert cut.start <= spoken[word][1] + 0.05 and cut.end >= spoken[word + count - 1][2] - 0.05
        assert -1 <= cut.custom["alignment_score"] <= 0
        assert len(cut.supervisions[0].alignment["word"]) == count
        word += count
    assert "12 utterances" in out
    config = tiny_config(data={"train": str(tmp_path / "o.jsonl.gz")}, training={"max_steps": 3})
    train(config, tmp_path / "trained", device="cpu")
    assert (tmp_path / "trained/checkpoints").is_dir()


def test_long_sentences_are_divided_and_poor_ones_left_out(asr, system, tmp_path):
    audio, text, out = tmp_path / "talk.wav", tmp_path / "talk.txt", tmp_path / "o.jsonl.gz"
    write_recording(audio, ["one two three four " * 5, "three one"])
    text.write_text("one two three four " * 5 + "\nthree one")
    limits = ["--min-seconds", 1.5, "--max-seconds", 4]
    status, _, err = asr("segment", system, audio, text, out, *limits)
    assert status == 0, err
    cuts = list(CutSet.from_file(out))
    assert all(1.5 <= cut.duration <= 4 for cut in cuts)
    assert " ".join(cut.supervisions[0].text for cut in cuts) == " ".join(text.read_text().split())
    out.unlink()
    status, _, err = asr("segment", system, audio, text, out, *limits, "--min-score", 0.5)
    assert status == 1 and "a score of" in err and "too high?" in err.splitlines()[-1] and not out.exists()


BAD = {
    "another language": ("Das ist ein deutscher Text", "can be written in the system's units"),
    "an empty text": ("", "has no words"),
    "punctuation": ("... !", "can be written in the system's units"),
}


@pytest.mark.parametrize("text, complaint", BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["align", "segment"])
def test_an_unusable_text_is_one_line(asr, system, tmp_path, command, text, complaint):
    write_recording(tmp_path / "talk.wav", SENTENCES)
    (tmp_path / "talk.txt").write_text(text)
    out = [tmp_path / "o.jsonl.gz"] if command == "segment" else []
    status, _, err = asr(command, system, tmp_path / "talk.wav", tmp_path / "talk.txt", *out)
    assert status == 2 and complaint in err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "talk.txt", "talk.wav"]


def test_silence_and_the_text_of_another_recording_are_refused(asr, system, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.random.default_rng(1).normal(0, 0.003, 5 * RATE), RATE)
    write_recording(tmp_path / "talk.wav", ["one one two two " * 10])
    (tmp_path / "talk.txt").write_text("three four four three " * 10)
    status, _, err = asr("align", system, tmp_path / "silent.wav", tmp_path / "talk.txt")
    assert status == 2 and "no speech was recognised" in err.splitlines()[-1]
    status, _, err = asr("align", system, tmp_path / "talk.wav", tmp_path / "talk.txt")
    assert status == 2 and "is it the text of this recording" in err.splitlines()[-1]


def test_options_that_do_not_fit_and_files_that_are_no_audio(asr, system, tmp_path):
    (tmp_path / "a.wav").write_text("no audio")
    (tmp_path / "a.txt").write_text("one")
    for options in (["--channel", "each"], ["--ctm", tmp_path / "x.ctm"], [], ["--channel", "3"]):
        status, _, err = asr("align", system, tmp_path / "a.wav", tmp_path / "a.txt", *options)
        assert status == 2 and "asrtool: error: " in err.splitlines()[-1]
    stereo = np.zeros((RATE, 2), np.float32)
    soundfile.write(tmp_path / "s.wav", stereo, RATE)
    status, _, err = asr("segment", system, tmp_path / "s.wav", tmp_path / "a.txt", tmp_path / "o.jsonl.gz")
    assert status == 2 and "choose one with --channel" in err


def test_a_format_that_training_does_not_read_is_refused_before_the_text_is_read(asr, system, tmp_path, monkeypatch):
    pytest.importorskip("av")
    from tests.data.media import write_media

    write_media(tmp_path / "talk of may.m4a", tone(400, 2.0), RATE)
    monkeypatch.setattr("asrtool.inference.segmentation.read_spoken_text", None)
    status, _, err = asr(
        "segment", system, tmp_path / "talk of may.m4a", tmp_path / "missing.txt", tmp_path / "o.jsonl.gz"
    )
    assert status == 2 and "is of a format that training does not read" in err and "not readable" not in err
    assert f"ffmpeg -i '{tmp_path}/talk of may.m4a' '{tmp_path}/talk of may.flac'" in err
    (tmp_path / "talk of may.m4a").rename(tmp_path / "talk.flac")
    status, _, err = asr("segment", system, tmp_path / "talk.flac", tmp_path / "missing.txt", tmp_path / "o.jsonl.gz")
    assert status == 2 and f"ffmpeg -i {tmp_path}/talk.flac {tmp_path}/talk.converted.flac" in err
    (tmp_path / "no.wav").write_text("no audio")
    status, _, err = asr("segment", system, tmp_path / "no.wav", tmp_path / "missing.txt", tmp_path / "o.jsonl.gz")
    assert status == 2 and "such as wav or flac" in err
