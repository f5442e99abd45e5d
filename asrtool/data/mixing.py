"""Several training corpora as one stream of cuts, in which each has its share of the audio.

The next cut always comes from the corpus that is furthest behind its share, so that the shares are exact to within a
cut. Each corpus is read line by line, pass after pass; small corpora with a large share have several passes while a
large one has its first. Nothing is random but the order of files and a phase in each block, both drawn from the seed:
a position names the next line of each corpus, and resuming there continues with the same cuts.
"""

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from asrtool.config_data import DataConfig
from asrtool.data.augment import keyed_generator
from asrtool.data.batch import CorpusPosition, Position
from asrtool.data.corpus_lines import epoch_lines, is_trained_on
from asrtool.data.shards import Entry, entries, entries_with_dicts, fingerprint, manifest_files, manifest_name
from asrtool.errors import DataError
from asrtool.files import file_hash


class CorpusSize(NamedTuple):
    """The cuts of a corpus that are trained on, and their seconds."""

    cuts: int
    seconds: float


def corpus_names(manifests: Sequence[Path]) -> list[str]:
    """Returns a short name for each manifest: its file's name, with its folder's or a number where two are equal."""
    names = [manifest_name(path) for path in manifests]
    repeated = Counter(names)
    paths = zip(names, manifests, strict=True)
    names = [f"{_folder_name(path)}/{name}" if repeated[name] > 1 else name for name, path in paths]
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[number] = f"{name}#{seen[name]}"
    return names


def _folder_name(path: Path) -> str:
    return Path(os.path.abspath(path)).parent.name  # without "..", which is not a name


def corpus_shares(data: DataConfig, sizes: Sequence[CorpusSize]) -> list[float]:
    """Returns the share of the audio of each corpus, which sum to 1: by weights, or by hours ** (1 / temperature)."""
    largest = max(size.seconds for size in sizes)
    scaled = [(size.seconds / largest) ** (1 / data.temperature) for size in sizes]  # no power of a large number
    given = [corpus.weight for corpus in data.corpora]
    weights = [scale if weight is None else weight for scale, weight in zip(scaled, given, strict=True)]
    return [weight / sum(weights) for weight in weights]


def measure_corpora(data: DataConfig, dropped: frozenset[str]) -> tuple[CorpusSize, ...]:
    """Returns the sizes of the training corpora by reading their lines, a second for about 80,000 of them."""
    return tuple(measure_corpus(path, data, dropped) for path in data.train_manifests)


def measure_corpus(manifest: Path, data: DataConfig, dropped: frozenset[str]) -> CorpusSize:
    """Returns the number and the seconds of the cuts of a manifest that are trained on."""
    cuts = 0
    seconds = 0.0
    for entry in entries(manifest):
        if is_trained_on(entry, data) and entry.id not in dropped:
            cuts += 1
            seconds += entry.duration
    return CorpusSize(cuts, seconds)


def training_entries(
    manifests: Path | Sequence[Path], max_cuts: int, excluded: Container[str] = ()
) -> Iterator[tuple[Entry, dict]]:
    """Yields the first `max_cuts` entries of each of several manifests, with their JSON objects, without `excluded`."""
    for manifest in [manifests] if isinstance(manifests, Path) else manifests:
        for entry, cut_dict in islice(entries_with_dicts(manifest), max_cuts):
            if entry.id not in excluded:
                yield entry, cut_dict


def training_fingerprint(data: DataConfig) -> str:
    """Returns a digest of the manifests of the training set and of the exclusion lists, to detect a change."""
    digests = [fingerprint(path) for path in data.train_manifests]
    digests += [file_hash(path) for path in data.exclusion_lists]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b(repr(digests).encode(), digest_size=16).hexdigest()


