"""Transcription of a long recording: real-time factor, its parts, start to first output, memory, and sherpa-onnx.

    python3 tools/bench/transcribe.py --system exp/mine --audio talk.flac --methods greedy,graph --graph data/lang/graph
    python3 tools/bench/transcribe.py --system pack --audio hour.flac --methods greedy,graph --repeats 0

transcribe    from the start of a new Python process to all words, by `asrtool.Model.segments`, for greedy search, for
              graph search, and with --rescore for graph search with rescoring
parts         the same work in parts, each on all segments of the recording: reading and cutting at pauses; features
              and model, in the same batches; search, times and confidence. `sum of the parts` is their share of the
              time of `transcribe`, which starts and opens the system besides.
sherpa-onnx   its offline recogniser (C++, ONNX Runtime) with the graph of `asrtool export`, greedy, on the same
              segments, in batches of --batch-seconds; compared with asrtool's features, model and search on them. The
              share of words, or of phones, in which both agree is printed.

RTF is the time over the duration of the recording. `start to first output` is from the start of the new process to its
first segment, `peak memory` is what this process and its children take for the whole recording, and the CPU seconds,
unlike the others, hardly depend on what else the machine does. The first opening of a large graph fills the user's
cache (`cold`), which the following ones use; --cold measures it with an empty cache. Without
--system, weights are random and the recording is noise, all of which counts as speech: the figures then say
nothing about search.
"""

import argparse
import json
import os
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
from asrtool.inference.segment_batches import (
    SegmentFrames,
    length_batches,
    segment_frames,
    segment_windows,
    with_next_overlaps,
)
from asrtool.inference.transcriber import Transcriber
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import BLANK_SYMBOL, SymbolTokenizer, save_tokenizer

CONFIG = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf" / "small" / "transformer_12l.yaml"
OPSET = 18  # of ONNX, the default of asrtool export
# A new process, its arguments: folder, audio, vad, threads, jobs, and options as JSON. It prints `time.time()` and
# its CPU seconds at the first segment, then the number of words, and its peak memory in megabytes.
CHILD = """
import json, resource, sys, time
import asrtool
folder, audio, vad, threads, jobs, options = sys.argv[1:]
import torch
torch.set_num_threads(int(threads))
model = asrtool.load(folder, device="cpu", vad=vad, jobs=int(jobs), **json.loads(options))
segments = model.segments(audio)
first = next(segments, None)
print(time.time(), time.process_time(), flush=True)
print(sum(len(segment.words) for segment in segments) + (len(first.words) if first else 0))
model.close()
usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(usage) / 1024)
"""


class Parts:
    """The parts of the transcription of one recording by one method, each on the results of the one before."""

    def __init__(self, transcriber: Transcriber, audio: Path):
        self.transcriber = transcriber
        self.audio = audio
        self.segments: list[AudioSegment] = []
        self.frames: list[SegmentFrames] = []
        self.words: list[str] = []

    def cut(self) -> None:
        """Reads the recording, detects its speech, and cuts it."""
        blocks = open_recording(self.audio).blocks(self.transcriber.rate)
        limits = self.transcriber.max_seconds, self.transcriber.detector
        self.segments = list(segment_recording(blocks, self.transcriber.rate, *limits))

    def compute(self) -> None:
        """Computes features and log-probs of all segments, in the batches of `Transcriber`."""
        frames: list[SegmentFrames] = []
        for window in segment_windows(with_next_overlaps(self.segments), self.transcriber.rate):
            audio = [followed.segment for followed in window]
            frames += segment_frames(self.transcriber.experiment, audio, self.transcriber.batch_seconds)
        self.frames = frames

    def search(self) -> None:
        """Searches the log-probs of all segments."""
        results = self.transcriber.search_all(enumerate(self.frames))
        self.words = [word.text for _, result in results for word in result.described.words]


class Sherpa:
    """The offline recogniser of sherpa-onnx with the exported graph of an experiment."""

    def __init__(self, experiment, folder: Path, threads: int, batch_seconds: float):
        import sherpa_onnx

        from asrtool.export.export import export

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
            return [token.strip(" \u2581") for token in result.tokens]
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


def compare_parts(
    report: Report, method: str, arguments: argparse.Namespace, given: dict, done: Parts | None = None
) -> Parts:
    """Compares a new process that transcribes with the parts of its work; returns the parts.

    Of a recording whose segments and log-probs are `done`, only the search is measured.
    """
    vad, jobs = arguments.vad, arguments.jobs
    model = asrtool.load(arguments.system, device=arguments.device, vad=vad, jobs=jobs, **given)
    parts = Parts(model.open_transcriber(), arguments.audio)
    seconds = soundfile.info(arguments.audio).duration
    runs = [
        Run("part: read and cut", parts.cut, seconds),
        Run("part: features and model", parts.compute, seconds),
        Run("part: search", parts.search, seconds),
    ]
    if done:
        parts.segments, parts.frames = done.segments, done.frames
        runs = runs[2:]
    process = NewProcess(arguments, given)
    case = f"{method}, {seconds:.0f} s"
    report.compare(case, [*runs, Run("transcribe", process.transcribe, seconds)], _rtf, method=method)
    model.close()
    process.report(report, method)
    return parts


