"""A scan of a manifest before training: which cuts can be used, which are dropped and why, and what is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lhotse.utils import compute_num_samples, perturb_num_samples

from asrtool.config_data import DataConfig
from asrtool.data.entry_checks import EntryChecks, overhang_problem
from asrtool.data.features import MIN_FRAME_SECONDS, TOO_SHORT, count_frames
from asrtool.data.shards import entries_with_dicts
from asrtool.errors import DataError, UserError
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer

MAX_CUTS = 300_000  # that are scanned before training starts, which takes half a minute


@dataclass
class Inspection:
    """The result of a scan: how much can be trained on, and the dropped cuts with the reason of each."""

    cuts: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0  # of a cut that is not dropped
    dropped: dict[str, str] = field(default_factory=dict)  # id -> reason
    partial: bool = False  # the manifest has more than MAX_CUTS

    def __str__(self) -> str:
        scope = f"of the first {MAX_CUTS} cuts, " if self.partial else ""
        return f"{scope}{self.cuts} cuts, {self.seconds / 3600:.2f} h; {len(self.dropped)} dropped"


@dataclass(frozen=True)
class CutRequirements:
    """What training requires of a cut, by the configuration, the tokenizer, the objective and the model."""

    data: DataConfig  # its limits of length and its speeds
    sampling_rate: int  # Hz
    tokenizer: Tokenizer
    min_frames: Callable[[list[int]], int]  # units -> output frames that the objective needs for them
    out_length: Callable[[int], int]  # feature frames -> output frames of the model
    needs_alignments: bool = False  # the objective needs an alignment of units

    def problem(self, cut_dict: dict) -> str | None:
        """Returns why a cut is an error: its sampling rate, transcript or alignment cannot be used."""
        rate = sampling_rate_of(cut_dict)
        if rate != self.sampling_rate:
            return f"{rate} Hz, the configuration says features.sampling_rate={self.sampling_rate}"
        text = transcript(cut_dict)
        if not text:
            return "empty transcript"
        if unknown := self.tokenizer.unknown(text):
            return f"the tokenizer has no unit for {' '.join(sorted(set(unknown)))!r}"
        return alignment_problem(cut_dict, self.tokenizer) if self.needs_alignments else None

    def drop_reason(self, cut_dict: dict) -> str | None:
        """Returns why a cut without problems is dropped: by its length, or since its units need more frames."""
        seconds = cut_dict["duration"]
        if not self.data.min_seconds <= seconds <= self.data.max_seconds:
            limits = f"{self.data.min_seconds:g} to {self.data.max_seconds:g}"
            return f"{seconds:.2f} s is outside data.min_seconds and max_seconds ({limits})"
        if problem := overhang_problem(cut_dict):
            return problem
        samples = compute_num_samples(seconds, self.sampling_rate)
        max_speed = max(self.data.augment.speeds)
        if max_speed != 1.0:
            samples = perturb_num_samples(samples, max_speed)
        if samples < MIN_FRAME_SECONDS * self.sampling_rate:
            return TOO_SHORT
        units = self.tokenizer.encode(transcript(cut_dict))
        frames = self.out_length(count_frames(samples, self.sampling_rate))
        needed = self.min_frames(units)
        if frames < needed:
            return f"{frames} output frames, its {len(units)} units need {needed}"
        return None


def inspect_cuts(path: Path, requirements: CutRequirements, excluded: Mapping[str, str] | None = None) -> Inspection:
    """Scans a manifest once. Cuts outside the configured lengths, and cuts whose units need more output frames than
    they have at the highest configured speed, are dropped; and those of `excluded`, id -> reason, whatever else is
    wrong with them.

    Only the first MAX_CUTS are scanned; training leaves out unusable cuts of the rest when it reads them. Raises
    DataError with all cuts that would be misread (see `EntryChecks`), and those with a problem (see `CutRequirements`).
    """
    inspection = Inspection()
    problems: list[str] = []
    rates_of_problems: set[int | None] = set()
    checks = EntryChecks()
    for entry, cut_dict in progress(islice(entries_with_dicts(path), MAX_CUTS), f"reading {Path(path).name}"):
        if excluded and entry.id in excluded:
            why = excluded[entry.id]
            inspection.dropped[entry.id] = f"excluded by data.exclude{': ' if why else ''}{why}"
        elif problem := checks.problem(cut_dict) or requirements.problem(cut_dict):
            problems.append(f"{entry.id}: {problem}")
            rates_of_problems.add(sampling_rate_of(cut_dict))
        elif reason := requirements.drop_reason(cut_dict):
            inspection.dropped[entry.id] = reason
        else:
            inspection.cuts += 1
            inspection.seconds += entry.duration
            inspection.longest_seconds = max(inspection.longest_seconds, entry.duration)
    inspection.partial = inspection.cuts + len(inspection.dropped) + len(problems) == MAX_CUTS
    if problems:
        hint = _rate_hint(rates_of_problems, requirements.sampling_rate, inspection.cuts > 0)
        hint = hint or "fix the manifest or the tokenizer"
        raise DataError(f"{len(problems)} cuts of {path} cannot be used; {hint}", problems)
    if not inspection.cuts and not inspection.dropped:
        raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
    if not inspection.cuts:
        dropped = [f"{name}: {reason}" for name, reason in inspection.dropped.items()]
        raise DataError(f"nothing of {path} is left; fix the manifest, or the limits of the configuration", dropped)
    return inspection


def _rate_hint(rates_of_problems: set[int | None], configured_rate: int, has_usable_cuts: bool) -> str:
    """Returns what to do if all problems are of cuts with one sampling rate, which is not the configured one."""
    if len(rates_of_problems) != 1:
        return ""
    (rate,) = rates_of_problems
    if rate in (None, configured_rate):
        return ""
    resample = "resample with `asrtool prepare --resample`"
    return resample if has_usable_cuts else f"set features.sampling_rate={rate}, or {resample}"


def transcript(cut_dict: dict) -> str:
    """Returns the text of a line of a manifest, "" if it has none."""
    return (_supervision(cut_dict).get("text") or "").strip()


def aligned_units(cut_dict: dict) -> list[tuple[str, float, float]]:
    """Returns symbol, start and duration in seconds of each unit that a line of a manifest is aligned with."""
    items = (_supervision(cut_dict).get("alignment") or {}).get("unit") or []
    return [(symbol, start, duration) for symbol, start, duration, *_ in items]


def _supervision(cut_dict: dict) -> dict:
    return (cut_dict.get("supervisions") or [{}])[0]


def alignment_problem(cut_dict: dict, tokenizer: Tokenizer) -> str | None:
    """Returns why the alignment of a line of a manifest cannot be trained on; None if it can."""
    try:
        symbols = [str(symbol) for symbol, _, _ in aligned_units(cut_dict)]
    except (TypeError, ValueError, LookupError):
        return "its alignment 'unit' is not a list of [symbol, start, duration]; make it with `asrtool align`"
    if not symbols:
        return "no alignment 'unit' for objective.kind=ce; make it with `asrtool align`"
    units = tokenizer.aligned_units(symbols)
    unknown = sorted({symbol for symbol, unit in zip(symbols, units, strict=True) if unit is None})
    return f"aligned with {' '.join(unknown)!r}, which the tokenizer does not have" if unknown else None


def sampling_rate_of(cut_dict: dict) -> int | None:
    """Returns the sampling rate of the recording of a cut, or else of its features."""
    return (cut_dict.get("recording") or cut_dict.get("features") or {}).get("sampling_rate")
