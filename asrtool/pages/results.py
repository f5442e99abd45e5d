"""The utterances of a decoded set with everything that is known about them: errors, speaker, length, SNR, gender."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from asrtool.data.lhotse_objects import read_cut
from asrtool.data.samples import load_samples
from asrtool.data.shards import Entry, entries_with_dicts
from asrtool.data.snr import estimate_snr
from asrtool.data.sources import InvalidEntry
from asrtool.errors import AsrtoolError, UserError, require_file
from asrtool.pages.elements import counted
from asrtool.progress import progress
from asrtool.readers import read_lines
from asrtool.scoring.folder import HYPOTHESES, read_result_facts, read_scored_rows
from asrtool.scoring.wer import Alignment, ErrorCounts, align_words, count_word_errors, sum_counts
from asrtool.text.normalisation_rules import NormalisationRules

logger = logging.getLogger(__name__)

NORMALISED_NOTE = "References and hypotheses are normalised (`asrtool score --normalise`)."
MAX_SECONDS = 120.0  # longest utterance whose audio is read
FOLDERS_ABOVE = 3  # an experiment in which a relative path is looked for: EXP/.., EXP/../.. and the one above
GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female"}


@dataclass(frozen=True)
class CutFacts:
    """What the manifest and the audio of a cut say; None where it is not known."""

    entry: Entry
    gender: str | None = None  # "male", "female", or as the manifest has it
    snr: float | None = None  # dB, see asrtool/data/snr.py


@dataclass(frozen=True)
class DecodedUtterance:
    """An utterance of a result."""

    id: str
    ref: str
    hyp: str
    pairs: Alignment
    counts: ErrorCounts
    row: dict  # of hyps.jsonl
    cut: CutFacts | None = None

    @property
    def token_type(self) -> str:
        """What `ref` and `hyp` consist of: "words" or "phones"."""
        return self.row.get("token_type", "words")

    @property
    def speaker(self) -> str | None:
        """The speaker, if the hypotheses name one."""
        speaker = self.row.get("speaker")
        return None if speaker is None else str(speaker)

    @property
    def seconds(self) -> float | None:
        """The length of the audio."""
        return self.cut.entry.duration if self.cut else None

    @property
    def words_per_second(self) -> float | None:
        """Words (or phones) of the reference in a second of audio, pauses included; None without audio or words."""
        return self.counts.length / self.seconds if self.seconds and self.counts.length else None

    @property
    def snr(self) -> float | None:
        """The estimated SNR in dB."""
        return self.cut.snr if self.cut else None

    @property
    def gender(self) -> str | None:
        """The speaker's gender."""
        return self.cut.gender if self.cut else None


@dataclass(frozen=True)
class Result:
    """A decoded set; `notes` say what is not known about its utterances, and why."""

    set: str
    method: str
    folder: Path
    facts: dict  # decode.json
    utterances: list[DecodedUtterance]
    notes: list[str] = field(default_factory=list)
    rules: NormalisationRules | None = None  # with which the texts of the utterances were normalised

    @property
    def token_type(self) -> str:
        """What `ref` and `hyp` consist of: "words" or "phones"."""
        return self.utterances[0].token_type


def find_results(paths: Sequence[Path]) -> tuple[Path, list[list[Path]]]:
    """Returns an experiment, and the folders of its results that `paths` choose: a list for each set or result.

    A path is a result folder EXP/decode/SET/METHOD (or EXP/stream/SET/METHOD), which is a list of its own, or EXP,
    which stands for all its sets, each with the folders of all its methods. Raises UserError for anything else, for
    results of several experiments, and for an experiment without results.
    """
    groups = [group for path in paths for group in _results_of(path)]
    folders = [folder for group in groups for folder in group]
    experiments = {folder.resolve().parents[2] for folder in folders}
    if len(experiments) > 1:
        names = ", ".join(sorted(str(path) for path in experiments))
        raise UserError(f"a page is about one experiment, and these are {len(experiments)}: {names}")
    experiment = folders[0].parents[2]
    if not (experiment / "config.yaml").is_file():
        raise UserError(f"{experiment} is not an experiment: it has no config.yaml; give a folder of `asrtool train`")
    return experiment, list(map(list, dict.fromkeys(map(tuple, groups))))


