"""A look through a manifest before training: what can be used, what is dropped and why, what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lhotse.utils import compute_num_samples, perturb_num_samples

from asrtool.config import Config
from asrtool.data.entry_checks import EntryChecks, overhang_problem
from asrtool.data.features import MIN_FRAME_SECONDS, TOO_SHORT, count_frames
from asrtool.data.shards import entries_with_trees
from asrtool.errors import DataError, UserError
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer

MAX_CUTS = 300_000  # to look at before training starts: half a minute


@dataclass
class Inspection:
    """A look through a manifest: how much can be trained on, and what cannot, with the reason."""

    cuts: int = 0
    seconds: float = 0.0
    dropped: dict[str, str] = field(default_factory=dict)
    partial: bool = False

    def __str__(self) -> str:
        of = f"of the first {MAX_CUTS} cuts, " if self.partial else ""
        return f"{of}{self.cuts} cuts, {self.seconds / 3600:.2f} h; {len(self.dropped)} dropped"


def inspect_cuts(
    path: Path,
    config: Config,
    tokenizer: Tokenizer,
    needed: Callable[[list[int]], int],
    out_length: Callable[[int], int],
) -> Inspection:
    """Read the manifest once. Cuts that the objective cannot reach (`needed(units)` output frames against
    `out_length(frames)` at the fastest configured speed), or outside the configured lengths, are dropped.

    Of a manifest of more than MAX_CUTS only so many are looked at; training leaves out the rest's when it meets them.
    Raises DataError with all cuts that would be misread (see `EntryChecks`), or whose transcript has no units or whose
    sampling rate is not the configured one.
    """
    found, problems, checks, rates = Inspection(), [], EntryChecks(), set()
    for entry, tree in progress(islice(entries_with_trees(path), MAX_CUTS), f"reading {Path(path).name}"):
        text = transcript(tree)
        if problem := checks.problem(tree) or _problem(tree, text, config, tokenizer):
            problems.append(f"{entry.id}: {problem}")
            rates.add(_rate(tree))
        elif reason := _unreachable(tree, tokenizer.encode(text), config, needed, out_length):
            found.dropped[entry.id] = reason
        else:
            found.cuts, found.seconds = found.cuts + 1, found.seconds + entry.duration
    found.partial = found.cuts + len(found.dropped) + len(problems) == MAX_CUTS
    if problems:
        hint = _rate_hint(rates, config, bool(found.cuts)) or "mend the manifest or the tokenizer"
        raise DataError(f"{len(problems)} cuts of {path} cannot be used; {hint}", problems)
    if not found.cuts and not found.dropped:
        raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
    if not found.cuts:
        dropped = [f"{name}: {reason}" for name, reason in found.dropped.items()]
        raise DataError(f"nothing of {path} is left; mend the manifest, or the limits of the configuration", dropped)
    return found


def _rate_hint(rates: set[int | None], config: Config, others: bool) -> str:
    """What to do where all problems are of cuts with one sampling rate, which is not the configured one.

    `others`: whether there are other cuts, which have the configured rate.
    """
    (rate,) = rates if len(rates) == 1 else (None,)
    if rate in (None, config.features.sampling_rate):
        return ""
    return ("" if others else f"set features.sampling_rate={rate}, or ") + "resample with `asrtool prepare --resample`"


def _problem(tree: dict, text: str, config: Config, tokenizer: Tokenizer) -> str | None:
    rate, wanted = _rate(tree), config.features.sampling_rate
    if rate != wanted:
        return f"{rate} Hz, the configuration says features.sampling_rate={wanted}"
    if not text:
        return "empty transcript"
    if unknown := tokenizer.unknown(text):
        return f"the tokenizer has no unit for {' '.join(sorted(set(unknown)))!r}"
    return _unaligned(tree, tokenizer) if config.objective.needs_alignments else None


def _supervision(tree: dict) -> dict:
    return (tree.get("supervisions") or [{}])[0]


def transcript(tree: dict) -> str:
    """The text of a line of a manifest, "" where there is none."""
    return (_supervision(tree).get("text") or "").strip()


def aligned_units(tree: dict) -> list[tuple[str, float, float]]:
    """Symbol, start and duration in seconds of each unit that a line of a manifest is aligned with."""
    items = (_supervision(tree).get("alignment") or {}).get("unit") or []
    return [tuple(item[:3]) for item in items]


def _unaligned(tree: dict, tokenizer: Tokenizer) -> str | None:
    try:
        symbols = {str(symbol) for symbol, _, _ in aligned_units(tree)}
    except (TypeError, ValueError, LookupError):
        return "its alignment 'unit' is not a list of [symbol, start, duration]; make it with `asrtool align`"
    if not symbols:
        return "no alignment 'unit' for objective.kind=ce; make it with `asrtool align`"
    strange = sorted(symbols - set(tokenizer.symbols))
    return f"aligned with {' '.join(strange)!r}, which the tokenizer has not" if strange else None


def _rate(tree: dict) -> int | None:
    """The sampling rate of the recording of a cut, or else of its features."""
    return (tree.get("recording") or tree.get("features") or {}).get("sampling_rate")


def _unreachable(tree: dict, units: list[int], config: Config, needed, out_length) -> str | None:
    data, seconds, rate = config.data, tree["duration"], _rate(tree)
    if not data.min_seconds <= seconds <= data.max_seconds:
        limits = f"{data.min_seconds:g} to {data.max_seconds:g}"
        return f"{seconds:.2f} s is outside data.min_seconds and max_seconds ({limits})"
    if problem := overhang_problem(tree):
        return problem
    samples = compute_num_samples(seconds, rate)
    fastest = max(data.augment.speeds)
    samples = samples if fastest == 1.0 else perturb_num_samples(samples, fastest)
    if samples < MIN_FRAME_SECONDS * rate:
        return TOO_SHORT
    frames = out_length(count_frames(samples, rate))
    if frames < needed(units):
        return f"{frames} output frames, its {len(units)} units need {needed(units)}"
    return None
