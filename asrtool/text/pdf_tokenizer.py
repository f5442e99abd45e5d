"""Units that are the pdfs of a Kaldi system: the leaves of its decision tree, or senones.

A transcript alone does not give pdfs: they depend on Kaldi's tree, lexicon and topology. Kaldi's alignments give them
in training (asrtool/data/kaldi_alignments.py), and Kaldi's HCLG in decoding (asrtool/graphs/kaldi_graph.py).
"""

from collections.abc import Iterable, Sequence

from asrtool.errors import UserError
from asrtool.text.lexicon import Pronunciation
from asrtool.text.tokenizer import BLANK_SYMBOL, MAX_UNITS, Tokenizer

KIND = "pdf"


def pdf_symbol(pdf: int) -> str:
    """Returns the symbol of the unit for a pdf."""
    return f"pdf_{pdf}"


class PdfTokenizer(Tokenizer):
    """The pdfs of a Kaldi system as units. `transition_pdfs` has the pdf of each transition id, from 1.

    Pdf p is unit p + 1, since unit 0 is the blank, which no alignment has. Raises ValueError for no pdfs, or too many.
    """

    output_type = "pdfs"

    def __init__(self, transition_pdfs: Sequence[int]):
        if not transition_pdfs or min(transition_pdfs) < 0 or max(transition_pdfs) >= MAX_UNITS - 1:
            raise ValueError(f"its transitions do not have pdfs from 0 to {MAX_UNITS - 2:,}")
        self.transition_pdfs = list(transition_pdfs)
        self.symbols = [BLANK_SYMBOL, *map(pdf_symbol, range(max(transition_pdfs) + 1))]

    def encode(self, text: str) -> list[int]:
        """Returns no units: the units of an utterance come from its alignment."""
        return []

    def decode(self, units: Iterable[int]) -> str:
        """Returns the symbols of `units`, joined by single spaces."""
        return " ".join(self.symbols[unit] for unit in units)

    def unknown(self, text: str) -> list[str]:
        """Returns nothing: whether a word can be aligned is known to Kaldi alone."""
        return []

    def pronunciation_units(self, text: str) -> list[list[list[int]]]:
        """Raises UserError: a transcript alone does not give pdfs."""
        raise no_pronunciations()

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Returns nothing: a word alone does not give pdfs."""
        return ()

    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""
        return {"type": KIND, "transition_pdfs": self.transition_pdfs}

    @classmethod
    def from_dict(cls, content: dict) -> "PdfTokenizer":
        """Returns the tokenizer whose `to_dict` returned `content`. Raises one of tokenizer.INVALID for another."""
        pdfs = content["transition_pdfs"]
        if not isinstance(pdfs, list) or not all(type(pdf) is int for pdf in pdfs):
            raise ValueError("its transition_pdfs are not a list of numbers")
        return cls(pdfs)


def no_pronunciations() -> UserError:
    """Returns the error for what needs the units of a transcript or of a word."""
    units = "units are pdfs of Kaldi, which words alone do not give"
    return UserError(f"{units}; see `asrtool prepare kaldi --kaldi-alignments` and `asrtool graph --kaldi-graph`")
