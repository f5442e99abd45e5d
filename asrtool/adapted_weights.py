"""A model's weights for each speaker, as `asrtool adapt` leaves them (asrtool/training/adaptation.py).

    FOLDER/SPEAKER.pt      a checkpoint, which `--checkpoint` takes, too
           SPEAKER.json    what it was made of, and what that took; written last

           adapted.txt     says that `asrtool adapt` writes into this folder

SPEAKER is percent-encoded where it could not be the name of a file, and ends in a hash where that is too long for one.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from torch import nn

from asrtool import checkpoint
from asrtool.config import Count, Positive, Weight
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.logs import printable
from asrtool.readers import read_json

MARKER = "adapted.txt"
LONGEST_NAME = 150  # bytes of a percent-encoded name; file systems allow 255, with the suffix of a temporary file


class AdaptationInfo(BaseModel):
    """What the file of a speaker says, as far as decoding needs it. Times are in seconds."""

    speaker: str
    run: str
    base: str  # hash of the checkpoint that was adapted
    round: Positive
    rank: Count
    seconds: Weight
    audio_seconds: Weight
    rtf_before: Weight
    command: str | None = None
    broken: bool = False  # the weights are the base's, since training on the speaker gave numbers that are not finite


def weights_file(folder: Path, speaker: str) -> Path:
    """Where the weights of `speaker` are."""
    name = quote(speaker, safe=" ")
    if len(name) > LONGEST_NAME:
        name = f"{name[:100]}-{hashlib.sha256(speaker.encode()).hexdigest()[:16]}"
    return folder / f"{name}.pt"


def read_adaptation_info(folder: Path, speaker: str) -> AdaptationInfo | None:
    """The facts of the weights of `speaker`; None where there are none. UserError for a file with anything else."""
    path = weights_file(folder, speaker).with_suffix(".json")
    if not path.is_file():
        return None
    hint = "delete it and run `asrtool adapt` again"
    content: Any = read_json(path, "facts of adapted weights", hint)
    try:
        facts = AdaptationInfo.model_validate(content)
    except ValidationError as error:
        place, message = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        raise UserError(f"{path} has no facts of adapted weights ({place or 'whole'}: {message}); {hint}") from error
    if facts.speaker != speaker:
        raise UserError(f"{path} is of another speaker ({printable(facts.speaker[:50])}); {hint}")
    return facts


def round_suffix(number: int) -> str:
    """Behind the names of what a round of adaptation leaves: nothing in the first, "2", "3", ..."""
    return "" if number == 1 else str(number)


class AdaptedWeights:
    """The weights of `speakers` in `folder`, adapted from those in the checkpoint `base`.

    Raises UserError for utterances without a speaker, and for a speaker who has no weights, or those of another model.
    """

    def __init__(self, folder: Path, speakers: Iterable[str | None], base: Path):
        self.folder, self._now = folder, None
        self.made: dict[str, AdaptationInfo] = {}
        for speaker in speakers:
            if not speaker:
                raise UserError("the manifest names no speaker of some utterances; --adapted needs them all")
            facts = read_adaptation_info(folder, speaker)
            if facts is None:
                raise UserError(f"{folder} has no weights for speaker {speaker}; make them with `asrtool adapt`")
            self.made[speaker] = facts
        own = file_hash(base)
        if any(made.base != own for made in self.made.values()):
            raise UserError(f"{folder} was adapted from another checkpoint than {base}; run `asrtool adapt` again")

    def use(self, model: nn.Module, speaker: str) -> None:
        """Give `model` the weights of `speaker`."""
        if speaker != self._now:
            path = weights_file(self.folder, speaker)
            checkpoint.load_weights(model, checkpoint.load(path), path)
            self._now = speaker

    def facts(self) -> dict:
        """For decode.json: which weights these are, and what made them."""
        hashes = [file_hash(weights_file(self.folder, speaker)) for speaker in sorted(self.made)]
        commands = dict.fromkeys(made.command for made in self.made.values() if made.command)
        weights = hashlib.sha256("".join(hashes).encode()).hexdigest()
        facts = {"adapted": str(self.folder), "adapted_round": self.round, "adapted_weights": weights}
        return facts | {"adapted_by": list(commands)}

    @property
    def round(self) -> int:
        """1, or one more than that whose weights found what was learnt from."""
        return max((made.round for made in self.made.values()), default=1)

    @property
    def suffix(self) -> str:
        """Of the method's name, where it is done with these weights: "_adapted", "_adapted2", ..."""
        return f"_adapted{round_suffix(self.round)}"

    @property
    def rtf(self) -> float:
        """The real-time factor of all that led to these weights: the hypotheses, and the slowest rank's training."""
        taken: dict[int, float] = {}
        for made in self.made.values():
            taken[made.rank] = taken.get(made.rank, 0.0) + made.seconds
        audio = sum(made.audio_seconds for made in self.made.values())
        before = max((made.rtf_before for made in self.made.values()), default=0.0)
        return round(before + max(taken.values(), default=0.0) / max(audio, 1e-9), 5)
