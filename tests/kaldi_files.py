"""Files as Kaldi writes them: transition models and archives of int32 vectors, binary and text."""

import gzip
import struct
from pathlib import Path
from typing import NamedTuple


class State(NamedTuple):
    """A state of an HMM: the class of its pdf (and of its self-loop in chain models), and the targets of its arcs."""

    pdf_class: int
    targets: list[int]
    self_loop_class: int | None = None


# The HMM of Kaldi's GMM systems: three states, each with a self-loop and an arc to the next one, and the end
THREE_STATES = [State(0, [0, 1]), State(1, [1, 2]), State(2, [2, 3]), State(-1, [])]
# The HMM of chain models: the first frame has another pdf than the others
CHAIN = [State(0, [0, 1], 1), State(-1, [], -1)]


def integer(value: int) -> bytes:
    """An int32 in binary form."""
    return b"\4" + struct.pack("<i", value)


def vector(values: list[int]) -> bytes:
    """A vector of int32 in binary form."""
    return integer(len(values)) + struct.pack(f"<{len(values)}i", *values)


def binary_model(entries: list[tuple[list[int], list[State]]], rows: list[tuple[int, ...]]) -> bytes:
    """A transition model: `entries` are phones and their HMM, `rows` phone, state and one pdf, or two (chain)."""
    is_chain = len(rows[0]) == 4
    phones = sorted(phone for own, _ in entries for phone in own)
    entry_of_phone = [-1] * (phones[-1] + 1)
    for number, (own, _) in enumerate(entries):
        for phone in own:
            entry_of_phone[phone] = number
    content = b"\0B<TransitionModel> <Topology> " + vector(phones) + vector(entry_of_phone)
    content += (integer(-1) if is_chain else b"") + integer(len(entries))
    for _, states in entries:
        content += integer(len(states))
        for state in states:
            content += integer(state.pdf_class)
            content += integer(state.self_loop_class) if is_chain else b""
            content += integer(len(state.targets))
            content += b"".join(integer(target) + b"\4" + struct.pack("<f", 0.5) for target in state.targets)
    name = b"Tuples" if is_chain else b"Triples"
    content += b"</Topology> <" + name + b"> " + integer(len(rows))
    content += b"".join(integer(value) for row in rows for value in row)
    return content + b"</" + name + b"> <LogProbs> FV \4\0\0\0\0</LogProbs> </TransitionModel> "


def text_model(entries: list[tuple[list[int], list[State]]], rows: list[tuple[int, ...]]) -> bytes:
    """The same as `binary_model` in text form."""
    is_chain = len(rows[0]) == 4
    lines = ["<TransitionModel> ", "<Topology> "]
    for phones, states in entries:
        lines += ["<TopologyEntry> ", "<ForPhones> ", " ".join(map(str, phones)) + " ", "</ForPhones> "]
        for number, state in enumerate(states):
            classes = f"<PdfClass> {state.pdf_class} "
            if is_chain:
                classes = f"<ForwardPdfClass> {state.pdf_class} <SelfLoopPdfClass> {state.self_loop_class} "
            arcs = "".join(f"<Transition> {target} 0.5 " for target in state.targets)
            lines.append(f"<State> {number} {classes if state.pdf_class >= 0 else ''}{arcs}</State> ")
        lines.append("</TopologyEntry> ")
    name = "Tuples" if is_chain else "Triples"
    lines += ["</Topology> ", f"<{name}> {len(rows)} ", *(" ".join(map(str, row)) + " " for row in rows), f"</{name}> "]
    return "\n".join([*lines, "<LogProbs> ", " [ 0 -0.7 ]", "</LogProbs> ", "</TransitionModel> ", ""]).encode()


def binary_archive(vectors: dict[str, list[int]]) -> bytes:
    """An archive of int32 vectors in binary form: unlike within a model, each element has its size before it."""
    return b"".join(
        key.encode() + b" \0B" + integer(len(values)) + b"".join(map(integer, values))
        for key, values in vectors.items()
    )


def text_archive(vectors: dict[str, list[int]]) -> bytes:
    """An archive of int32 vectors in text form."""
    return "".join(f"{key} {''.join(f'{value} ' for value in values)}\n" for key, values in vectors.items()).encode()


def write_alignments(
    folder: Path, model: bytes, *archives: bytes, subsampling_factor: int | None = None, compress: bool = True
) -> Path:
    """Writes a folder of alignments."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "final.mdl").write_bytes(model)
    for number, archive in enumerate(archives, 1):
        (folder / f"ali.{number}.gz").write_bytes(gzip.compress(archive) if compress else archive)
    if subsampling_factor:
        (folder / "frame_subsampling_factor").write_text(f"{subsampling_factor}\n")
    return folder
