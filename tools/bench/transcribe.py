"""Transcription of a long recording: real-time factor, its parts, start to first output, memory, and sherpa-onnx.

    python3 tools/bench/transcribe.py --system exp/mine --audio talk.flac --graph data/lang/graph --threads 2

transcribe    from the file to words: `asrtool.Model.transcribe`, for greedy and, with --graph, graph search
parts         the same work in parts, each on all segments of the recording: reading and cutting at pauses; features
              and model, in the same batches; search, times and confidence. Baseline of `transcribe`: the three parts
              one after the other.
sherpa-onnx   its offline recogniser (C++, ONNX Runtime) with the graph of `asrtool export`, greedy, on the same
              segments, in batches of --batch-seconds; compared with asrtool's features, model and search on them. The
              share of words, or of phones, in which both agree is printed.

RTF is the time over the duration of the recording. `start to first output` is from the start of a new Python process
to its first segment, `peak memory` is what this process and its children take for the whole recording. Without
--system, weights are random and the recording is noise, all of which counts as speech: the figures then say
nothing about search.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from common import Report, Run, parse, parser

import asrtool
from asrtool.checkpoint import save_checkpoint
from asrtool.config_file import load_config, save_config
from asrtool.data.audio_blocks import open_recording
from asrtool.data.speech_segments import AudioSegment, segment_recording
from asrtool.deploy.segment_batches import (
    SegmentFrames,
    length_batches,
    segment_frames,
    segment_windows,
    with_next_overlaps,
)
from asrtool.deploy.transcriber import Transcriber
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import BLANK_SYMBOL, SymbolTokenizer, save_tokenizer

CONFIG = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf" / "small" / "transformer_12l.yaml"
OPSET = 18  # of ONNX, the default of asrtool export
# A new process, its arguments: folder, audio, vad, threads, and method options NAME=VALUE. It prints the seconds of
# `time.time()` at the first segment, and its peak memory in megabytes at the end.
CHILD = """
import resource, sys, time
import asrtool
folder, audio, vad, threads, *options = sys.argv[1:]
import torch
torch.set_num_threads(int(threads))
model = asrtool.load(folder, device="cpu", vad=vad, **dict(option.split("=", 1) for option in options))
segments = model.segments(audio)
next(segments, None)
print(time.time(), flush=True)
for _ in segments:
    pass
