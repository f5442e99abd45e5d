"""Recognition of manifests of lhotse and NeMo, and their utterances."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from lhotse.cut import Cut, MonoCut

from asrtool.data.corpora import Utterance
from asrtool.data.lhotse_sets import read_lhotse
from asrtool.errors import UserError
from asrtool.readers import parse_json, read_lines

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz")
NEMO_KEY = "audio_filepath"
SET_NAMES = re.compile(r"[-_.]?(cuts|recordings|supervisions)[-_.]?")


def json_kind(path: Path) -> str | None:
    """Returns what the first line of a file is: "cuts", "recordings", "supervisions", "nemo", or None for others."""
    try:
        line = next(islice((line for line in read_lines(path) if line.strip()), 1), "")
        data = parse_json(line, str(path), "")
    except UserError:
        return None
    if not isinstance(data, dict):
        return None
    if NEMO_KEY in data:
        return "nemo"
    if "recording_id" in data and "duration" in data:
        return "supervisions"
    if "sources" in data and "num_samples" in data:
        return "recordings"
    return "cuts" if "supervisions" in data and "duration" in data else None


def find_manifests(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Returns lhotse's manifests directly in a folder by the names of their sets: cuts, or (recordings, supervisions).

    So `libri_cuts_train.jsonl.gz` is the set "train", if the folder has files of one corpus, and cuts come first.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.jsonl*")):
        if path.name.endswith(MANIFEST_SUFFIXES) and (kind := json_kind(path)) in (
            "cuts",
            "recordings",
            "supervisions",
        ):
            name = SET_NAMES.sub("_", path.name.split(".jsonl")[0]).strip("_")
            files.setdefault(name, {})[str(kind)] = path
    sets = {name: _of_set(kinds) for name, kinds in files.items()}
    complete = {name: found for name, found in sets.items() if found}
    return {_last_part(name, complete): found for name, found in complete.items()}


def _of_set(kinds: dict[str, Path]) -> tuple[Path, ...]:
    if "cuts" in kinds:
        return (kinds["cuts"],)
    both = kinds.get("recordings"), kinds.get("supervisions")
    return (both[0], both[1]) if both[0] and both[1] else ()


def _last_part(name: str, names: dict[str, tuple[Path, ...]]) -> str:
    """Returns the end of a set's name where that is unique: train of libri_train."""
    end = re.split(r"[-_]", name)[-1]
    return end if sum(re.split(r"[-_]", other)[-1] == end for other in names) == 1 else name


def lhotse_words(files: tuple[Path, ...]) -> tuple[str, ...]:
    """Returns the words of `asrtool prepare lhotse` for these manifests."""
    names = ("--cuts",) if len(files) == 1 else ("--recordings", "--supervisions")
    options = [word for name, file in zip(names, files, strict=True) for word in (name, str(file))]
    return ("prepare", "lhotse", "OUT", *options)


def lhotse_utterances(files: tuple[Path, ...]) -> Iterator[Utterance | str]:
    """Yields the utterances of a manifest of cuts, or of manifests of recordings and supervisions."""
    cuts = read_lhotse(files[0], None, None) if len(files) == 1 else read_lhotse(None, *files)
    return utterances_of_cuts(cuts)


def utterances_of_cuts(cuts: Iterable[Cut | str]) -> Iterator[Utterance | str]:
    """Yields an utterance for each supervision of lhotse's cuts, and a line for each problem."""
    for cut in cuts:
        if isinstance(cut, str):
            yield cut
        elif not isinstance(cut, MonoCut) or not cut.has_recording:
            yield f"{cut.id}: not a cut of one channel with a recording"
        else:
            yield from _utterances(cut)


def _utterances(cut: MonoCut) -> Iterator[Utterance | str]:
    source = next((source for source in cut.recording.sources if cut.channel in source.channels), None)
    if source is None or source.type != "file":
        yield f"{cut.id}: its audio is not a file"
        return
    for item in cut.supervisions:
        start = cut.start + item.start
        is_whole = start == 0 and abs(item.duration - cut.recording.duration) < 0.01
        yield Utterance(
            id=item.id,
            audio=str(source.source),
            text=item.text or "",
            speaker=item.speaker,
            recording=cut.recording.id,
            start=start,
            end=None if is_whole else start + item.duration,
            channel=cut.channel if len(source.channels) > 1 else None,
            where=cut.id,
        )
