"""Chooses a part of train.jsonl.gz and dev.jsonl.gz, with equally much speech of every speaker, reproducibly.

python3 local/choose_cuts.py data/fbank data/ablations/selection --minutes 60
"""

import argparse
import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path

from lhotse import CutSet

from asrtool.errors import AsrtoolError, UserError, require_file
from asrtool.files import atomic_path

DEV_SHARE = 12  # five minutes for an hour: a training validates ten times, which must not take much of its time


def utterance(cut: str) -> str:
    """Returns the id of the utterance of a cut, which may be at another speed (lhotse's suffix _sp0.9)."""
    return re.sub(r"_sp[\d.]+$", "", cut)


def choose(seconds: dict[str, float], speakers: dict[str, str], total: float) -> set[str]:
    """Returns utterances of at least `total` seconds; the next one is always from the speaker with the least so far.

    The order of a speaker's utterances is by a hash, which mixes the chapters. Raises UserError if there is too little
    speech.
    """
    waiting = defaultdict(list)
    chosen = set()
    chosen_seconds = {}
    for name in sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).digest()):
        waiting[speakers[name]].append(name)
        chosen_seconds[speakers[name]] = 0.0
    while sum(chosen_seconds.values()) < total:
        left = [speaker for speaker in waiting if waiting[speaker]]
        if not left:
            raise UserError(
                f"there are {sum(chosen_seconds.values()) / 60:.1f} minutes in all; ask for less, or prepare more"
            )
        speaker = min(left, key=lambda speaker: (chosen_seconds[speaker], speaker))
        name = waiting[speaker].pop()
        chosen.add(name)
        chosen_seconds[speaker] += seconds[name]
    return chosen


def copy(manifest: Path, out: Path, minutes: float) -> None:
    """Writes the chosen cuts of a manifest, at all its speeds; `minutes` count the cuts at the original speed."""
    require_file(manifest, "manifest", "write it with stages 0 and 1 of run.sh")
    cuts = CutSet.from_file(manifest).to_eager()
    seconds = {cut.id: cut.duration for cut in cuts if utterance(cut.id) == cut.id}
    speakers = {cut.id: cut.supervisions[0].speaker for cut in cuts if cut.id in seconds}
    try:
        chosen = choose(seconds, speakers, 60 * minutes)
    except UserError as error:
        raise UserError(f"{manifest}: {error}") from error
    with atomic_path(out) as temporary:
        cuts.filter(lambda cut: utterance(cut.id) in chosen).to_file(temporary)
    each = [sum(seconds[name] for name in chosen if speakers[name] == one) / 60 for one in set(speakers.values())]
    print(f"{out}: {sum(each):.1f} minutes of {len(each)} speakers, {min(each):.1f} to {max(each):.1f} of each")


def main() -> int:
    """Returns the exit status: 2 for a usage error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the manifests train.jsonl.gz and dev.jsonl.gz")
    parser.add_argument("out", type=Path, help="folder to write the selected cuts to")
    parser.add_argument("--minutes", type=float, required=True, help=f"minutes of train; dev has 1/{DEV_SHARE} of it")
    arguments = parser.parse_args()
    try:
        for name, minutes in (("train", arguments.minutes), ("dev", arguments.minutes / DEV_SHARE)):
            copy(arguments.folder / f"{name}.jsonl.gz", arguments.out / f"{name}.jsonl.gz", minutes)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
