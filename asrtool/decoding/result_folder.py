"""The folders that decoding and streaming write: their names, their lock, and what a new result may replace.

    EXP/decode/SET/METHOD[_adapted][-TAG]/    hyps.jsonl, decode.json, and the files of `asrtool score`
    EXP/stream/SET/METHOD[-TAG]/              hyps.jsonl, stream.json, and the files of `asrtool score`

A result records the options of its command under "options". The same command replaces its own result; one with other
options does so only with --overwrite.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asrtool.data.shards import manifest_name
from asrtool.errors import UserError
from asrtool.files import atomic_path, finite_or_null, json_line
from asrtool.locks import LOCK, write_lock
from asrtool.scoring.folder import FACTS_FILES, HYPOTHESES, read_result_facts, remove_scores

FOLDER_NAME = re.compile(r"[^\s/\0-\x1f\x7f][^/\0-\x1f\x7f]*")  # readable in a list
PARTS = "parts"  # folder of an interrupted run (asrtool/decoding/partial_results.py)
MAX_DIFFERENCES = 4  # shown in a message


def set_names(manifests: Sequence[Path], names: Sequence[str] = ()) -> list[str]:
    """Returns the set name of each manifest: `names` in order, or else the names of the files.

    Raises UserError for two sets of one name, and for a name that no folder can have.
    """
    if names and len(names) != len(manifests):
        raise UserError(
            f"--name is given {len(names)} times for {len(manifests)} manifests; give one for each, in order"
        )
    chosen = list(names) or [manifest_name(path) for path in manifests]
    for name in chosen:
        require_name(name, "--name")
    for name, count in Counter(chosen).items():
        if count > 1:
            same = [str(path) for path, one in zip(manifests, chosen, strict=True) if one == name]
            hint = "distinguish them by --name, once for each manifest, in order"
            raise UserError(f"{' and '.join(same)} have the same set name, {name!r}; {hint}")
    return chosen


def require_name(name: str, option: str) -> None:
    """Raises UserError unless a folder can have the name that `option` gives."""
    if not FOLDER_NAME.fullmatch(name) or name in (".", ".."):
        raise UserError(f"{option} {name!r} cannot be the name of a folder; give letters, digits, '-', '_' and '.'")


def method_folder_name(method: str, tag: str | None) -> str:
    """Returns the name of a method's folder."""
    if tag is None:
        return method
    require_name(tag, "--tag")
    return f"{method}-{tag}"


def options_as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options as JSON has them. Paths are absolute, so that two files of one name differ."""
    return {name: _as_json(value) for name, value in options.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return list(value) if isinstance(value, tuple) else value


def require_same_options(folder: Path, options: Mapping[str, Any], overwrite: bool, other: str = "--tag NAME") -> None:
    """Raises UserError when `folder` has a result of other options, unless `overwrite`.

    `other` tells how to keep both results. The files of an interrupted run are not a result.
    """
    facts = any((folder / name).is_file() for name in FACTS_FILES)
    is_interrupted = (folder / PARTS).is_dir()
    is_result = facts or ((folder / HYPOTHESES).is_file() and not is_interrupted)
    if overwrite or not is_result:
        return
    before = read_result_facts(folder).get("options") if facts else None
    if before == options:
        return
    difference = _difference(before, options) if isinstance(before, dict) else "options that it does not record"
    raise UserError(f"{folder} has a result with {difference}; keep both with {other}, or replace it with --overwrite")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns e.g. "beam 16 (now not given), cuts /a/test.jsonl.gz (now /b/test.jsonl.gz)"."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    shown = [f"{name} {_shown(before.get(name))} (now {_shown(now.get(name))})" for name in changed[:MAX_DIFFERENCES]]
    return ", ".join(shown) + (" ..." if len(changed) > MAX_DIFFERENCES else "")


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)[:200]


@contextmanager
def result_lock(folder: Path, command: str) -> Iterator[None]:
    """Locks `folder`, which is created if need be, for one writer.

    Where the command stops with an error before it has written anything, the folder is deleted again.
    """
    with write_lock(folder, command):
        try:
            yield
        except BaseException:
            with suppress(OSError):
                if [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()
            raise


def write_result(folder: Path, rows: Iterable[dict], facts_name: str, facts: dict) -> None:
    """Writes hyps.jsonl and the facts, and deletes the scores of the hypotheses that they replace.

    Both are complete before either replaces an old one, so that a full disk loses nothing.
    """
    with atomic_path(folder / facts_name) as facts_file, atomic_path(folder / HYPOTHESES) as hypotheses:
        with open(hypotheses, "w", encoding="utf-8") as file:
            file.writelines(map(json_line, rows))
        text = json.dumps(finite_or_null(facts), indent=2, ensure_ascii=False, allow_nan=False)
        facts_file.write_text(text + "\n", encoding="utf-8")
        remove_scores(folder)
