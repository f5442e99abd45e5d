"""lhotse's objects (cuts, recordings, features, supervisions) from the entries of manifests.

lhotse runs commands and opens addresses that a manifest names, so every entry comes through `deserialize_entry`, with
the checks of asrtool/data/sources.py. To import lhotse takes seconds: what needs only the lines of a manifest reads
them by asrtool/data/shards.py.
"""

from typing import Any

from lhotse import MonoCut
from lhotse.audio.backend import LibsndfileBackend, set_current_audio_backend
from lhotse.serialization import deserialize_item
from lhotse.shar.utils import fill_shar_placeholder

from asrtool.data.entry_checks import cut_problem
from asrtool.data.shards import Entry
from asrtool.data.sources import InvalidEntry, normalise_text_fields, require_plain_sources

# One reader for all files, libsndfile, which also reads uncompressed NIST .sph: lhotse would run others by a shell.
set_current_audio_backend(LibsndfileBackend())


def deserialize_entry(data: dict) -> Any:
    """Returns the lhotse object (cut, recording, features, supervision) of a manifest's entry.

    Raises InvalidEntry for an entry that names a shell command, a pipe or an address, and for one that lhotse cannot
    read.
    """
    if not isinstance(data, dict):
        raise InvalidEntry(f"not an entry of a manifest but a {type(data).__name__}")
    require_plain_sources(data)
    normalise_text_fields(data)
    try:
        return deserialize_item(data)
    except Exception as error:  # whatever lhotse raises over fields that are missing or of another type
        raise InvalidEntry(f"not an entry of a lhotse manifest ({type(error).__name__}: {str(error)[:200]})") from error


def deserialize_cut(cut_id: str, cut_dict: dict) -> MonoCut:
    """Returns the cut of a manifest's entry. Raises InvalidEntry, with the id, as `deserialize_entry` does."""
    try:
        return deserialize_entry(cut_dict)
    except InvalidEntry as problem:
        raise InvalidEntry(f"{cut_id}: {problem}") from problem


def read_cut(entry: Entry) -> MonoCut:
    """Returns the cut of an entry, with Shar's items read into memory.

    Raises InvalidEntry as `deserialize_cut`, for items that cannot be read, and for a `cut_problem`.
    """
    cut_dict = entry.to_dict()
    if problem := cut_problem(cut_dict):
        raise InvalidEntry(f"{entry.id}: {problem}")
    cut = deserialize_cut(entry.id, cut_dict)
    for item in entry.shar_items:
        try:
            with open(item.tar, "rb") as tar:
                tar.seek(item.start)
                fill_shar_placeholder(cut, tar.read(item.size), item.name, item.field)
        except Exception as error:  # also what lhotse raises over an item that is not audio or features
            reason = getattr(error, "strerror", None) or str(error)[:200]
            raise InvalidEntry(f"{entry.id}: cannot read {item.tar} ({reason})") from error
    return cut


def text_and_speaker(cut: MonoCut) -> tuple[str, str | None]:
    """Returns the text of a cut, "" without a supervision, and its speaker if one is named."""
    supervision = cut.supervisions[0] if cut.supervisions else None
    return (supervision.text or "", supervision.speaker) if supervision else ("", None)