def _results_of(path: Path) -> list[list[Path]]:
    """Returns the result folder that `path` is, or the folders of each set of the experiment that it is."""
    if (path / HYPOTHESES).is_file():
        if len(path.absolute().parts) < 4:
            raise UserError(f"{path} is not a result of an experiment; give EXP/decode/SET/METHOD")
        return [[path.absolute() if len(path.parts) < 4 else path]]
    folders = sorted(result.parent for result in (path / "decode").glob(f"*/*/{HYPOTHESES}"))
    if not folders:
        raise UserError(f"{path} has no results; run `asrtool decode {path} CUTS`, or give a folder with {HYPOTHESES}")
    sets = dict.fromkeys(folder.parent.name for folder in folders)
    return [[folder for folder in folders if folder.parent.name == name] for name in sets]


def lowest_result(results: Sequence[Result]) -> Result:
    """Returns the result with the lowest error rate; among equals the first, and words come before phones."""
    return min(results, key=lambda one: (one.token_type != "words", total_counts(one.utterances).rate))


def read_result(
    folder: Path,
    manifests: Sequence[Path] = (),
    genders: Mapping[str, str] | None = None,
    with_audio: bool = True,
    threads: int = 4,
) -> Result:
    """Returns the utterances of a result folder EXP/decode/SET/METHOD with what is known about their audio.

    See `read_errors` and `with_cuts`, whose errors are raised.
    """
    return with_cuts(read_errors(folder), manifests, genders, with_audio, threads)


def read_errors(folder: Path) -> Result:
    """Returns the utterances of a result folder EXP/decode/SET/METHOD with their errors, without lengths and audio.

    Their texts are normalised by the rules of `asrtool score --normalise` if they were scored with rules. Raises the
    errors of `read_scored_rows`, and UserError where no reference has a word.
    """
    rows, rules = read_scored_rows(folder)
    if not any(row["ref"].split() for row in rows):
        raise UserError(f"{folder}: no reference has a word; a report of errors needs transcripts")
    return Result(
        set=folder.parent.name,
        method=folder.name,
        folder=folder,
        facts=read_result_facts(folder),
        utterances=[_utterance(row) for row in rows],
        notes=[NORMALISED_NOTE] if rules else [],
        rules=rules,
    )


def with_cuts(
    result: Result,
    manifests: Sequence[Path] = (),
    genders: Mapping[str, str] | None = None,
    with_audio: bool = True,
    threads: int = 4,
) -> Result:
    """Returns a result with the lengths and the audio of its utterances.

    They come from `manifests`, by default the manifest that was decoded, if it is still there (see `find_manifest`).
    `genders` are of speakers, for manifests that have none. With `with_audio` the audio is read, for the SNR.
    """
    notes = list(result.notes)
    experiment = result.folder.absolute().parents[2]
    paths = list(manifests) or _decoded_manifest(result.facts)
    cuts = _read_cuts({own.id for own in result.utterances}, paths, experiment, genders or {}, notes)
    if with_audio:
        cuts = _with_snr(cuts, result.set, threads, notes)
    utterances = [replace(own, cut=cuts.get(own.id)) for own in result.utterances]
    return replace(result, utterances=utterances, notes=notes)


def find_manifest(path: Path, experiment: Path) -> Path:
    """Returns where a manifest is that an experiment names: a relative path may not be one from the current folder.

    It is looked for in the current folder, and then in the folders above the experiment: EXP/../.. is the folder in
    which a recipe trains. Raises UserError, which names all of them, where it is in none.
    """
    if path.is_absolute():
        if path.exists():
            return path
        raise UserError(f"{path} does not exist")
    above = [*experiment.absolute().parents[:FOLDERS_ABOVE], *experiment.resolve().parents[:FOLDERS_ABOVE]]
    folders = list(dict.fromkeys([Path.cwd(), *above]))
    found = next((folder for folder in folders if (folder / path).exists()), None)
    if found is None:
        raise UserError(f"{path} is in none of the folders {', '.join(map(str, folders))}")
    return path if found == Path.cwd() else found / path


