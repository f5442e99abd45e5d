"""Changes of valid files: bytes, lines, or the tree of values inside a container whose checksums are updated.

Readers refuse a flipped bit in a zip archive or a gzip file by its checksum, so changes of bytes alone would never
reach the code behind that. A file of a known format is therefore also unpacked, changed inside, and packed again.
"""

import gzip
import io
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

NUMBERS = [
    *(0, 1, -1, 2, 7, 255, 256, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, 2**63, -(2**63), 10**18, 10**400),
    *(0.5, -0.0, 1e-320, 1e-9, 1e9, 1e38, 1e39, 1e308, float("nan"), float("inf"), -float("inf"), True, False, None),
]
COMMANDS = [  # each would leave a file PWNED if a shell ran it
    *("x; touch PWNED; echo .sph", "x; touch PWNED |", "touch PWNED |", "| touch PWNED", "pipe:touch PWNED"),
    *("$(touch PWNED)", "`touch PWNED`", "x\ntouch PWNED\n", "http://127.0.0.1:9/x.wav", "s3://bucket/x", "file:///x"),
]
PATHS = ["", ".", "..", "/", "../x", "/dev/zero", "/dev/stdin", "/proc/self/mem", "a/" * 3000, "~", "a\0b"]
TEXTS = [
    *("", " ", "\t", "\n", "\r", "\0", "\x1b[2J", "\x85", "\u2028", "\u00a0", "\ufeff", "\u0301", "\ud800"),
    *("İ", "ß", "ŉ", "٣", "\U0001f600", "'", '"', '"x', "a,b", "a|b", "a;b", "%s{0}", "type", "MonoCut", "shar"),
    *("<s>", "</s>", "<unk>", "<eps>", "<blank>", "#0", "{}", "[]", "[" * 3000, "&a [*a]", "!!python/object:os.system"),
    *("nan", "NaN", "inf", "-inf", "1e999", "1_000", "0x10", "010", "1:30", "-1", "-0", "true", "null", "9" * 400),
    *("x" * 300, "x" * 70_000, *COMMANDS, *PATHS),
]
MAX_BYTES = 1 << 20  # of a changed file: larger ones cost time, and the bombs have tests of their own

Change = Callable[[bytes, Random], bytes]


def change(name: str, data: bytes, draw: Random) -> bytes:
    """Returns the content `data` of a file `name`, changed in one to three places, by bytes or by its format."""
    inside = FORMATS.get(name.rpartition(".")[2], _lines)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        how = inside if draw.random() < 0.8 else _bytes
        try:
            data = how(data, draw)[:MAX_BYTES]
        except Exception:  # an earlier change has given it another format
            data = _bytes(data, draw)
    return data


def _bytes(data: bytes, draw: Random) -> bytes:
    """Flips bits, cuts out, doubles or replaces bytes, or truncates or lengthens the content."""
    place, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    end = min(end, place + draw.choice((1, 4, 64, 1024, len(data))))
    changed = bytearray(data)
    match draw.randrange(7):
        case 0 if data:
            for _ in range(draw.choice((1, 1, 4, 16))):
                changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 1:
            del changed[place:end]
        case 2:
            changed[place:place] = data[place : min(end, place + 4096)] * draw.choice((1, 1, 2, 100))
        case 3:
            changed[place:end] = draw.randbytes(end - place)
        case 4:
            changed = changed[:place]
        case 5:
            number = _packed(draw)
            aligned = place // len(number) * len(number)
            changed[aligned : aligned + len(number)] = number
        case _:
            changed += draw.choice((b"\0", b"\n", b"\xff", data[place:end], draw.randbytes(40)))
    return bytes(changed)


def _packed(draw: Random) -> bytes:
    kind = draw.choice(("<b", "<h", "<i", "<i", "<q", "<f", "<f", "<d", ">i", ">h"))
    try:
        return struct.pack(kind, draw.choice(NUMBERS) or 0)
    except (struct.error, OverflowError):
        return b"\xff" * struct.calcsize(kind)


def _lines(data: bytes, draw: Random) -> bytes:
    """Removes, doubles or swaps lines of text, and replaces fields."""
    lines = data.split(b"\n")
    place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(6):
        case 0:
            del lines[place]
        case 1:
            lines.insert(other, lines[place])
        case 2:
            lines[place], lines[other] = lines[other], lines[place]
        case 3:
            lines[place] = draw.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\xe4", b"\r", b"\0")) + lines[place]
        case _:
            lines[place] = _fields(lines[place].decode("utf-8", "surrogateescape"), draw)
    return b"\n".join(lines)


def _fields(line: str, draw: Random) -> bytes:
    """Replaces, doubles or removes one field of a line, between usual delimiters."""
    mark = draw.choice([mark for mark in "\t ,=:|" if mark in line] or [" "])
    fields = line.split(mark)
    place = draw.randrange(len(fields))
    new = draw.choice((_text(draw), str(draw.choice(NUMBERS)), fields[place] * 2, fields[place][:-1]))
    fields[place : place + 1] = draw.choice(([new], [new], [], [fields[place], new]))
    return mark.join(fields).encode("utf-8", "surrogatepass")


def _text(draw: Random) -> str:
    return draw.choice(TEXTS)


