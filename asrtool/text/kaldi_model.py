"""Kaldi's transition model, with which files such as final.mdl begin: which pdf each transition id has.

Kaldi's alignments and the input labels of its graphs are transition ids, from 1. A transition id is an arc that leaves
a state of the HMM of a phone in context. The frame of a self-loop has the state's self-loop pdf, every other frame its
forward pdf; in all but chain models the two are the same.

The file is binary ("\\0B") or text, and is parsed as data:

    <TransitionModel> <Topology> ... </Topology>   for each phone the states and their arcs
    <Triples> N, then N times: phone, state, pdf </Triples>
    or <Tuples> N, then N times: phone, state, forward pdf, self-loop pdf </Tuples>

What follows, such as the probabilities of the transitions, is not read.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from asrtool.errors import UserError, require_file

BINARY = b"\0B"
MAX_BYTES = 64 << 20  # of the file that are read; a transition model of 100,000 states has 3 MB
MAX_COUNT = 1 << 24  # of states, transitions or pdfs; far more than any model has
HINT = "give a model of Kaldi, such as final.mdl"


class HmmState(NamedTuple):
    """A state of an HMM: the states that its arcs lead to, in the order of its transition ids."""

    targets: tuple[int, ...]


Topology = dict[int, Sequence[HmmState]]  # the states of each phone's HMM


class _Reader(Protocol):
    """A cursor in a file. Its methods raise ValueError where something else comes next."""

    def token(self) -> str: ...

    def integer(self) -> int: ...


def read_transition_pdfs(path: Path) -> list[int]:
    """Returns the pdf of each transition id of a model of Kaldi; the first element belongs to transition id 1.

    Raises UserError for a file that does not begin with a transition model.
    """
    with open(require_file(path, "model of Kaldi", HINT), "rb") as file:
        content = file.read(MAX_BYTES)
    is_binary = content.startswith(BINARY)
    try:
        reader: _Reader = BinaryReader(content) if is_binary else TextReader(content)
        _expect(reader, "<TransitionModel>")
        _expect(reader, "<Topology>")
        topology = _binary_topology(reader) if isinstance(reader, BinaryReader) else _text_topology(reader)
        return _transition_pdfs(reader, topology)
    except ValueError as error:
        raise UserError(f"{path} is not a model of Kaldi ({error}); {HINT}") from error


class BinaryReader:
    """A cursor in the bytes of one of Kaldi's binary objects, after its "\\0B"."""

    def __init__(self, content: bytes):
        self.content = content
        self.position = len(BINARY)

    def _take(self, size: int) -> bytes:
        taken = self.content[self.position : self.position + size]
        if len(taken) < size:
            raise ValueError("it ends too early")
        self.position += size
        return taken

    def token(self) -> str:
        """Returns the next token, which ends with a space."""
        end = self.content.find(b" ", self.position, self.position + 100)
        if end < 0:
            raise ValueError(f"no token at byte {self.position}")
        token = self.content[self.position : end]
        self.position = end + 1
        return token.decode("ascii", "replace")

    def integer(self) -> int:
        """Returns the next int32, which its size in bytes precedes."""
        self._expect_size(4)
        return struct.unpack("<i", self._take(4))[0]

    def skip_float(self) -> None:
        """Skips a float, which its size in bytes precedes."""
        size = self._take(1)[0]
        if size not in (4, 8):
            raise ValueError(f"no float at byte {self.position - 1}")
        self._take(size)

    def integers(self) -> tuple[int, ...]:
        """Returns the next vector of int32: the size of an element in bytes, their number, and the elements."""
        self._expect_size(4)
        (count,) = struct.unpack("<i", self._take(4))
        if not 0 <= count <= (len(self.content) - self.position) // 4:
            raise ValueError(f"a vector of {count} elements at byte {self.position - 4}")
        return struct.unpack(f"<{count}i", self._take(4 * count))

    def _expect_size(self, size: int) -> None:
        if self._take(1)[0] != size:
            raise ValueError(f"no int32 at byte {self.position - 1}")


class TextReader:
    """A cursor in the words of one of Kaldi's objects in text form."""

    def __init__(self, content: bytes):
        self.words = iter(content.split())

    def token(self) -> str:
        """Returns the next word."""
        word = next(self.words, None)
        if word is None:
            raise ValueError("it ends too early")
        return word.decode("ascii", "replace")

    def integer(self) -> int:
        """Returns the next word as a number."""
        word = self.token()
        if not word.removeprefix("-").isdecimal() or len(word) > 10:
            raise ValueError(f"{word!r:.50} is not an integer")
        return int(word)


