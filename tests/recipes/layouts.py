"""The tiny corpus of tests/tiny.py in every layout that `asrtool new` reads."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import soundfile
from lhotse import CutSet

from asrtool.data.lhotse_sets import open_cuts
from tests.tiny import make_corpus


class TinyCorpus:
    """Audio files with their texts and speakers."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.manifest = make_corpus(folder)
        self.rows = []
        for cut in open_cuts(self.manifest):
            supervision = cut.supervisions[0]
            self.rows.append((Path(cut.recording.sources[0].source), supervision.text, supervision.speaker))


def table(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes a table with column names that nobody knows."""
    with open(folder / "Liste.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Datei", "Satz", "Wer"])
        writer.writerows(corpus.rows)
    return folder / "Liste.csv"


def bar_table(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes metadata.csv without a header, as of LJSpeech, and a folder of audio."""
    lines = [f"{audio.stem}|{text.capitalize()}!\n" for audio, text, _ in corpus.rows]
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    _copy(corpus, folder / "wavs")
    return folder


def kaldi(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes Kaldi data folders train and test, whose audio paths start in the folder above them."""
    _copy(corpus, folder / "WAVE")
    for name, rows in (("train", corpus.rows[4:]), ("test", corpus.rows[:4])):
        lines: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for audio, text, speaker in rows:
            lines["wav.scp"].append(f"{audio.stem} WAVE/{audio.name}\n")
            lines["text"].append(f"{audio.stem} {text.upper()}\n")
            lines["utt2spk"].append(f"{audio.stem} {speaker}\n")
        (folder / name).mkdir()
        for file, content in lines.items():
            (folder / name / file).write_text("".join(content), encoding="utf-8")
    return folder


def texts(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes a text file beside each audio file, in a folder for each speaker; the audio is stereo of 48 kHz."""
    for audio, text, speaker in corpus.rows:
        samples, _ = soundfile.read(audio, dtype="float32")
        path = folder / speaker / f"{audio.stem}.wav"
        path.parent.mkdir(exist_ok=True)
        stereo = samples.repeat(3)[:, None] * [0.0001, 1.0]  # (n, 2); the first channel is nearly silent
        soundfile.write(path, stereo, 48000)
        path.with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


def names(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes audio of 8 kHz that is named TEXT-WITH-DASHES_SPEAKER_NUMBER."""
    for number, (audio, text, speaker) in enumerate(corpus.rows):
        samples, _ = soundfile.read(audio, dtype="float32")
        soundfile.write(folder / f"{text.replace(' ', '-')}_{speaker}_{number}.wav", samples[::2], 8000)
    return folder


def nemo(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes a manifest of NeMo."""
    lines = [
        json.dumps({"audio_filepath": str(audio), "text": text, "duration": soundfile.info(audio).duration})
        for audio, text, _ in corpus.rows
    ]
    (folder / "manifest.json").write_text("\n".join(lines), encoding="utf-8")
    return folder / "manifest.json"


def audiofolder(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes Hugging Face's layout with train and test."""
    for name, rows in (("train", corpus.rows[4:]), ("test", corpus.rows[:4])):
        (folder / name).mkdir()
        with open(folder / name / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "transcription"])
            for audio, text, _ in rows:
                shutil.copy(audio, folder / name)
                writer.writerow([audio.name, text])
    return folder


def lhotse_cuts(corpus: TinyCorpus, folder: Path) -> Path:
    """Returns the manifest of cuts."""
    return corpus.manifest


def lhotse_parts(corpus: TinyCorpus, folder: Path) -> Path:
    """Writes recordings and supervisions of two training parts and a test part, as lhotse's recipes do."""
    cuts = list(open_cuts(corpus.manifest))
    for name, part in (("train-a", cuts[4:12]), ("train-b", cuts[12:]), ("test", cuts[:4])):
        recordings, supervisions, _ = CutSet.from_cuts(part).decompose(folder)
        for kind, manifest in (("recordings", recordings), ("supervisions", supervisions)):
            manifest.to_file(folder / f"tones_{kind}_{name}.jsonl.gz")
    for path in (*folder.glob("recordings.jsonl*"), *folder.glob("supervisions.jsonl*")):
        path.unlink()  # what `decompose` writes itself
    return folder


def _copy(corpus: TinyCorpus, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for audio, _, _ in corpus.rows:
        shutil.copy(audio, folder)


Layout = Callable[[TinyCorpus, Path], Path]
