"""A model's weights for each speaker, as `asrtool adapt` writes them (asrtool/training/adaptation.py).

    FOLDER/SPEAKER.pt      a checkpoint; `--checkpoint` accepts it as well
           SPEAKER.json    how it was trained, and how long that took; written last

           adapted.txt     marks a folder that `asrtool adapt` writes into

SPEAKER is percent-encoded where it could not be a file name, and ends in a hash where that would be too long.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from torch import nn

from asrtool import checkpoint
from asrtool.config_types import NonNegativeInteger, NonNegativeReal, PositiveInteger
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.logs import printable
from asrtool.readers import read_json

MARKER = "adapted.txt"
MAX_NAME_BYTES = 150  # of a percent-encoded name; file systems allow 255, with the suffix of a temporary file


class AdaptationInfo(BaseModel):
    """The fields of a speaker's JSON file that decoding needs. Times are in seconds."""

    speaker: str
    run: str
    base: str  # hash of the checkpoint that was adapted
    round: PositiveInteger
    rank: NonNegativeInteger
    seconds: NonNegativeReal
    audio_seconds: NonNegativeReal
    rtf_before: NonNegativeReal  # of decoding the pseudo-labels
    command: str | None = None
    broken: bool = False  # training gave numbers that are not finite, so the weights are the base's


def weights_file(folder: Path, speaker: str) -> Path:
    """Returns the path of the weights of `speaker`."""
    name = quote(speaker, safe=" ")
    if len(name) > MAX_NAME_BYTES:
        name = f"{name[:100]}-{hashlib.sha256(speaker.encode()).hexdigest()[:16]}"
    return folder / f"{name}.pt"


def read_adaptation_info(folder: Path, speaker: str) -> AdaptationInfo | None:
    """Returns the information on the weights of `speaker`; None where there are none.

    Raises UserError for a file with another content.
    """
    path = weights_file(folder, speaker).with_suffix(".json")
    if not path.is_file():
        return None
    hint = "delete it and run `asrtool adapt` again"
    content: Any = read_json(path, "information on adapted weights", hint)
    try:
        info = AdaptationInfo.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "whole"
        problem = f"{place}: {first['msg']}"
        raise UserError(f"{path} is not the information on adapted weights ({problem}); {hint}") from error
    if info.speaker != speaker:
        raise UserError(f"{path} is of another speaker ({printable(info.speaker[:50])}); {hint}")
    return info


def round_suffix(number: int) -> str:
    """Returns the suffix of the names that a round of adaptation writes: "" in the first round, then "2", "3", ..."""
    return "" if number == 1 else str(number)


class AdaptedWeights:
    """The weights of `speakers` in `folder`, adapted from the checkpoint `base`.

    Raises UserError for utterances without a speaker, for a speaker without weights, or with another model's, and for
    weights of several runs of `asrtool adapt`.
    """

    def __init__(self, folder: Path, speakers: Iterable[str | None], base: Path):
        self.folder = folder
        self.info: dict[str, AdaptationInfo] = {}  # by speaker
        self._loaded: str | None = None  # the speaker whose weights the model has
        for speaker in speakers:
            if not speaker:
                raise UserError("the manifest names no speaker of some utterances; --adapted needs them all")
            info = read_adaptation_info(folder, speaker)
            if info is None:
                raise UserError(f"{folder} has no weights for speaker {speaker}; create them with `asrtool adapt`")
            self.info[speaker] = info
        base_hash = file_hash(base)
        if any(info.base != base_hash for info in self.info.values()):
            raise UserError(f"{folder} was adapted from another checkpoint than {base}; run `asrtool adapt` again")
        by_run = {info.run: speaker for speaker, info in self.info.items()}
        if len(by_run) > 1:
            speakers = " and ".join(printable(speaker[:50]) for speaker in sorted(by_run.values())[:2])
            runs = f"weights of {len(by_run)} runs of `asrtool adapt`, such as the weights of {speakers}"
            raise UserError(f"{folder} has {runs}; repeat the last one, which may have been interrupted")

    def load_into(self, model: nn.Module, speaker: str | None) -> None:
        """Loads the weights of `speaker` into `model`, unless it has them."""
        if speaker != self._loaded:
            assert speaker is not None  # the manifest was checked
            path = weights_file(self.folder, speaker)
            checkpoint.load_weights(model, checkpoint.load_checkpoint(path), path)
            self._loaded = speaker

    def facts(self) -> dict:
        """Returns the entries of decode.json that identify the weights and the commands that wrote them."""
        hashes = [file_hash(weights_file(self.folder, speaker)) for speaker in sorted(self.info)]
        commands = dict.fromkeys(info.command for info in self.info.values() if info.command)
        return {
            "adapted": str(self.folder),
            "adapted_round": self.round,
            "adapted_weights": hashlib.sha256("".join(hashes).encode()).hexdigest(),
            "adapted_by": list(commands),
        }

    @property
    def round(self) -> int:
        """The round of adaptation: 1, or one more than the round whose weights decoded the pseudo-labels."""
        return max((info.round for info in self.info.values()), default=1)

    @property
    def suffix(self) -> str:
        """The suffix of a method that decodes with these weights: "_adapted", "_adapted2", ..."""
        return f"_adapted{round_suffix(self.round)}"

    @property
    def rtf(self) -> float:
        """The real-time factor of everything before decoding: the pseudo-labels, and the slowest rank's training."""
        training: dict[int, float] = {}  # rank -> seconds
        for info in self.info.values():
            training[info.rank] = training.get(info.rank, 0.0) + info.seconds
        audio = sum(info.audio_seconds for info in self.info.values())
        before = max((info.rtf_before for info in self.info.values()), default=0.0)
        return round(before + max(training.values(), default=0.0) / max(audio, 1e-9), 5)
