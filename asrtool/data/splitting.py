"""Division of a manifest into train, dev and test sets, and subsets of a manifest.

Groups of utterances (speakers, recordings or sentences) are ordered by a hash of their names and the seed. The test set
takes groups from the beginning of that order until it has its size, the dev set from the end, and the rest is train.
So the same manifest gives the same sets in any order of its lines, and when utterances are added, only groups next to
the two borders can change their set.
"""

import hashlib
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from asrtool.data.exclusion import read_exclusions
from asrtool.data.manifest import printable_id, speaker_of
from asrtool.data.manifest_lines import SUFFIXES, entries_of_files, open_writer
from asrtool.data.shards import entries_with_dicts
from asrtool.data.speeds import speed_copy
from asrtool.errors import UserError
from asrtool.files import require_output
from asrtool.progress import progress

logger = logging.getLogger(__name__)

SIZE = re.compile(r"(?P<number>[0-9]*\.?[0-9]+)(?P<unit>h|m|min|s|%)?")
MAX_SIZE_CHARACTERS = 30
UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
SETS = ("train", "dev", "test")
MIN_SPEAKERS = 6  # below which a set of whole speakers would be too large a part of the corpus, or one person only
MAX_UNKNOWN_SHARE = 0.1  # of the utterances, that may have no speaker when speakers are kept apart
MIN_DISTINCT_SHARE = (
    0.5  # of the utterances, that must have sentences of their own for equal sentences to stay together
)
MAX_NAMED_IDS = 5  # in a warning
ENOUGH = 0.95  # of the wanted size


@dataclass(frozen=True)
class SplitOptions:
    """Sizes are shares of the corpus (0.1, 10%) or times (2h, 30m); with 0 the set is not written."""

    dev: str = "0.1"
    test: str = "0.1"
    by: str = "auto"  # or "speaker", "recording", "utterance"
    dev_speakers: frozenset[str] | None = None  # instead of the size
    test_speakers: frozenset[str] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Facts:
    """What a split needs to know of an utterance."""

    id: str
    seconds: float
    speaker: str | None
    original: str  # id of the utterance at its original speed: copies at other speeds belong together
    recording: str  # at its original speed
    sentence: str  # in lower case, without punctuation


def split_manifest(cuts: Path, out_folder: Path, options: SplitOptions) -> list[str]:
    """Writes train.jsonl.gz, dev.jsonl.gz and test.jsonl.gz to a folder. Returns lines that say what is in them.

    Raises UserError for sizes or speakers that leave no utterance for one of the sets.
    """
    facts = [_facts(entry.id, entry.duration, cut) for entry, cut in progress(entries_of_files(cuts), "reading")]
    if not facts:
        raise UserError(f"manifest is empty: {cuts}; make it again with `asrtool prepare`")
    by = _choose_groups(facts, options)
    set_names = _assign(facts, by, options)
    missing = [name for name in _wanted(options) if name not in set_names]
    if missing:
        hint = "give smaller sizes, or 0 for no set" if by == "utterance" else "give smaller sizes, or --by utterance"
        raise UserError(f"{len(facts)} utterances leave none for {', '.join(missing)} (by {by}); {hint}")
    written = _write_sets(cuts, out_folder, set_names)
    return [
        f"split by {by}, seed {options.seed}",
        *_set_lines(facts, set_names, written),
        *_notes(facts, set_names, by),
    ]


def _facts(name: str, seconds: float, cut_dict: dict) -> Facts:
    supervision: dict = next(iter(cut_dict.get("supervisions") or ()), {})
    original = speed_copy(cut_dict)
    sentence = re.sub(r"\W+", " ", supervision.get("text") or "").strip().casefold()
    return Facts(name, seconds, speaker_of(cut_dict), original.utterance, original.recording, sentence)


def _wanted(options: SplitOptions) -> list[str]:
    """Returns the names of the sets that must not be empty."""
    dev = options.dev_speakers is not None or parse_size(options.dev, 1.0) > 0
    test = options.test_speakers is not None or parse_size(options.test, 1.0) > 0
    return ["train", *(["dev"] if dev else []), *(["test"] if test else [])]


def parse_size(text: str, total_seconds: float) -> float:
    """Returns the seconds of a size such as 0.1, 10%, 2h or 30m, of a corpus of `total_seconds`. Raises UserError."""
    match = SIZE.fullmatch(text.strip())
    if match is None or len(text) > MAX_SIZE_CHARACTERS:
        raise UserError(f"{text[:50]!r} is not a size; give a share such as 0.1, or a time such as 2h or 30m")
    number, unit = float(match["number"]), match["unit"]
    if unit in UNIT_SECONDS:
        return number * UNIT_SECONDS[unit]
    share = number / 100 if unit == "%" else number
    if share >= 1:
        raise UserError(f"{text!r} is the whole corpus; give a share below 1, or a time such as 2h or 30m")
    return share * total_seconds


