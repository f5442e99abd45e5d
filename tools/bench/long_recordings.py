"""Long recordings: utterances of a manifest joined into one file, and recognised, compared with the utterances alone.

    python3 tools/bench/long_recordings.py exp/mine data/dev.jsonl.gz exp/mine/decode/dev/graph --graph data/lang/graph

HYPS is the result of `asrtool decode` for the same set, system and options: each utterance alone, cut by hand. Rows:
the utterances alone (baseline); joined with a pause of --pauses seconds of silence between them; and copies of the
first joined file: 8 kHz, 44.1 kHz stereo, MP3.

WER        of all words, in one alignment with the joined transcripts; `difference` is in absolute points
start ms   median difference between the starts of a word in the joined recording and in its utterance alone
changed    words that are inserted, deleted or substituted, compared with the utterances alone, in percent
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import kaldialign
import numpy as np
import soundfile
import soxr
from common import environment

import asrtool
from asrtool.data.lhotse_sets import open_cuts
from asrtool.inference.results import Transcript
from asrtool.scoring.folder import read_hypotheses
from asrtool.scoring.wer import GAP, align_words, count_word_errors


class TimedWord(NamedTuple):
    """A word, and where it begins, in seconds of the joined recording."""

    text: str
    start: float


class Joined(NamedTuple):
    """Utterances in one recording: samples (n,), transcript, and the words of each utterance recognised alone."""

    samples: np.ndarray
    rate: int
    ref: str
    alone: list[TimedWord]


def join(cuts: Iterable, rows: dict[str, dict], seconds: float, pause: float) -> Joined:
    """Joins utterances, with `pause` seconds of silence between them, until `seconds` are reached or none is left."""
    pieces: list[np.ndarray] = []
    refs, alone, rate, samples = [], [], 0, 0
    for cut in cuts:
        if rate and samples >= seconds * rate:
            break
        rate, row = cut.sampling_rate, rows[cut.id]
        offset = samples / rate
        alone += [TimedWord(word[0], offset + word[1]) for word in row["words"]]
        refs.append(cut.supervisions[0].text)
        pieces += [cut.load_audio()[0], np.zeros(round(pause * rate), np.float32)]
        samples += len(pieces[-2]) + len(pieces[-1])
    return Joined(np.concatenate(pieces), rate, " ".join(refs), alone)


def wer(ref: str, words: Sequence[str]) -> float:
    """Returns the WER in percent."""
    return count_word_errors(align_words(ref, " ".join(words))).rate


def compare(alone: Sequence[TimedWord], joined: Sequence[TimedWord]) -> tuple[float, float]:
    """Returns the share of changed words in percent, and the median difference of the starts of equal words in ms."""
    pairs = kaldialign.align([word.text for word in alone], [word.text for word in joined], GAP)
    ours, theirs = iter(joined), iter(alone)
    differences, changed = [], 0
    for one, other in pairs:
        before = next(theirs) if one != GAP else None
        after = next(ours) if other != GAP else None
        if before and after and before.text == after.text:
            differences.append(abs(after.start - before.start))
        else:
            changed += 1
    return 100 * changed / max(1, len(alone)), 1000 * statistics.median(differences or [0.0])


def copies(joined: Joined, folder: Path) -> dict[str, Path]:
    """Writes copies of a recording: at 8 kHz, at 44.1 kHz in stereo, and as MP3; returns their paths."""
    narrow = soxr.resample(joined.samples, joined.rate, 8000)
    wide = soxr.resample(joined.samples, joined.rate, 44100)
    paths = {"8 kHz": folder / "narrow.wav", "44.1 kHz stereo": folder / "stereo.flac", "MP3": folder / "copy.mp3"}
    soundfile.write(paths["8 kHz"], narrow, 8000)
    soundfile.write(paths["44.1 kHz stereo"], np.stack([wide, 0.5 * wide], axis=1), 44100)
    soundfile.write(paths["MP3"], joined.samples, joined.rate, format="MP3")
    return paths


def show(name: str, joined: Joined, transcript: Transcript, baseline: float, seconds: float) -> None:
    """Prints the row of a joined recording."""
    words = [TimedWord(word.text, word.start) for word in transcript.words]
    rate = wer(joined.ref, [word.text for word in words])
    changed, start = compare(joined.alone, words)
    minutes = len(joined.samples) / joined.rate / 60
    print(
        f"{name:<34} {minutes:7.1f} {len(transcript.segments):8d} {rate:7.2f} {rate - baseline:+10.2f} "
        f"{changed:8.2f} {start:8.1f} {seconds / minutes / 60:8.4f}",
        flush=True,
    )


def main() -> None:
    """Reads the command line, and prints the table."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("model", type=Path, help="experiment or pack")
    command_line.add_argument("cuts", type=Path, nargs="+", help="manifest of the set; several are read in turn")
    command_line.add_argument("hyps", type=Path, help="folder of hypotheses of the utterances alone")
    command_line.add_argument("--more-hyps", type=Path, nargs="*", default=[], help="folders of further manifests")
    command_line.add_argument("--graph", type=Path, help="decoding graph, for an experiment")
    command_line.add_argument("--method", help="method; default the best that the system carries")
    command_line.add_argument("--decoding-weights", type=Path, help="weights of `asrtool tune`, for an experiment")
    command_line.add_argument("--beam", type=float, help="beam of the search, by default the beam of the system")
    command_line.add_argument("--minutes", type=float, nargs="+", default=[10.0], help="durations of joined files")
    command_line.add_argument("--pauses", type=float, nargs="+", default=[0.0, 1.0], help="seconds of silence")
    arguments = command_line.parse_args()
    options = {name: getattr(arguments, name) for name in ("graph", "method", "decoding_weights", "beam")}
    model = asrtool.load(arguments.model, **{name: value for name, value in options.items() if value is not None})
    rows = {
        row["id"]: row
        for hyps in [arguments.hyps, *arguments.more_hyps]
        for row in read_hypotheses(hyps / "hyps.jsonl")
    }
    cuts = [cut for path in arguments.cuts for cut in open_cuts(path)]
    print(environment())
    print(f"{'recording':<34} minutes segments     WER difference  changed start ms      RTF")
    for minutes in arguments.minutes:
        for pause in arguments.pauses:
            joined = join(cuts, rows, 60 * minutes, pause)
            baseline = wer(joined.ref, [word.text for word in joined.alone])
            print(f"{'utterances alone':<34} {'':16} {baseline:7.2f}")
            begin = time.perf_counter()
            transcript = model.transcribe(joined.samples, rate=joined.rate)
            show(f"joined, pauses of {pause:g} s", joined, transcript, baseline, time.perf_counter() - begin)
    joined = join(cuts, rows, 60 * arguments.minutes[0], arguments.pauses[0])
    baseline = wer(joined.ref, [word.text for word in joined.alone])
    with tempfile.TemporaryDirectory() as folder:
        for name, path in copies(joined, Path(folder)).items():
            begin = time.perf_counter()
            transcript = model.transcribe(path)
            show(
                f"pauses of {arguments.pauses[0]:g} s, {name}",
                joined,
                transcript,
                baseline,
                time.perf_counter() - begin,
            )


if __name__ == "__main__":
    main()
