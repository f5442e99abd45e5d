"""Choose some speech of a manifest, as much of every speaker as there can be: the same at every call.

python3 local/choose_cuts.py data/fbank/train.jsonl.gz data/claims/train.jsonl.gz --minutes 60
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


def main() -> int:
    """Choose and write; 2 for what the user did wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cuts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="of speech at its own speed; all speeds are kept")
    given = parser.parse_args()
    try:
        cuts = CutSet.from_file(require_file(given.cuts, "manifest", "make it with stages 0 and 1 of run.sh")).to_eager()
        plain = [cut for cut in cuts if utterance(cut.id) == cut.id]
        seconds = {cut.id: cut.duration for cut in plain}
        speakers = {cut.id: cut.supervisions[0].speaker for cut in plain}
        chosen = choose(seconds, speakers, 60 * given.minutes)
    except AsrtoolError as error:
        print(f"{given.cuts}: {error}", file=sys.stderr)
        return error.exit_status
    kept = cuts.filter(lambda cut: utterance(cut.id) in chosen).to_eager()
    with atomic_path(given.out) as temporary:
        kept.to_file(temporary)
    each = [sum(seconds[name] for name in chosen if speakers[name] == one) / 60 for one in set(speakers.values())]
    print(f"{given.out}: {sum(each):.1f} minutes of {len(each)} speakers, {min(each):.1f} to {max(each):.1f} of each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