def _expect(reader: _Reader, *tokens: str) -> str:
    """Returns the next token, one of `tokens`."""
    token = reader.token()
    if token not in tokens:
        raise ValueError(f"{token!r:.50} stands where {' or '.join(tokens)} is due")
    return token


def _count(reader: _Reader, what: str) -> int:
    count = reader.integer()
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f"{count} {what}")
    return count


def _binary_topology(reader: BinaryReader) -> Topology:
    """Reads a binary topology: the phones, the entry of each phone, and the states and arcs of each entry."""
    phones = reader.integers()
    entry_of_phone = reader.integers()
    num_entries = reader.integer()
    has_self_loop_pdfs = num_entries == -1
    if has_self_loop_pdfs:
        num_entries = _count(reader, "entries")
    entries = [_binary_entry(reader, has_self_loop_pdfs) for _ in range(num_entries)]
    _expect(reader, "</Topology>")
    if not all(0 < phone < len(entry_of_phone) and 0 <= entry_of_phone[phone] < len(entries) for phone in phones):
        raise ValueError("a phone without an HMM")
    return {phone: entries[entry_of_phone[phone]] for phone in phones}


def _binary_entry(reader: BinaryReader, has_self_loop_pdfs: bool) -> list[HmmState]:
    states = []
    for _ in range(_count(reader, "states")):
        reader.integer()  # class of the pdf
        if has_self_loop_pdfs:
            reader.integer()
        targets = []
        for _ in range(_count(reader, "arcs")):
            targets.append(reader.integer())
            reader.skip_float()
        states.append(HmmState(tuple(targets)))
    return states


def _text_topology(reader: _Reader) -> Topology:
    """Reads a topology in text form."""
    topology: Topology = {}
    while _expect(reader, "<TopologyEntry>", "</Topology>") == "<TopologyEntry>":
        _expect(reader, "<ForPhones>")
        phones = []
        while (word := reader.token()) != "</ForPhones>":
            if not word.isdecimal():
                raise ValueError(f"{word!r:.50} is not a phone")
            phones.append(int(word))
        states: list[HmmState] = []
        while _expect(reader, "<State>", "</TopologyEntry>") == "<State>":
            states.append(_text_state(reader, len(states)))
        topology |= dict.fromkeys(phones, states)
    return topology


def _text_state(reader: _Reader, number: int) -> HmmState:
    if reader.integer() != number:
        raise ValueError(f"state {number} of an HMM is missing")
    targets = []
    classes = ("<PdfClass>", "<ForwardPdfClass>", "<SelfLoopPdfClass>")
    while (token := _expect(reader, *classes, "<Transition>", "</State>")) != "</State>":
        value = reader.integer()
        if token == "<Transition>":
            targets.append(value)
            reader.token()  # its probability
    return HmmState(tuple(targets))


def _transition_pdfs(reader: _Reader, topology: Topology) -> list[int]:
    """Reads the states of all phones in context, and returns the pdf of each of their arcs."""
    has_self_loop_pdfs = _expect(reader, "<Triples>", "<Tuples>") == "<Tuples>"
    pdfs: list[int] = []
    for _ in range(_count(reader, "states of phones in context")):
        phone = reader.integer()
        number = reader.integer()
        forward_pdf = reader.integer()
        self_loop_pdf = reader.integer() if has_self_loop_pdfs else forward_pdf
        states = topology.get(phone, ())
        if not 0 <= number < len(states):
            raise ValueError(f"phone {phone} has no state {number}")
        if not (0 <= forward_pdf < MAX_COUNT and 0 <= self_loop_pdf < MAX_COUNT):
            raise ValueError(f"state {number} of phone {phone} has the pdfs {forward_pdf} and {self_loop_pdf}")
        if len(pdfs) + len(states[number].targets) > MAX_COUNT:
            raise ValueError(f"it has more than {MAX_COUNT:,} transitions")
        pdfs += [self_loop_pdf if target == number else forward_pdf for target in states[number].targets]
    if not pdfs:
        raise ValueError("it has no transitions")
    return pdfs
