"""A manifest with made-up alignments of phones."""

from pathlib import Path

from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from asrtool.text.lexicon import Lexicon


def align_evenly(corpus: Path, lexicon: Lexicon, path: Path) -> Path:
    """Writes the cuts of `corpus` to `path`, each with the phones of its usual pronunciations, of equal lengths."""
    cuts = list(CutSet.from_file(corpus))
    for cut in cuts:
        phones = [phone for word in cut.supervisions[0].text.split() for phone in lexicon.pronunciations[word][0]]
        step = (cut.duration - 0.1) / len(phones)
        items = [AlignmentItem(phone, round(0.1 + n * step, 4), round(step, 4)) for n, phone in enumerate(phones)]
        cut.supervisions[0].alignment = {"unit": items}
    CutSet.from_cuts(cuts).to_file(path)
    return path