model.close()
usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(usage) / 1024)
"""


class Parts:
    """The parts of the transcription of one recording by one method, each on the results of the one before."""

    def __init__(self, model: asrtool.Model, transcriber: Transcriber, audio: Path):
        self.model = model
        self.transcriber = transcriber
        self.audio = audio
        self.segments = self.cut()
        self.frames = self.compute()

    def cut(self) -> list[AudioSegment]:
        """Reads the recording, detects its speech, and cuts it."""
        blocks = open_recording(self.audio).blocks(self.transcriber.rate)
        limits = self.transcriber.max_seconds, self.transcriber.detector
        return list(segment_recording(blocks, self.transcriber.rate, *limits))

    def compute(self) -> list[SegmentFrames]:
        """Computes features and log-probs of all segments, in the batches of `Transcriber`."""
        frames: list[SegmentFrames] = []
        for window in segment_windows(with_next_overlaps(self.segments), self.transcriber.rate):
            audio = [followed.segment for followed in window]
            frames += segment_frames(self.model.experiment, audio, self.transcriber.batch_seconds)
        return frames

    def search(self) -> list[str]:
        """Searches the log-probs of all segments; returns all words."""
        results = self.transcriber.search_all(enumerate(self.frames))
        return [word.text for _, result in results for word in result.described.words]

    def all_parts(self) -> None:
        """Does the parts one after the other."""
        self.cut()
        self.compute()
        self.search()


class Sherpa:
    """The offline recogniser of sherpa-onnx with the exported graph of an experiment."""

    def __init__(self, experiment, folder: Path, threads: int, batch_seconds: float):
        import sherpa_onnx

        from asrtool.deploy.export import export

        export(experiment, folder, OPSET)
        features = experiment.config.features
        self.rate = features.sampling_rate
        self.batch_samples = round(batch_seconds * self.rate)
        self.phones = experiment.tokenizer.output_type != "words"
        self.recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
            model=str(folder / "model.onnx"),
            tokens=str(folder / "tokens.txt"),
            num_threads=threads,
            sample_rate=self.rate,
            feature_dim=features.num_bins,
        )

    def words(self, segments: Sequence[AudioSegment]) -> list[str]:
        """Returns the words, or phones, of all segments, in their order."""
        results: list[list[str]] = [[] for _ in segments]
        for indices in length_batches([len(segment.samples) for segment in segments], self.batch_samples):
            streams = [self._stream(segments[index]) for index in indices]
            self.recognizer.decode_streams(streams)
            for index, stream in zip(indices, streams, strict=True):
                results[index] = self._words(stream.result)
        return [word for words in results for word in words]

    def _stream(self, segment: AudioSegment):
        stream = self.recognizer.create_stream()
        stream.accept_waveform(self.rate, segment.samples)
        return stream

    def _words(self, result) -> list[str]:
        if self.phones:
            return list(result.tokens)
        return "".join(result.tokens).replace("\u2581", " ").split()


def random_system(folder: Path, seconds: float, layers: int) -> tuple[Path, Path]:
    """Writes an experiment with random weights, and a recording of noise; returns both."""
    config = load_config(CONFIG, [f"model.layers={layers}", "data.max_seconds=20"])
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, *(f"w{number}" for number in range(1, 500))])
    torch.manual_seed(1)
    model = AcousticModel(config.model, config.features.num_bins, tokenizer.size)
    torch.nn.init.normal_(model.output.weight)  # by default it is so small that blank is the best unit everywhere
    save_config(config, folder / "config.yaml")
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    state = {"model": model.state_dict(), "config": config.model_dump(mode="json")}
    save_checkpoint(folder / "checkpoints" / "averaged.pt", state)
    rate = config.features.sampling_rate
    noise = 0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate))
    soundfile.write(folder / "noise.flac", noise.clip(-1, 1), rate)
    return folder, folder / "noise.flac"


def compare_parts(report: Report, method: str, arguments: argparse.Namespace, given: dict) -> Parts:
    """Compares a whole transcription with its parts; returns the parts."""
    vad, jobs = arguments.vad, arguments.jobs
    model = asrtool.load(arguments.system, device=arguments.device, method=method, vad=vad, jobs=jobs, **given)
    transcriber = model.open_transcriber()
    parts = Parts(model, transcriber, arguments.audio)
    seconds = soundfile.info(arguments.audio).duration
    runs = [
        Run("transcribe", lambda: model.transcribe(arguments.audio), seconds),
        Run("part: read and cut", parts.cut, seconds),
        Run("part: features and model", parts.compute, seconds),
        Run("part: search", parts.search, seconds),
        Run("all parts in turn", parts.all_parts, seconds),
    ]
    report.compare(f"{method}, {seconds:.0f} s", runs, _rtf, method=method)
    report.fact(f"words, {method}", len(model.transcribe(arguments.audio).words))
    return parts


def compare_sherpa(report: Report, parts: Parts, arguments: argparse.Namespace, folder: Path) -> None:
    """Compares greedy search on the segments with sherpa-onnx, and counts the words that differ."""
    import kaldialign

    sherpa = Sherpa(parts.model.experiment, folder, arguments.threads, arguments.batch_seconds)
    seconds = sum(len(segment.samples) for segment in parts.segments) / sherpa.rate

    def recognise() -> list[str]:
        parts.compute()
        return parts.search()

    runs = [
        Run("asrtool", recognise, seconds),
        Run("sherpa-onnx", lambda: sherpa.words(parts.segments), seconds),
    ]
    report.compare(f"greedy on {len(parts.segments)} segments", runs, _rtf)
    words, others = parts.search(), sherpa.words(parts.segments)
    errors = kaldialign.edit_distance(others, words)["total"]
    report.fact("words of sherpa-onnx that asrtool has, in %", 100 * (1 - errors / max(1, len(others))))


def measure_process(report: Report, method: str, arguments: argparse.Namespace, given: dict) -> None:
    """Measures a new process: start to the first segment, and peak memory."""
    options = {"method": method, "checkpoint": arguments.checkpoint, **given}
    command = [sys.executable, "-c", CHILD, arguments.system, arguments.audio, arguments.vad, arguments.threads]
    command += [f"{name}={value}" for name, value in options.items()]
    begin = time.time()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    first, megabytes = map(float, done.stdout.split())
    report.fact(f"start to first output, {method}, s", first - begin)
    report.fact(f"peak memory, {method}, MB", megabytes)


def _rtf(rate: float) -> dict:
    return {"RTF": 1 / rate}


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3, limit=1800.0)
    command_line.add_argument("--system", type=Path, help="experiment folder or pack [default: random weights]")
    command_line.add_argument("--audio", type=Path, help="recording [default: noise, with random weights only]")
    command_line.add_argument("--checkpoint", default="averaged", help="checkpoint [default: %(default)s]")
    command_line.add_argument("--graph", type=Path, help="decoding graph, which adds graph search")
    command_line.add_argument("--decoding-weights", type=Path, help="decoding weights of `asrtool tune` for the graph")
    command_line.add_argument("--vad", default="auto", help="detector of speech [default: %(default)s]")
    command_line.add_argument("--jobs", type=int, default=1, help="search processes [default: %(default)s]")
    command_line.add_argument("--threads", type=int, default=1, help="threads [default: %(default)s]")
    command_line.add_argument(
        "--batch-seconds", type=float, default=100.0, help="audio in a batch [default: %(default)g]"
    )
    command_line.add_argument("--device", default="cpu", help="device of asrtool's model [default: %(default)s]")
    command_line.add_argument("--seconds", type=float, default=120.0, help="length of the noise [default: %(default)g]")
    command_line.add_argument(
        "--layers", type=int, default=12, help="layers of the random model [default: %(default)s]"
    )
    command_line.add_argument("--no-sherpa", action="store_true", help="leave sherpa-onnx out")
    return command_line


def main() -> int:
    """Measures and reports."""
    arguments = parse(options(), seconds=4.0, layers=1)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.system is None:
            arguments.system, arguments.audio = random_system(Path(folder), arguments.seconds, arguments.layers)
            arguments.vad = "none"
        elif arguments.audio is None:
            print("transcribe.py: error: --system needs --audio, a recording", file=sys.stderr)
            return 2
        report = Report("transcribe", arguments, "audio s", arguments.device, extra=["RTF"])
        shared = {"checkpoint": arguments.checkpoint, "batch_seconds": arguments.batch_seconds}
        parts = compare_parts(report, "greedy", arguments, shared)
        measure_process(report, "greedy", arguments, {})
        if not arguments.no_sherpa:
            compare_sherpa(report, parts, arguments, Path(folder) / "export")
        if arguments.graph:
            graph = {"graph": arguments.graph}
            if arguments.decoding_weights:
                graph["decoding_weights"] = arguments.decoding_weights
            compare_parts(report, "graph", arguments, shared | graph)
            measure_process(report, "graph", arguments, graph)
        report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