def report_sum(report: Report, method: str, first_case: str, seconds: float) -> None:
    """Reports the share of the parts in the time of `transcribe`; cutting and the model are in the first case."""
    case = f"{method}, {seconds:.0f} s"
    for kind, key in (("wall", "rate"), ("CPU", "rate_cpu")):
        shared = [report.rate(first_case, key, f"part: {name}") for name in ("read and cut", "features and model")]
        rates = [*shared, report.rate(case, key, "part: search")]
        share = sum(1 / rate for rate in rates) * report.rate(case, key, "transcribe")
        report.fact(f"sum of the parts / transcribe, {method}, {kind} time", share)


class NewProcess:
    """A new process that transcribes the recording."""

    def __init__(self, arguments: argparse.Namespace, given: dict):
        settings = [arguments.system, arguments.audio, arguments.vad, arguments.threads, arguments.jobs]
        settings.append(json.dumps(given, default=str))
        self.command = [sys.executable, "-c", CHILD, *map(str, settings)]
        self.facts: dict[str, float] = {}

    def transcribe(self, environment: dict[str, str] | None = None) -> None:
        """Runs the process, and keeps what it says."""
        begin = time.time()
        done = subprocess.run(self.command, capture_output=True, text=True, check=True, env=environment)
        first, cpu, words, megabytes = map(float, done.stdout.split())
        names = "start to first output, s", "start to first output, CPU s", "words", "peak memory, MB"
        self.facts = dict(zip(names, (first - begin, cpu, words, megabytes), strict=True))

    def report(self, report: Report, case: str) -> None:
        """Reports what the last process said."""
        for name, value in self.facts.items():
            report.fact(f"{case}: {name}", value)


def compare_sherpa(report: Report, parts: Parts, arguments: argparse.Namespace, folder: Path) -> None:
    """Compares greedy search on the segments with sherpa-onnx, and counts the words that differ."""
    import kaldialign

    sherpa = Sherpa(parts.transcriber.experiment, folder, arguments.threads, arguments.batch_seconds)
    seconds = sum(len(segment.samples) for segment in parts.segments) / sherpa.rate
    others: list[str] = []

    def recognise() -> None:
        parts.compute()
        parts.search()

    def recognise_by_sherpa() -> None:
        others[:] = sherpa.words(parts.segments)

    runs = [Run("asrtool", recognise, seconds), Run("sherpa-onnx", recognise_by_sherpa, seconds)]
    report.compare(f"greedy on {len(parts.segments)} segments", runs, _rtf)
    errors = kaldialign.edit_distance(others, parts.words)["total"]
    report.fact("words of sherpa-onnx that asrtool has, in %", 100 * (1 - errors / max(1, len(others))))


def measure_cold(report: Report, method: str, arguments: argparse.Namespace, given: dict) -> None:
    """Measures a process with an empty cache of the user."""
    process = NewProcess(arguments, given)
    with tempfile.TemporaryDirectory() as folder:
        process.transcribe({**os.environ, "XDG_CACHE_HOME": folder})
    process.report(report, f"{method}, cold cache")


def _rtf(rate: float) -> dict:
    return {"RTF": 1 / rate}


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3, limit=1800.0)
    command_line.add_argument("--system", type=Path, help="experiment folder or pack [default: random weights]")
    command_line.add_argument("--audio", type=Path, help="recording [default: noise, with random weights only]")
    command_line.add_argument("--checkpoint", default="averaged", help="checkpoint [default: %(default)s]")
    command_line.add_argument(
        "--methods", default="greedy", help="of greedy, graph, rescored, by commas [default: %(default)s]"
    )
    command_line.add_argument("--graph", type=Path, help="decoding graph [default: what the system carries]")
    command_line.add_argument("--beam", type=float, help="beam of graph search")
    command_line.add_argument("--lattice-beam", type=float, help="beam of lattices in graph search")
    command_line.add_argument("--rescore", type=Path, help="n-gram model for the method rescored")
    command_line.add_argument("--graph-lm", type=Path, help="n-gram model that the graph was built from")
    command_line.add_argument("--cold", action="store_true", help="measure new processes with an empty cache, too")
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


def compare_methods(report: Report, arguments: argparse.Namespace, folder: Path) -> None:
    """Compares each method with its parts, and greedy search with sherpa-onnx, whose model is written to `folder`."""
    seconds = soundfile.info(arguments.audio).duration
    done: Parts | None = None
    first_case = ""
    for method in arguments.methods.split(","):
        given = method_options(method, arguments)
        parts = compare_parts(report, method, arguments, given, done)
        first_case = first_case or f"{method}, {seconds:.0f} s"
        report_sum(report, method, first_case, seconds)
        if arguments.cold:
            measure_cold(report, method, arguments, given)
        if method == "greedy" and not arguments.no_sherpa:
            compare_sherpa(report, parts, arguments, folder)
        done = parts


def method_options(method: str, arguments: argparse.Namespace) -> dict:
    """Returns the options of `asrtool.load` for greedy search, graph search without rescoring, or with it."""
    options = {"checkpoint": arguments.checkpoint, "batch_seconds": arguments.batch_seconds}
    if method == "greedy":
        return options | {"method": "greedy"}
    names = ["graph", "decoding_weights", "beam", "lattice_beam"]
    names += ["graph_lm", "rescore"] if method == "rescored" else []
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    return options | {"method": "graph", "no_rescore": True if method == "graph" else None} | given


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
        compare_methods(report, arguments, Path(folder) / "export")
        report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
