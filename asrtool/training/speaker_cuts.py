"""The cuts of each speaker of a manifest, with transcripts or pseudo-labels, for adaptation (adaptation.py)."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from asrtool.config_data import DataConfig
from asrtool.data.corpus_lines import is_trained_on
from asrtool.data.manifest import speaker_of
from asrtool.data.shards import Entry, entries_with_dicts
from asrtool.errors import DataError
from asrtool.text.tokenizer import Tokenizer


@dataclass
class SpeakerCuts:
    """A speaker and the cuts to adapt on, whose texts are transcripts or pseudo-labels."""

    name: str
    cuts: list[Entry] = field(default_factory=list)
    audio_seconds: float = 0.0  # of all cuts of the speaker in the manifest

    @property
    def seconds(self) -> float:
        """Seconds of audio to adapt on."""
        return sum(cut.duration for cut in self.cuts)


def cuts_by_speaker(
    manifest: Path, pseudo_labels: dict[str, str] | None, tokenizer: Tokenizer, data: DataConfig
) -> list[SpeakerCuts]:
    """Returns the speakers of a manifest, each with its cuts of a length trained on whose words have units.

    `pseudo_labels`, of all of its cuts, replace the texts of the manifest. Raises DataError with all cuts without a
    speaker.
    """
    speakers: dict[str, SpeakerCuts] = {}
    problems = []
    for entry, cut_dict in entries_with_dicts(manifest):
        name = speaker_of(cut_dict)
        if not name:
            problems.append(f"{entry.id}: no speaker")
            continue
        speaker = speakers.setdefault(name, SpeakerCuts(name))
        speaker.audio_seconds += entry.duration
        supervision = cut_dict["supervisions"][0]
        text = (supervision.get("text") or "") if pseudo_labels is None else pseudo_labels[entry.id]
        is_usable = text.split() and not tokenizer.unknown(text)
        if is_usable and is_trained_on(entry, data):
            supervision["text"] = text
            speaker.cuts.append(replace(entry, line=json.dumps(cut_dict).encode()))
    if problems:
        raise DataError(f"{len(problems)} cuts of {manifest} cannot be adapted to", problems)
    return list(speakers.values())
