"""Kaldi's alignments (`ali.*.gz`) as alignments of a manifest, for hybrid training on the pdfs of a Kaldi system.

The folder is one that Kaldi's align_si.sh, align_fmllr.sh or build_tree.sh wrote. Read are

    ali.*.gz                     for each utterance, the transition id of each frame: an archive of int32 vectors,
                                 binary or text
    final.mdl                    the pdf of each transition id (asrtool/text/kaldi_model.py)
    frame_subsampling_factor     if it exists: feature frames for each frame of the alignment, as for chain models

An utterance's frames are centred in it: with snip_edges, Kaldi's default, the first frame begins with the audio, so
that there are fewer frames than the audio has frame shifts.
"""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asrtool.data.features import frame_seconds
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.readers import GZIP_ERRORS, max_unpacked_bytes
from asrtool.text.kaldi_model import read_transition_pdfs
from asrtool.text.pdf_tokenizer import pdf_symbol

MODEL = "final.mdl"
FACTOR = "frame_subsampling_factor"
MAX_FRAMES = 10_000_000  # of an utterance: more than a day
MAX_KEY_BYTES = 10_000  # of the id of an utterance
MAX_LINE_BYTES = 16 * MAX_FRAMES
BINARY_INT = np.dtype([("size", "u1"), ("value", "<i4")])  # a number as Kaldi writes it
MAX_DIFFERENCE = 0.1  # seconds between the lengths of an utterance and of its alignment, without a subsampled frame
HINT = "give a folder of Kaldi's alignments, such as exp/tri3b_ali"


@dataclass(frozen=True)
class KaldiAlignments:
    """The pdf of each frame, (T,) int32, of each utterance. A frame has `subsampling_factor` feature frames."""

    folder: Path
    pdfs: dict[str, np.ndarray]
    subsampling_factor: int

    def add_to(self, cut: dict) -> dict:
        """Returns the cut of an utterance, as it is in a manifest, with the alignment "unit" of its supervision.

        Raises InvalidEntry if there is none, or one that is longer or shorter than the cut.
        """
        pdfs = self.pdfs.get(cut["id"])
        if pdfs is None:
            raise InvalidEntry(f"no alignment in {self.folder}; Kaldi may have failed to align it")
        shift = frame_seconds(cut["recording"]["sampling_rate"]) * self.subsampling_factor
        seconds = len(pdfs) * shift
        duration = cut["duration"]
        if abs(seconds - duration) > MAX_DIFFERENCE + shift:
            lengths = f"the alignment has {len(pdfs)} frames, {seconds:.2f} s, and the audio {duration:.2f} s"
            raise InvalidEntry(f"{lengths}; is it of the same audio?")
        (supervision,) = cut["supervisions"]
        alignment = {"unit": list(_items(pdfs, shift, duration))}
        return cut | {"supervisions": [supervision | {"alignment": alignment}]}


def read_kaldi_alignments(folder: Path) -> KaldiAlignments:
    """Reads a folder of alignments. Raises UserError for files that are missing, damaged or do not fit together."""
    paths = sorted(folder.glob("ali.*.gz"))
    if not paths:
        raise UserError(f"no alignments ali.*.gz in {folder}; {HINT}")
    pdf_of_transition = np.array([-1, *read_transition_pdfs(folder / MODEL)], np.int32)
    pdfs: dict[str, np.ndarray] = {}
    for path in paths:
        for name, transitions in read_int_vectors(path):
            if name in pdfs:
                raise UserError(f"{path}: utterance {name!r:.100} is aligned twice; {HINT}")
            if len(transitions) and not 0 < transitions.min() <= transitions.max() < len(pdf_of_transition):
                limit = f"{folder / MODEL} has 1 to {len(pdf_of_transition) - 1}"
                raise UserError(f"{path}: utterance {name!r:.100} has other transition ids than its model ({limit})")
            pdfs[name] = pdf_of_transition[transitions]
    return KaldiAlignments(folder, pdfs, _subsampling_factor(folder / FACTOR))


