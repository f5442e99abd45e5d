"""Log-mel features: seconds of audio per second on one core, computed, stored and loaded.

extract     `asrtool.data.features.extractor` on samples in memory. Baseline: kaldi-native-fbank, the C++ of Kaldi's
            features, with equal settings (80 bins, 25 ms Povey windows every 10 ms, no dither, snip_edges off, 20 Hz
            to 400 Hz below Nyquist) on the same arrays. Its interface returns frame by frame, so fetching
            the frames is counted.
read        `compute_features`: a cut in, features out, so reading FLAC is counted. Baseline: soundfile and
            kaldi-native-fbank, with the least code for it.
store       `store_features`: a manifest in, lilcom archives and a manifest out, one process. Baseline: lhotse's own
            `compute_and_store_features` with the same extractor and the same lilcom precision.
load        `load_features` on the stored features, and computing them again. Baseline: the same features as plain .npy
            files, the fastest way to load, which shows the cost of compression.

One thread everywhere. It also prints the difference between the two extractors (natural logarithms), the error that
lilcom's rounding adds, and the stored bytes.
"""

import sys
import tempfile
from itertools import count
from pathlib import Path

import corpus
import numpy as np
import soundfile
import torch
from common import Report, Run, parse, parser
from lhotse import CutSet
from lhotse.features.io import LilcomChunkyWriter

from asrtool.data.feature_store import TICK_POWER, store_features
from asrtool.data.features import compute_features, extractor, load_features

try:
    import kaldi_native_fbank
except ImportError:
    sys.exit("features.py needs kaldi-native-fbank: pip install kaldi-native-fbank")

BINS = 80


class FineLilcom(LilcomChunkyWriter):
    """lhotse's writer with asrtool's precision, which lhotse has no option for."""

    def __init__(self, storage_path, mode: str = "wb"):
        super().__init__(storage_path, TICK_POWER, mode)


def kaldi_options() -> kaldi_native_fbank.FbankOptions:
    """Returns the settings of `asrtool.data.features.extractor` for kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = corpus.RATE
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = BINS
    options.mel_opts.high_freq = -400
    return options


def kaldi_fbank(options: kaldi_native_fbank.FbankOptions, samples: np.ndarray) -> np.ndarray:
    """(samples,) to (frames, bins) by kaldi-native-fbank."""
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(corpus.RATE, samples.tolist())  # an array works as well, but takes 1.5 times as long
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


def measure(report: Report, path: Path, folder: Path) -> None:
    """Measures all cases on the manifest `path`."""
    cuts = list(CutSet.from_file(path))
    seconds = sum(cut.duration for cut in cuts)
    arrays = [cut.load_audio() for cut in cuts]
    _extract(report, arrays, seconds)
    _read(report, cuts, seconds)
    _store(report, path, folder, seconds)
    _load(report, cuts, folder, seconds)


def _extract(report: Report, arrays: list[np.ndarray], seconds: float) -> None:
    ours, options = extractor(corpus.RATE, BINS), kaldi_options()

    def extract():
        return [ours.extract(torch.from_numpy(samples), corpus.RATE) for samples in arrays]

    def kaldi():
        return [kaldi_fbank(options, samples[0]) for samples in arrays]

    report.compare("extract", [Run("asrtool", extract, seconds), Run("kaldi-native-fbank", kaldi, seconds)])
    differences = np.concatenate([np.abs(a.numpy() - b) for a, b in zip(extract(), kaldi(), strict=True)])
    report.fact("largest difference from kaldi-native-fbank", float(differences.max()), "of a natural logarithm")
    report.fact("mean difference from kaldi-native-fbank", float(differences.mean()))


def _read(report: Report, cuts: list, seconds: float) -> None:
    options = kaldi_options()

    def kaldi(cut):
        start, length = round(cut.start * corpus.RATE), cut.num_samples
        samples, _ = soundfile.read(cut.recording.sources[0].source, length, start, dtype="float32")
        return kaldi_fbank(options, samples)

    runs = [
        Run("asrtool", lambda: [compute_features(cut, BINS) for cut in cuts], seconds),
        Run("soundfile, knf", lambda: [kaldi(cut) for cut in cuts], seconds),
    ]
    report.compare("read", runs)


def _store(report: Report, path: Path, folder: Path, seconds: float) -> None:
    numbers = count()  # each turn writes into its own folder, so that no turn finds the files of another

    def ours():
        store_features(path, folder / f"asrtool{next(numbers)}" / "train.jsonl.gz", BINS)

    def lhotse():
        out = folder / f"lhotse{next(numbers)}"
        out.mkdir()
        made = CutSet.from_file(path).compute_and_store_features(
            extractor(corpus.RATE, BINS), out / "train", storage_type=FineLilcom, progress_bar=False
        )
        made.to_file(out / "train.jsonl.gz")

    report.compare("store", [Run("asrtool", ours, seconds), Run("lhotse", lhotse, seconds)])


def _load(report: Report, cuts: list, folder: Path, seconds: float) -> None:
    stored = list(CutSet.from_file(next(folder.glob("asrtool*/train.jsonl.gz"))))
    files = [folder / f"{number}.npy" for number in range(len(cuts))]
    for cut, file in zip(cuts, files, strict=True):
        np.save(file, compute_features(cut, BINS).numpy())
    runs = [
        Run("asrtool, stored", lambda: [load_features(cut, "stored", BINS) for cut in stored], seconds),
        Run("asrtool, on the fly", lambda: [load_features(cut, "on_the_fly", BINS) for cut in cuts], seconds),
        Run("numpy", lambda: [np.load(file) for file in files], seconds),
    ]
    report.compare("load", runs)
    rounding = max(
        np.abs(load_features(a, "stored", BINS).numpy() - np.load(b)).max() for a, b in zip(stored, files, strict=True)
    )
    report.fact(
        "largest difference by lilcom's rounding", float(rounding), f"half a tick is {2 ** (TICK_POWER - 1):.3g}"
    )
    archives = {cut.features.storage_path for cut in stored}
    size, plain = sum(Path(path).stat().st_size for path in archives), sum(file.stat().st_size for file in files)
    report.fact("bytes a second of audio", size / seconds, f"plain float32: {plain / seconds:,.0f}")


def main() -> None:
    """Measure and report."""
    command_line = parser(__doc__, repeats=5)
    corpus.add_options(command_line, minutes=5)
    arguments = parse(command_line, minutes=0.1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = Report("features", arguments, "audio s")
        measure(report, corpus.manifest(arguments, Path(folder)), Path(folder))
        report.finish()


if __name__ == "__main__":
    main()
