"""A look through a manifest before training: what can be used, what is dropped and why, what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.config import Config
from asrtool.data.features import num_frames
from asrtool.data.manifest import open_cuts
from asrtool.errors import DataError
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer


@dataclass
class Inspection:
    """A look through a manifest: how much can be trained on, and what cannot, with the reason."""

    cuts: int = 0
    seconds: float = 0.0
    dropped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.cuts} cuts, {self.seconds / 3600:.2f} h; {len(self.dropped)} dropped"


def inspect_cuts(
    path: Path,
    config: Config,
    tokenizer: Tokenizer,
    needed: Callable[[list[int]], int],
    out_length: Callable[[int], int],
) -> Inspection:
    """Read the manifest once. Cuts that the objective cannot reach (`needed(units)` output frames against
    `out_length(frames)` at the fastest configured speed), or outside the configured lengths, are dropped.

    Raises DataError with all cuts whose transcript has no units or whose sampling rate is not the configured one.
    """
    found, problems = Inspection(), []
    for cut in progress(open_cuts(path), f"reading {path.name}"):
        text = (cut.supervisions[0].text or "") if cut.supervisions else ""
        if problem := _problem(cut, text, config, tokenizer):
            problems.append(f"{cut.id}: {problem}")
        elif reason := _unreachable(cut, tokenizer.encode(text), config, needed, out_length):
            found.dropped[cut.id] = reason
        else:
            found.cuts, found.seconds = found.cuts + 1, found.seconds + cut.duration
    if problems:
        raise DataError(f"{len(problems)} cuts of {path} cannot be used; mend the manifest or the tokenizer", problems)
    if not found.cuts:
        dropped = [f"{name}: {reason}" for name, reason in found.dropped.items()]
        raise DataError(f"nothing of {path} is left to train on", dropped)
    return found


def _problem(cut, text: str, config: Config, tokenizer: Tokenizer) -> str | None:
    if not text.strip():
        return "empty transcript"
    if unknown := tokenizer.unknown(text):
        return f"the tokenizer has no unit for {' '.join(sorted(set(unknown)))!r}"
    rate = config.features.sampling_rate
    if cut.sampling_rate != rate:
        return f"{cut.sampling_rate} Hz, the configuration says features.sampling_rate={rate}"
    return None


def _unreachable(cut, units: list[int], config: Config, needed, out_length) -> str | None:
    data = config.data
    if not data.min_seconds <= cut.duration <= data.max_seconds:
        return f"{cut.duration:.2f} s is outside data.min_seconds and max_seconds"
    fastest = max(data.augment.speeds)
    frames = out_length(num_frames(cut if fastest == 1.0 else cut.perturb_speed(fastest)))
    if frames < needed(units):
        return f"{frames} output frames, its {len(units)} units need {needed(units)}"
    return None