def _choose_groups(facts: Sequence[Facts], options: SplitOptions) -> str:
    """Returns what is not divided between sets: speaker, recording or utterance. Raises UserError."""
    speakers = {fact.speaker for fact in facts if fact.speaker}
    if options.dev_speakers is not None or options.test_speakers is not None:
        if both := sorted((options.dev_speakers or frozenset()) & (options.test_speakers or frozenset())):
            raise UserError(
                f"{', '.join(both)[:300]} is in --dev-speakers and --test-speakers; choose one set for each"
            )
        missing = sorted(((options.dev_speakers or frozenset()) | (options.test_speakers or frozenset())) - speakers)
        if missing:
            raise UserError(f"no such speaker in the manifest: {', '.join(missing)[:300]}; {_examples(speakers)}")
        return "speaker"
    if options.by == "speaker" and len(speakers) < len(_wanted(options)):
        raise UserError(f"{len(speakers)} speakers are too few for {len(_wanted(options))} sets; give --by utterance")
    if options.by != "auto":
        return options.by
    unknown = sum(not fact.speaker for fact in facts)
    if len(speakers) >= MIN_SPEAKERS and unknown <= MAX_UNKNOWN_SHARE * len(facts):
        return "speaker"
    recordings = {fact.recording for fact in facts}
    originals = {fact.original for fact in facts}
    return "recording" if MIN_SPEAKERS <= len(recordings) < len(originals) else "utterance"


def _examples(speakers: Collection[str]) -> str:
    return f"it has {', '.join(sorted(speakers)[:10])}" if speakers else "it names no speakers"


def _assign(facts: Sequence[Facts], by: str, options: SplitOptions) -> list[str]:
    """Returns the name of the set of each utterance."""
    keys = _keys(facts, by)
    seconds: dict[str, float] = defaultdict(float)
    for key, fact in zip(keys, facts, strict=True):
        if key is not None:
            seconds[key] += fact.seconds
    total = sum(fact.seconds for fact in facts)
    fixed = {**dict.fromkeys(options.test_speakers or (), "test"), **dict.fromkeys(options.dev_speakers or (), "dev")}
    free = sorted((key for key in seconds if key not in fixed), key=lambda key: _hash(key, options.seed))
    sets: dict[str, str] = dict(fixed)
    for name, order, size, speakers in (
        ("test", free, options.test, options.test_speakers),
        ("dev", free[::-1], options.dev, options.dev_speakers),
    ):
        if speakers is None:
            left = [key for key in order if key not in sets]
            sets |= dict.fromkeys(_take(left, seconds, parse_size(size, total)), name)
    return ["train" if key is None else sets.get(key, "train") for key in keys]


def _keys(facts: Sequence[Facts], by: str) -> list[str | None]:
    """Returns the group of each utterance; None for one without a speaker, which stays in train."""
    if by == "speaker":
        return [fact.speaker or None for fact in facts]
    if by == "recording":
        return [fact.recording for fact in facts]
    distinct = len({fact.sentence for fact in facts})
    if distinct >= MIN_DISTINCT_SHARE * len({fact.original for fact in facts}):
        return [fact.sentence or fact.original for fact in facts]
    return [fact.original for fact in facts]


