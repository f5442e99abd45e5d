"""A model's weights for each speaker, as `asrtool adapt` leaves them (asrtool/training/adaptation.py).

    FOLDER/SPEAKER.pt      a checkpoint, which `--checkpoint` takes, too
           SPEAKER.json    what it was made of, and what that took; written last

SPEAKER is percent-encoded where it could not be the name of a file.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from torch import nn

from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.training import checkpoint


def weights_file(folder: Path, speaker: str) -> Path:
    """Where the weights of `speaker` are."""
    return folder / f"{quote(speaker, safe=' ')}.pt"


def round_suffix(number: int) -> str:
    """Behind the names of what a round of adaptation leaves: nothing in the first, "2", "3", ..."""
    return "" if number == 1 else str(number)


class Adapted:
    """The weights of `speakers` in `folder`, adapted from those in the checkpoint `base`.

    Raises UserError for utterances without a speaker, and for a speaker who has no weights, or those of another model.
    """

    def __init__(self, folder: Path, speakers: Iterable[str | None], base: Path):
        self.folder, self.made, self._now = folder, {}, None
        for speaker in speakers:
            if not speaker:
                raise UserError("the manifest names no speaker of some utterances; --adapted needs them all")
            facts = weights_file(folder, speaker).with_suffix(".json")
            if not facts.is_file():
                raise UserError(f"{folder} has no weights for speaker {speaker}; make them with `asrtool adapt`")
            self.made[speaker] = json.loads(facts.read_text(encoding="utf-8"))
        if any(made["base"] != file_hash(base) for made in self.made.values()):
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
        commands = dict.fromkeys(made["command"] for made in self.made.values() if made["command"])
        weights = hashlib.sha256("".join(hashes).encode()).hexdigest()
        facts = {"adapted": str(self.folder), "adapted_round": self.round, "adapted_weights": weights}
        return facts | {"adapted_by": list(commands)}

    @property
    def round(self) -> int:
        """1, or one more than that whose weights found what was learnt from."""
        return max((made["round"] for made in self.made.values()), default=1)

    @property
    def suffix(self) -> str:
        """Of the method's name, where it is done with these weights: "_adapted", "_adapted2", ..."""
        return f"_adapted{round_suffix(self.round)}"

    @property
    def rtf(self) -> float:
        """The real-time factor of all that led to these weights: the hypotheses, and the slowest rank's training."""
        taken: dict[int, float] = {}
        for made in self.made.values():
            taken[made["rank"]] = taken.get(made["rank"], 0.0) + made["seconds"]
        audio = sum(made["audio_seconds"] for made in self.made.values())
        before = max((made["rtf_before"] for made in self.made.values()), default=0.0)
        return round(before + max(taken.values(), default=0.0) / max(audio, 1e-9), 5)
