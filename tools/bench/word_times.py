"""Start and end of recognised words, compared with known word boundaries.

    python3 tools/bench/word_times.py exp/mine data/test.jsonl.gz download/digits/LibriSpeech/test-digits

The boundaries are files *.alignment.txt of LibriSpeech-Alignments, such as egs/digits/local/synthesise.py writes. Only
recognised words that are correct count. Rows: `peak frame`, a word from the first frame of its first unit to the start
of the next word; `alignment`, from the frames of its units and a share of the gaps around them; `energy`, up to where
the energy of the features falls (asrtool/decoding/word_times.py).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import kaldialign
import numpy as np
import torch
from common import environment, write_json

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.word_units import WordSplitter
from asrtool.decoding.words import WordDescriber
from asrtool.experiment import open_experiment
from asrtool.scoring.wer import GAP


class WordTime(NamedTuple):
    """A word, its start and its end in seconds."""

    text: str
    start: float
    end: float


def read_alignments(folder: Path) -> dict[str, list[WordTime]]:
    """Returns the words of each utterance in the files *.alignment.txt below `folder`, which list the ends."""
    words = {}
    for path in folder.rglob("*.alignment.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, texts, times = line.split(" ")
            ends = [float(time) for time in times.strip('"').split(",")]
            rows = zip(texts.strip('"').split(","), [0.0, *ends], ends, strict=False)
            words[name] = [WordTime(text, start, end) for text, start, end in rows if text]
    return words


def errors(found: Sequence[WordTime], truth: Sequence[WordTime]) -> Iterator[tuple[float, float]]:
    """Yields the differences of start and end of each correct word, in seconds."""
    pairs = kaldialign.align([word.text for word in truth], [word.text for word in found], GAP)
    true_words, found_words = iter(truth), iter(found)
    for ref, hyp in pairs:
        true_word = next(true_words) if ref != GAP else None
        word = next(found_words) if hyp != GAP else None
        if ref == hyp and word and true_word:
            yield word.start - true_word.start, word.end - true_word.end


def peak_frames(
    bounds: Sequence[tuple[str, tuple[int, int]]], frames: Sequence[int], seconds: float, frame: float
) -> list[WordTime]:
    """Returns each word from the first frame of its first unit to the start of the next word, or to the end."""
    starts = [frames[min(begin, len(frames) - 1)] * frame for _, (begin, _) in bounds]
    ends = [*starts[1:], seconds]
    return [WordTime(text, start, end) for (text, _), start, end in zip(bounds, starts, ends, strict=False)]


def row(name: str, differences: list[tuple[float, float]]) -> list:
    """Returns the medians of the absolute and of the signed differences, and the 90th percentile, in ms."""
    table = 1000 * np.array(differences)
    cells: list = [name, len(table)]
    for column in table.T:
        cells += [float(np.median(np.abs(column))), float(np.median(column)), float(np.quantile(np.abs(column), 0.9))]
    return cells


def measure(exp: Path, cuts: Path, truth: dict[str, list[WordTime]], graph: Path | None, limit: int) -> list[list]:
    """Returns the rows of the table for at most `limit` utterances."""
    experiment = open_experiment(exp, device="cpu")
    method, options = ("graph", {"graph": graph}) if graph else ("greedy", {})
    setup = open_search(method, experiment.tokenizer, options)
    describer, splitter = WordDescriber(experiment, setup.graph), WordSplitter(experiment.tokenizer, setup.graph)
    frame = experiment.frame_seconds
    differences: dict[str, list] = {"peak frame": [], "alignment": [], "energy": []}
    count = 0
    for batch in experiment.batches(OrderedSampler(cuts, 100.0), workers=0):
        log_probs, lens = experiment.log_probs(batch)
        for n, hypothesis in enumerate(setup.search(log_probs, lens)):
            own, expected = log_probs[n, : lens[n]].numpy(), truth[batch.ids[n]]
            features = batch.features[n, : batch.feature_lens[n]].numpy()
            bounds = splitter.words(hypothesis)
            peaks = peak_frames(bounds, hypothesis.frames, len(own) * frame, frame)
            differences["peak frame"] += errors(peaks, expected)
            for name, given in (("alignment", None), ("energy", features)):
                words = [WordTime(*word[:3]) for word in describer.describe(hypothesis, own, given).words]
                differences[name] += errors(words, expected)
        count += len(batch.ids)
        if count >= limit:
            break
    return [row(name, values) for name, values in differences.items()]


def main() -> None:
    """Reads the command line, and prints the table."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("exp", type=Path, help="experiment")
    command_line.add_argument("cuts", type=Path, help="manifest")
    command_line.add_argument("alignments", type=Path, help="folder with files *.alignment.txt of these utterances")
    command_line.add_argument("--graph", type=Path, help="decoding graph, for units that are phones")
    command_line.add_argument("--utterances", type=int, default=10**9, help="number of utterances")
    command_line.add_argument("--json", type=Path, help="file for the figures")
    arguments = command_line.parse_args()
    torch.set_num_threads(1)
    truth = read_alignments(arguments.alignments)
    rows = measure(arguments.exp, arguments.cuts, truth, arguments.graph, arguments.utterances)
    print(environment())
    print(
        f"{'ms':<12}{'words':>6}   start: {'median':>7}{'bias':>7}{'p90':>7}   end: {'median':>7}{'bias':>7}{'p90':>7}"
    )
    for name, count, *cells in rows:
        start, end = ("".join(f"{value:7.0f}" for value in part) for part in (cells[:3], cells[3:]))
        print(f"{name:<12}{count:>6}          {start}        {end}")
    columns = ("start_median", "start_bias", "start_p90", "end_median", "end_bias", "end_p90")  # ms
    table = [
        {"case": "word times, ms", "what": name, "words": count, **dict(zip(columns, cells, strict=True))}
        for name, count, *cells in rows
    ]
    values = {"benchmark": "word_times", **environment(), "sizes": {}, "rows": table, "facts": {}}
    write_json(values, arguments.json)


if __name__ == "__main__":
    main()
