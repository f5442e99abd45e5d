"""Recognition of Kaldi data folders, and of the folder where the relative paths of their wav.scp start."""

from itertools import islice
from pathlib import Path

from asrtool.data.audio import is_command
from asrtool.data.corpora import read_key_values

SAMPLE_LINES = 20
PARENTS = 4  # folders above the data folder that are tried: CORPUS/data/train/wav.scp names CORPUS/wav/1.wav


def is_kaldi_folder(path: Path) -> bool:
    """Returns True for a folder with wav.scp."""
    return (path / "wav.scp").is_file()


def kaldi_audio_root(folder: Path) -> Path | None:
    """Returns where the relative paths of wav.scp start: the current folder as in Kaldi, or the folder or one above.

    The result is None if all paths are absolute or commands, or if none of these folders has the first files.
    """
    paths = [value for _, _, value in islice(read_key_values(folder / "wav.scp"), SAMPLE_LINES)]
    relative = [value for value in paths if value and not is_command(value) and not Path(value).is_absolute()]
    if not relative:
        return None
    candidates = [Path.cwd(), folder, *list(folder.absolute().parents)[:PARENTS]]
    return next((root for root in candidates if any((root / value).is_file() for value in relative)), None)