def other_fingerprints(data: DataConfig) -> dict[str, str]:
    """Returns a digest of each manifest besides the training manifests, by its key and path, to detect a change.

    They are the manifests of the dev sets, of noise, and of room impulse responses.
    """
    augment = data.augment
    manifests = [("data.dev", path) for path in data.dev_sets.values()]
    manifests += [("data.augment.noise", source.manifest) for source in augment.noise_sources]
    if augment.reverb and augment.reverb.manifest:
        manifests.append(("data.augment.reverb.manifest", augment.reverb.manifest))
    return {f"{key} {path}": fingerprint(path) for key, path in manifests}


class CorpusReader:
    """Reads the cuts of one corpus that are trained on, one pass after another, from `start` on.

    `position` is the position of the line after the last cut that `draw` returned.
    """

    def __init__(self, number: int, data: DataConfig, seed: int, dropped: frozenset[str], start: CorpusPosition):
        self.number = number
        self.data = data
        self.seed = seed
        self.dropped = dropped
        self.manifest = data.train_manifests[number]
        self.position = start
        self._entries = self._read()

    def draw(self) -> Entry:
        """Returns the next cut, which has the number of its corpus and of the pass over it."""
        return next(self._entries)

    def _read(self) -> Iterator[Entry]:
        files = manifest_files(self.manifest)
        epoch, first_file, first_line = self.position
        while True:
            is_whole = first_file == first_line == 0
            is_empty = True
            for file, line, entry in epoch_lines(files, self.seed, epoch, first_file, first_line):
                if is_trained_on(entry, self.data) and entry.id not in self.dropped:
                    is_empty = False
                    self.position = CorpusPosition(epoch, file, line + 1)
                    yield replace(entry, corpus=self.number, epoch=epoch)
            if is_whole and is_empty:
                raise DataError(f"nothing of {self.manifest} is left to train on", [])
            epoch, first_file, first_line = epoch + 1, 0, 0


class CorpusMixture:
    """The blocks of cuts of several corpora. An epoch has as many cuts as all corpora together."""

    def __init__(self, data: DataConfig, seed: int, dropped: frozenset[str], sizes: Sequence[CorpusSize]):
        for manifest, size in zip(data.train_manifests, sizes, strict=True):
            if not size.cuts:
                raise DataError(f"nothing of {manifest} is left to train on", [])
        self.data = data
        self.seed = seed
        self.dropped = dropped
        self.sizes = sizes
        self.shares = corpus_shares(data, sizes)
        self.epoch_cuts = sum(size.cuts for size in sizes)

    def blocks(self, start: Position, block_cuts: int) -> Iterator[tuple[Position, list[Entry]]]:
        """Yields blocks of at most `block_cuts` cuts without end, from the one at `start` on, each with its position.

        The `line` of a position is the number of cuts of its epoch before the block.
        """
        positions = start.corpora or (CorpusPosition(),) * len(self.sizes)
        readers = [
            CorpusReader(number, self.data, self.seed, self.dropped, position)
            for number, position in enumerate(positions)
        ]
        begin = replace(start, corpora=positions)
        while True:
            count = min(block_cuts, self.epoch_cuts - begin.line)
            yield begin, self._draw(readers, count, begin)
            line = begin.line + count
            at_end = line >= self.epoch_cuts
            begin = Position(
                epoch=begin.epoch + at_end,
                line=0 if at_end else line,
                corpora=tuple(reader.position for reader in readers),
            )

    def _draw(self, readers: Sequence[CorpusReader], count: int, begin: Position) -> list[Entry]:
        """Returns `count` cuts, each from the corpus that is furthest behind its share.

        A corpus begins a block at a drawn phase of its first cut: without it, all corpora would have their first cut in
        every block, however small their share.
        """
        phase = keyed_generator("phase", self.seed, begin.epoch, begin.line)
        progress = [  # of each corpus: seconds so far, divided by its share
            (phase.random() * size.seconds / size.cuts / share, number)
            for number, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True))
        ]
        heapq.heapify(progress)
        block = []
        for _ in range(count):
            seconds, number = progress[0]
            entry = readers[number].draw()
            block.append(entry)
            heapq.heapreplace(progress, (seconds + entry.duration / self.shares[number], number))
        return block
