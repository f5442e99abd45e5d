"""Reader of Kaldi data folders: wav.scp and text, and segments and utt2spk if they exist."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.audio import is_command
from asrtool.data.corpora import WHITESPACE, Utterance, parse_channel, parse_seconds, read_key_values, require_folder
from asrtool.data.sources import InvalidEntry

logger = logging.getLogger(__name__)


def read_kaldi(folder: Path, audio_root: Path | None = None, unlabelled: bool = False) -> Iterator[Utterance | str]:
    """Yields the utterances of a Kaldi data folder, and a problem for each one that is wrong.

    Relative paths in wav.scp start at `audio_root`, or else at the current folder, as in Kaldi. With `unlabelled`,
    segments (or recordings) without a line in text are utterances without a transcript, and text may be missing.
    """
    folder = require_folder(folder, "Kaldi data folder")
    files = _KaldiFolder(
        text=_read_key_file(folder / "text", required=not unlabelled),
        recordings=_read_key_file(folder / "wav.scp"),
        speakers=_read_key_file(folder / "utt2spk", required=False),
        segments=_read_key_file(folder / "segments", required=False),
        audio_root=audio_root,
    )
    files.log_root()
    for file in (files.text, files.recordings, files.speakers, files.segments):
        yield from file.repeated.values()
    without_text = [name for name in files.utterance_list().values if name not in files.text.values]
    for name in [*files.text.values, *(without_text if unlabelled else ())]:
        if any(name in file.repeated for file in (files.text, files.speakers, files.segments)):
            continue  # the repeated line is listed already
        try:
            yield files.utterance(name)
        except InvalidEntry as problem:
            yield f"{name}: {problem}"
    if not unlabelled:
        files.log_unused(without_text)


@dataclass
class _KeyFile:
    """A file of lines KEY VALUE. `values` has the first line of each key, `repeated` a problem for a repeated one."""

    path: Path
    present: bool
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)


def _read_key_file(path: Path, required: bool = True) -> _KeyFile:
    file = _KeyFile(path, required or path.is_file())
    if not file.present:
        return file
    for number, key, value in read_key_values(path):
        if key in file.values:
            file.repeated[key] = f"{path}:{number}: '{key}' is in line {file.lines[key]} already; keep one of them"
        else:
            file.values[key] = value
            file.lines[key] = number
    return file


@dataclass
class _KaldiFolder:
    text: _KeyFile
    recordings: _KeyFile
    speakers: _KeyFile
    segments: _KeyFile
    audio_root: Path | None

    def utterance_list(self) -> _KeyFile:
        """Returns the file that lists all utterances: segments, or wav.scp without it."""
        return self.segments if self.segments.present else self.recordings

    def utterance(self, name: str) -> Utterance:
        """Returns the utterance `name`. Raises InvalidEntry if the files do not fit together."""
        recording, start, end, channel = self._segment(name) if self.segments.present else (name, 0.0, None, None)
        if recording not in self.recordings.values:
            missing = f"{self.recordings.path} has no recording '{recording}' of utterance '{name}'"
            raise InvalidEntry(f"{missing}; add its line")
        if recording in self.recordings.repeated:
            repeated = f"its recording '{recording}' has several lines in {self.recordings.path}"
            raise InvalidEntry(f"{repeated}; keep one of them")
        file = self.text if name in self.text.lines else self.utterance_list()
        return Utterance(
            id=name,
            audio=self._audio(self.recordings.values[recording]),
            text=self.text.values.get(name, ""),
            speaker=self._speaker(name),
            recording=recording,
            start=start,
            end=end,
            channel=channel,
            where=f"{file.path}:{file.lines[name]}",
        )

    def _segment(self, name: str) -> tuple[str, float, float | None, int | None]:
        """Returns recording, start, end (None: the recording's end) and channel of an utterance. InvalidEntry."""
        path = self.segments.path
        if name not in self.segments.values:
            raise InvalidEntry(f"{path}: no line 'ID RECORDING START END' for '{name}'; add it")
        try:
            recording, start, end, *channels = re.split(f"[{WHITESPACE}]+", self.segments.values[name])
            channel = parse_channel(" ".join(channels)) if channels else None
            seconds = parse_seconds(end)
            return recording, parse_seconds(start), None if seconds == -1 else seconds, channel
        except ValueError as error:
            where = f"{path}:{self.segments.lines[name]}"
            raise InvalidEntry(f"{where}: no line 'ID RECORDING START END' ({error}); fix it") from error

    def _speaker(self, name: str) -> str | None:
        speaker = self.speakers.values.get(name)
        if speaker is not None and len(speaker.split()) != 1:
            where = f"{self.speakers.path}:{self.speakers.lines[name]}"
            raise InvalidEntry(f"{where}: no line 'ID SPEAKER'; fix it")
        return speaker

    def _audio(self, value: str) -> str:
        if self.audio_root is None or is_command(value):
            return value
        return str(self.audio_root / value)

    def log_root(self) -> None:
        """Logs where relative paths start, if there are some and --audio-root does not say it."""
        paths = [value for value in self.recordings.values.values() if not is_command(value)]
        if self.audio_root is None and not all(Path(path).is_absolute() for path in paths):
            root = f"relative paths start at the current folder, {Path.cwd()}; --audio-root names another"
            logger.info(f"{self.recordings.path}: {root}")

    def log_unused(self, without_text: list[str]) -> None:
        """Logs how many utterances have no transcript, and how many have no speaker."""
        if without_text:
            file = self.utterance_list()
            hint = f"have no line in {self.text.path}, and are left out (--unlabelled takes them)"
            logger.info(f"{file.path}: {len(without_text)} of {len(file.lines)} {hint}")
        missing = sum(name not in self.speakers.values for name in self.text.values)
        if self.speakers.present and missing:
            logger.info(f"{self.speakers.path}: {missing} utterances have no line there, and no speaker")