def _utterance(row: dict) -> DecodedUtterance:
    pairs = align_words(row["ref"], row["hyp"])
    return DecodedUtterance(row["id"], row["ref"], row["hyp"], pairs, count_word_errors(pairs), row)


def _decoded_manifest(facts: dict) -> list[Path]:
    """Returns the manifest that decode.json names, if it names one."""
    options = facts.get("options")
    path = options.get("cuts") if isinstance(options, dict) else facts.get("cuts")
    return [Path(path)] if isinstance(path, str) and path else []


def _read_cuts(
    ids: set[str], manifests: list[Path], experiment: Path, genders: Mapping[str, str], notes: list[str]
) -> dict[str, CutFacts]:
    """Returns the manifests' cuts with these ids; notes what is missing."""
    cuts: dict[str, CutFacts] = {}
    for path in manifests:
        try:
            for entry, cut_dict in entries_with_dicts(find_manifest(path, experiment)):
                if entry.id in ids:
                    cuts[entry.id] = CutFacts(entry, _gender(cut_dict, genders))
        except (AsrtoolError, OSError, ValueError) as error:  # ValueError: a path that no file can have
            notes.append(f"The manifest could not be read, so lengths and audio are not known: {error}")
    if len(cuts) < len(ids):
        hint = "give --cuts with the manifest that was decoded"
        notes.append(f"{len(ids) - len(cuts)} of {len(ids)} utterances are in no manifest that could be read; {hint}.")
    return cuts


def _gender(cut_dict: dict, genders: Mapping[str, str]) -> str | None:
    for supervision in cut_dict.get("supervisions") or ():
        gender = supervision.get("gender") or genders.get(str(supervision.get("speaker")))
        if isinstance(gender, str) and gender.strip():
            return GENDERS.get(gender.strip().lower(), gender.strip())
    return None


def _with_snr(cuts: dict[str, CutFacts], set_name: str, threads: int, notes: list[str]) -> dict[str, CutFacts]:
    """Returns the cuts with their SNR; notes how many could not be read."""
    with ThreadPoolExecutor(threads) as pool:
        measured = list(progress(pool.map(_measure, cuts.values()), f"reading audio of {set_name}", len(cuts)))
    problems = [result for result in measured if isinstance(result, str)]
    if problems:
        notes.append(f"The audio of {counted(len(problems), 'utterance')} could not be read: {problems[0]}")
    kept = zip(cuts.items(), measured, strict=True)
    return {name: cut if isinstance(result, str) else result for (name, cut), result in kept}


def _measure(cut: CutFacts) -> CutFacts | str:
    """Returns the cut with its SNR, or why its audio cannot be read."""
    try:
        own = read_cut(cut.entry)
        samples = load_samples(own, MAX_SECONDS)
    except InvalidEntry as problem:
        return str(problem)
    return CutFacts(cut.entry, cut.gender, estimate_snr(samples.numpy(), own.sampling_rate))


def read_genders(path: Path) -> dict[str, str]:
    """Returns speaker -> gender of a file in Kaldi's form spk2gender, `SPEAKER m` or `SPEAKER f` a line.

    Raises UserError for a missing file and for other lines.
    """
    require_file(path, "genders", "give a file with lines such as `speaker1 f`")
    genders = {}
    for number, line in enumerate(read_lines(path, "genders", "give a file with lines such as `speaker1 f`"), 1):
        words = line.split()
        if words and len(words) != 2:
            raise UserError(f"{path}:{number}: needs a speaker and m or f, as in Kaldi's spk2gender")
        if words:
            genders[words[0]] = words[1]
    return genders


def total_counts(utterances: Iterable[DecodedUtterance]) -> ErrorCounts:
    """Returns the errors of all utterances together."""
    return sum_counts([utterance.counts for utterance in utterances])
