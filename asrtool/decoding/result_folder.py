"""The folders that decoding and streaming write: their names, and what a new result may replace.

    EXP/decode/SET/METHOD[_adapted][-TAG]/    hyps.jsonl, decode.json, and what `asrtool score` writes beside them
    EXP/stream/SET/METHOD[-TAG]/              hyps.jsonl, stream.json, likewise

A result records under "options" what the user chose. The same command replaces its own result; another one does so
only with --overwrite.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asrtool.data.shards import manifest_name
from asrtool.errors import UserError
from asrtool.files import atomic_path, finite_or_null, json_line
from asrtool.scoring.folder import HYPOTHESES, discard_scores, read_facts

NAME = re.compile(r"[^\s/\0-\x1f\x7f][^/\0-\x1f\x7f]*")  # of a folder, readable in a list
PARTS = "parts"  # of an interrupted run (asrtool/decoding/partial_results.py)
DIFFERENCES = 4  # shown in a message


def set_names(manifests: Sequence[Path], names: Sequence[str] = ()) -> list[str]:
    """The name of the set of each manifest: `names` in their order, else those of the manifests' files.

    Raises UserError for two sets of one name, and for a name that no folder can have.
    """
    if names and len(names) != len(manifests):
        raise UserError(f"{len(names)} times --name for {len(manifests)} manifests; give one for each, in their order")
    chosen = list(names) or [manifest_name(path) for path in manifests]
    for name in chosen:
        require_name(name, "--name")
    for name, count in Counter(chosen).items():
        if count > 1:
            same = [str(path) for path, one in zip(manifests, chosen, strict=True) if one == name]
            hint = "tell them apart by --name, once for each manifest, in their order"
            raise UserError(f"{' and '.join(same)} have the same set name, {name!r}; {hint}")
    return chosen


def require_name(name: str, option: str) -> None:
    """UserError unless a folder can have the name that `option` gives."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise UserError(f"{option} {name!r} cannot be the name of a folder; give letters, digits, '-', '_' and '.'")


def method_folder_name(method: str, tag: str | None) -> str:
    """The name of a method's folder."""
    if tag is None:
        return method
    require_name(tag, "--tag")
    return f"{method}-{tag}"


def options_as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them: paths are absolute, so that two files of one name differ."""
    return {
        name: str(value.resolve()) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }


def require_same_options(folder: Path, options: Mapping[str, Any], overwrite: bool, other: str = "--tag NAME") -> None:
    """UserError when `folder` has a result of other options, unless `overwrite`. `other` says how to keep both.

    What an interrupted run has left is no result.
    """
    facts = any((folder / name).is_file() for name in ("decode.json", "stream.json"))
    hypotheses = (folder / HYPOTHESES).is_file()
    if overwrite or not (facts or hypotheses and not (folder / PARTS).is_dir()):
        return
    before = read_facts(folder).get("options") if facts else None
    if before == options:
        return
    why = "options that it does not record" if not isinstance(before, dict) else _difference(before, options)
    raise UserError(f"{folder} has a result with {why}; keep both with {other}, or replace it with --overwrite")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """ "beam 16 (now none), cuts /a/test.jsonl.gz (now /b/test.jsonl.gz)"."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    shown = [f"{name} {_shown(before.get(name))} (now {_shown(now.get(name))})" for name in changed[:DIFFERENCES]]
    return ", ".join(shown) + (" ..." if len(changed) > DIFFERENCES else "")


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:200]


def write_result(folder: Path, rows: Iterable[dict], facts_name: str, facts: dict) -> None:
    """Write hyps.jsonl and the facts; the scores of the hypotheses that they replace are removed.

    Both are complete before either replaces an old one, so that a full disk loses nothing.
    """
    with atomic_path(folder / facts_name) as facts_file, atomic_path(folder / HYPOTHESES) as hypotheses:
        with open(hypotheses, "w", encoding="utf-8") as file:
            file.writelines(map(json_line, rows))
        text = json.dumps(finite_or_null(facts), indent=2, ensure_ascii=False, allow_nan=False)
        facts_file.write_text(text + "\n", encoding="utf-8")
        discard_scores(folder)