def _hash(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()


def _take(order: Sequence[str], seconds: Mapping[str, float], wanted: float) -> list[str]:
    """Returns the first groups of `order` with about `wanted` seconds, at least one; too large ones are passed over."""
    if wanted <= 0 or not order:
        return []
    taken: list[str] = []
    total = 0.0
    for key in order:
        if total >= ENOUGH * wanted:
            break
        if abs(total + seconds[key] - wanted) < abs(total - wanted):
            taken.append(key)
            total += seconds[key]
    return taken or [min(order, key=lambda key: seconds[key])]


def _write_sets(cuts: Path, out_folder: Path, set_names: Sequence[str]) -> dict[str, Path]:
    """Writes the lines of each set to its manifest; returns the manifests."""
    paths = {name: out_folder / f"{name}.jsonl.gz" for name in SETS if name in set_names}
    for path in paths.values():
        require_output(path, (".jsonl.gz",), [cuts])
    _require_no_old_sets(cuts, [out_folder / f"{name}.jsonl.gz" for name in SETS if name not in set_names])
    with ExitStack() as stack:
        # train, the largest, is completed first: if the disk is full then, none of the earlier sets has been replaced
        files = {name: stack.enter_context(open_writer(path)) for name, path in reversed(paths.items())}
        for (entry, _), name in zip(entries_of_files(cuts), set_names, strict=True):
            files[name].write(entry.line.strip() + b"\n")
    return paths


def _require_no_old_sets(cuts: Path, others: Iterable[Path]) -> None:
    """Raises UserError if one of the manifests that this split does not write has utterances of the split one.

    It is of another split, and its utterances are in other sets now. Official sets of a corpus may lie beside.
    """
    existing = [path for path in others if path.exists()]
    known = {_identity(cut) for _, cut in entries_of_files(cuts)} if existing else set()
    for path in existing:
        if _has_any(path, known):
            problem = f"{path} has utterances of {cuts} from another split, which would now be in other sets, too"
            raise UserError(f"{problem}; delete it, or name another folder")


def _has_any(path: Path, known: Collection[str]) -> bool:
    try:
        return any(_identity(cut) in known for _, cut in entries_with_dicts(path))
    except UserError:  # not a manifest, so that no split has written it
        return False


def _identity(cut_dict: dict) -> str:
    """Returns the id of a cut and where its audio is: other sets may have the same ids."""
    sources = (cut_dict.get("recording") or {}).get("sources")
    return json.dumps([cut_dict["id"], cut_dict.get("start"), sources])


def _set_lines(facts: Sequence[Facts], set_names: Sequence[str], paths: Mapping[str, Path]) -> Iterator[str]:
    for name, path in paths.items():
        own = [fact for fact, other in zip(facts, set_names, strict=True) if other == name]
        speakers = len({fact.speaker for fact in own if fact.speaker})
        hours = sum(fact.seconds for fact in own) / 3600
        words = len({word for fact in own for word in fact.sentence.split()})
        known = f", {speakers} speakers" if speakers else ""
        yield f"{path}: {len(own)} utterances, {hours:.2f} h{known}, {words} different words"


def _notes(facts: Sequence[Facts], set_names: Sequence[str], by: str) -> Iterator[str]:
    """Yields what the sets have in common, which makes results look better than they are."""
    sentences: dict[str, Counter[str]] = {name: Counter() for name in SETS}
    speakers: dict[str, set[str]] = {name: set() for name in SETS}
    for fact, name in zip(facts, set_names, strict=True):
        sentences[name][fact.sentence] += 1
        speakers[name] |= {fact.speaker} if fact.speaker else set()
    for name in ("dev", "test"):
        shared = [sentence for sentence in sentences[name] if sentence and sentence in sentences["train"]]
        if shared:
            share = 100 * sum(sentences[name][sentence] for sentence in shared) / sentences[name].total()
            yield f"{share:.1f} % of {name} are sentences that train has, too ({len(shared)}, e.g. {shared[0][:60]!r})"
        if common := speakers[name] & speakers["train"]:
            yield f"{len(common)} speakers of {name} are also in train"
    unknown = sum(not fact.speaker for fact in facts)
    if by == "speaker" and unknown:
        yield f"{unknown} utterances without a speaker are in train"


@dataclass(frozen=True)
class SubsetOptions:
    """Which utterances a subset has: all by default."""

    speakers: frozenset[str] | None = None
    exclude_speakers: frozenset[str] = frozenset()
    exclusion_list: Path | None = None  # file with ids
    max_hours: float | None = None
    seed: int = 0


def write_subset(cuts: Path, out: Path, options: SubsetOptions) -> str:
    """Writes the lines of a part of a manifest, in their order. Returns a line that says what is in it. UserError."""
    require_output(out, SUFFIXES, [cuts, *filter(None, [options.exclusion_list])])
    excluded = read_exclusions([options.exclusion_list]) if options.exclusion_list else {}
    facts = [_facts(entry.id, entry.duration, cut) for entry, cut in progress(entries_of_files(cuts), "reading")]
    unknown = ((options.speakers or frozenset()) | options.exclude_speakers) - {fact.speaker for fact in facts}
    if unknown:
        raise UserError(f"no such speaker in the manifest: {', '.join(sorted(unknown))[:300]}")
    _warn_of_unknown(excluded, facts, cuts)
    wanted = [fact for fact in facts if fact.id not in excluded and _is_wanted(fact, options)]
    ids = {fact.id for fact in _bounded(wanted, options)}
    if not ids:
        raise UserError(f"no utterances left of {cuts}; nothing written")
    with open_writer(out) as file:
        for entry, _ in entries_of_files(cuts):
            if entry.id in ids:
                file.write(entry.line.strip() + b"\n")
    seconds = sum(fact.seconds for fact in facts if fact.id in ids)
    return f"{out}: {len(ids)} of {len(facts)} utterances, {seconds / 3600:.2f} h"


def _is_wanted(fact: Facts, options: SubsetOptions) -> bool:
    is_speaker = options.speakers is None or fact.speaker in options.speakers
    return is_speaker and fact.speaker not in options.exclude_speakers


def _warn_of_unknown(excluded: Collection[str], facts: Sequence[Facts], cuts: Path) -> None:
    unknown = sorted(set(excluded) - {fact.id for fact in facts})
    if unknown:
        named = ", ".join(map(printable_id, unknown[:MAX_NAMED_IDS])) + (" ..." if len(unknown) > MAX_NAMED_IDS else "")
        hint = "a line has an id and, after a tab, the reason"
        logger.warning(f"--exclude-ids: {len(unknown)} of {len(excluded)} ids are not in {cuts}: {named}; {hint}")


def _bounded(facts: Iterable[Facts], options: SubsetOptions) -> Iterator[Facts]:
    """Yields facts up to --max-hours, in an order that depends on the ids and the seed only."""
    if options.max_hours is None:
        yield from facts
        return
    seconds = 0.0
    for fact in sorted(facts, key=lambda fact: _hash(fact.id, options.seed)):
        if seconds + fact.seconds <= options.max_hours * 3600:
            seconds += fact.seconds
            yield fact