def _subsampling_factor(path: Path) -> int:
    """Returns the number in the file, or 1 without a file."""
    if not path.is_file():
        return 1
    with open(path, "rb") as file:
        text = file.read(100).strip()
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise UserError(f"{path} is not a number from 1 to 64; {HINT}")
    return int(text)


def _items(pdfs: np.ndarray, frame_shift: float, duration: float) -> Iterator[list]:
    """Yields [symbol, start, duration], in seconds, for each run of equal pdfs (T,).

    The first one begins, and the last one ends, with the cut.
    """
    offset = (duration - len(pdfs) * frame_shift) / 2  # the frames are centred
    runs = [(pdf, len(list(frames))) for pdf, frames in groupby(pdfs.tolist())]
    begin = 0.0
    frame = 0
    for number, (pdf, length) in enumerate(runs, 1):
        frame += length
        end = duration if number == len(runs) else round(min(max(offset + frame * frame_shift, begin), duration), 4)
        yield [pdf_symbol(pdf), begin, round(end - begin, 4)]
        begin = end


def read_int_vectors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields key and elements (N,) int32 of an archive of int32 vectors, binary or text, plain or compressed by gzip.

    Raises UserError for anything else.
    """
    number = 0
    bytes_left = max_unpacked_bytes(path)
    try:
        with _open(path) as file:
            while key := _read_key(file):
                number += 1
                elements = _read_vector(file)
                bytes_left -= len(key) + elements.nbytes
                if bytes_left < 0:
                    raise UserError(f"{path} unpacks to far more than its size; is it an archive of alignments?")
                yield key, elements
    except ValueError as error:
        where = f"{path}: vector {number}" if number else str(path)
        raise UserError(f"{where} cannot be read ({error}); it is not an archive of Kaldi's alignments") from error
    except (*GZIP_ERRORS, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy it again") from error


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with open(path, "rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            yield raw
        else:
            with gzip.open(raw) as file:
                yield file  # type: ignore[misc]  # a GzipFile has all that is used of a BinaryIO


def _read_key(file: BinaryIO) -> str:
    """Returns the key of the next vector, which ends with a space; "" at the end of the file."""
    key = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        key += byte
        if len(key) > MAX_KEY_BYTES or byte.isspace():
            raise ValueError("a key does not end with a space")
    if not byte and key:
        raise ValueError("it ends after a key")
    if byte and not key:
        raise ValueError("a key is empty")
    return key.decode()


def _read_vector(file: BinaryIO) -> np.ndarray:
    """Returns the elements of the vector that comes next.

    It is binary: "\\0B", their number and each element, all of them after a byte 4, the size of an int32; or text: a
    line of numbers.
    """
    first = file.read(1)
    if first != b"\0":
        line = first if first == b"\n" else first + file.readline(MAX_LINE_BYTES)
        return _text_vector(line)
    head = file.read(6)
    if len(head) < 6 or head[:2] != b"B\4":
        raise ValueError("it is not a vector of int32")
    count = int.from_bytes(head[2:], "little", signed=True)
    if not 0 <= count <= MAX_FRAMES:
        raise ValueError(f"it has {count} elements")
    content = file.read(BINARY_INT.itemsize * count)
    if len(content) < BINARY_INT.itemsize * count:
        raise ValueError("the file ends within it")
    elements = np.frombuffer(content, BINARY_INT)
    if (elements["size"] != 4).any():
        raise ValueError("it is not a vector of int32")
    return elements["value"].astype(np.int32)


def _text_vector(line: bytes) -> np.ndarray:
    if not line.endswith(b"\n"):
        raise ValueError("its line does not end")
    words = line.split()
    if not all(word.isdigit() and len(word) < 10 for word in words):
        raise ValueError("it is not a line of transition ids")
    return np.array([int(word) for word in words], np.int32)
