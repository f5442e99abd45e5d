"""Choose some speech of train.jsonl.gz and dev.jsonl.gz, as much of every speaker: the same at every call.

python3 local/choose_cuts.py data/fbank data/claims --minutes 60
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

DEV_SHARE = 12  # five minutes for an hour: dev is heard ten times in a training, and must not take much of its time


def utterance(cut: str) -> str:
    """The utterance that a cut is of, at whatever speed (lhotse's suffix _sp0.9)."""
    return re.sub(r"_sp[\d.]+$", "", cut)


def choose(seconds: dict[str, float], speakers: dict[str, str], total: float) -> set[str]:
    """Utterances of `total` seconds or little more: the next is always of the speaker of whom there is least.

    The order within a speaker is that of a hash, which mixes the chapters. Raises UserError where there is too little.
    """
    waiting, chosen, heard = defaultdict(list), set(), {}
    for name in sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).digest()):
        waiting[speakers[name]].append(name)
        heard[speakers[name]] = 0.0
    while sum(heard.values()) < total:
        left = [speaker for speaker in waiting if waiting[speaker]]
        if not left:
            raise UserError(f"there are {sum(heard.values()) / 60:.1f} minutes in all; ask for less, or prepare more")
        speaker = min(left, key=lambda speaker: (heard[speaker], speaker))
        name = waiting[speaker].pop()
        chosen.add(name)
        heard[speaker] += seconds[name]
    return chosen


def copy(manifest: Path, out: Path, minutes: float) -> None:
    """Write the chosen cuts of a manifest, at all speeds that it has; `minutes` are of those at their own."""
    require_file(manifest, "manifest", "make it with stages 0 and 1 of run.sh")
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
    """Choose and write; 2 for what the user did wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help=f"of train; of dev 1/{DEV_SHARE} of it")
    given = parser.parse_args()
    try:
        for name, minutes in (("train", given.minutes), ("dev", given.minutes / DEV_SHARE)):
            copy(given.folder / f"{name}.jsonl.gz", given.out / f"{name}.jsonl.gz", minutes)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