def _json(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.02:
        return data.replace(b":", b":" + b"[" * 100_000, 1)
    return _dump(_tree(json.loads(data), draw))


def _jsonl(data: bytes, draw: Random) -> bytes:
    """Changes the tree of one line, or the lines as text."""
    lines = data.rstrip(b"\n").split(b"\n")
    if draw.random() < 0.2:
        return _lines(data, draw)
    place = draw.randrange(len(lines))
    lines[place] = _dump(_tree(json.loads(lines[place]), draw))
    return b"\n".join(lines) + b"\n"


def _dump(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _yaml(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.3:
        return _lines(data, draw)
    return yaml.safe_dump(_tree(yaml.safe_load(data), draw), sort_keys=False).encode("utf-8", "surrogatepass")


def _gzip(data: bytes, draw: Random) -> bytes:
    """Changes the compressed content, by the format that it seems to have."""
    content = gzip.decompress(data)
    return gzip.compress((_jsonl if content.startswith(b"{") else _lines)(content, draw), 1)


def _tensors(data: bytes, draw: Random) -> bytes:
    file = io.BytesIO()
    torch.save(_tree(torch.load(io.BytesIO(data), weights_only=True), draw), file)
    return file.getvalue()


def _arrays(data: bytes, draw: Random) -> bytes:
    with np.load(io.BytesIO(data)) as archive:
        arrays = dict(archive)
    file = io.BytesIO()
    draw.choice((np.savez, np.savez_compressed))(file, **_tree(arrays, draw))
    return file.getvalue()


def _tree(tree: Any, draw: Random) -> Any:
    """Returns a tree of values with one of its nodes, at any depth, replaced, doubled, removed or renamed."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list | tuple) else []
    if not keys or draw.random() < 0.1:
        return _value(tree, draw)
    changed = list(tree) if isinstance(tree, list | tuple) else dict(tree)
    key = draw.choice(keys)
    match draw.randrange(12):
        case 0:
            del changed[key]
        case 1:
            changed[key] = changed[draw.choice(keys)]
        case 2 if isinstance(changed, dict):
            changed[draw.choice((_text(draw), str(key) + "x"))] = changed.pop(key)
        case 2:
            changed.insert(key, changed[draw.choice(keys)])
        case 3:
            changed[key] = _value(changed[key], draw)
        case _:
            changed[key] = _tree(changed[key], draw)
    return tuple(changed) if isinstance(tree, tuple) else changed


def _value(old: Any, draw: Random) -> Any:
    """Returns another value instead of `old`: of its kind, slightly different, or of another kind."""
    if isinstance(old, np.ndarray) and draw.random() < 0.9:
        return _array(old, draw)
    if isinstance(old, torch.Tensor) and draw.random() < 0.9:
        return _tensor(old, draw)
    if isinstance(old, int | float) and not isinstance(old, bool) and draw.random() < 0.5:
        return draw.choice((old + 1, old - 1, -old, old * 1000, old / 3, float(old), str(old), bool(old)))
    if isinstance(old, str) and draw.random() < 0.5:
        return draw.choice((old + _text(draw), _text(draw), old[:-1], old * 2, old.upper()))
    kinds = ([], {}, [old], {"x": old}, [[]] * 3, _nested(draw), [old] * 30)
    return draw.choice((draw.choice(NUMBERS), _text(draw), draw.choice(kinds)))


def _nested(draw: Random) -> Any:
    tree: Any = 1
    for _ in range(draw.choice((3, 50, 900))):
        tree = [tree]
    return tree


def _array(old: np.ndarray, draw: Random) -> np.ndarray:
    """Returns an array with other elements, another shape or another type."""
    match draw.randrange(6):
        case 0:
            return old.astype(draw.choice(("f2", "f4", "f8", "i1", "i4", "i8", "u8", "U3", "c8", "?", ">i4")))
        case 1:
            return draw.choice((old[:0], old[:-1], old.reshape(-1), old[None], np.concatenate([old, old]), old[::-1]))
        case 2:
            return np.broadcast_to(np.zeros(1, old.dtype), draw.choice(((1 << 20,), (0, 5), (1, 1, 1))))
    changed = old.copy()
    if changed.size:
        with np.errstate(all="ignore"):
            for _ in range(draw.choice((1, 1, 8))):
                number = draw.choice(NUMBERS)
                place = draw.randrange(changed.size)
                changed.flat[place] = np.float64(number or 0) if abs(number or 0) < 2**62 else changed.flat[0]
    return changed


def _tensor(old: torch.Tensor, draw: Random) -> torch.Tensor:
    """Returns a tensor with other elements, another shape, type or layout."""
    match draw.randrange(6):
        case 0:
            kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64)
            return old.to(draw.choice(kinds))
        case 1:
            return draw.choice(
                (old[:0] if old.dim() else old[None], old.reshape(-1), old[None], old.expand(3, *old.shape))
            )
        case 2:
            return draw.choice((old.to_sparse(), old.to("meta"), torch.zeros(()), torch.zeros(1).expand(1 << 40)))
    changed = old.clone().contiguous()
    if changed.numel():
        number = draw.choice((float("nan"), float("inf"), -1.0, 0.0, 1e38))
        changed.view(-1)[draw.randrange(changed.numel())] = number if changed.is_floating_point() else 1
    return changed


FORMATS: dict[str, Change] = {
    **{"json": _json, "jsonl": _jsonl, "yaml": _yaml, "gz": _gzip, "pt": _tensors, "npz": _arrays},
    **dict.fromkeys(("wav", "flac", "ogg", "mp3", "sph", "fst", "lca", "llc", "npy"), _bytes),
}
