"""G: an n-gram model in ARPA format as a word acceptor, made by kaldilm as Kaldi's arpa2fst makes it.

Back-off arcs have #0 on the input side, sentences begin in the start state (<s>) and end in final ones (</s>).
N-grams with words that the table lacks are left out, <unk> among them unless the lexicon pronounces it.
"""

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asrtool.errors import UserError
from asrtool.files import report_full_disk
from asrtool.graphs.check import BadFst, Labels, read_fst
from asrtool.graphs.folder import write_symbols
from asrtool.graphs.lexicon_fst import BACKOFF
from asrtool.readers import read_blocks, read_lines
from asrtool.text.words import shortened

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

SENTENCE = {"<s>", "</s>"}
NOT_WORDS = SENTENCE | {"<unk>", "<UNK>"}
SHOWN = 5  # words of a list that is only hinted at
DETERMINISTIC = 0x40000  # of OpenFst's fst/properties.h: no state has two arcs with the same input label
LONGEST = 300  # characters of a complaint of kaldilm, which repeats the line
ARPA2FST = """
import sys
from kaldilm import arpa2fst
arpa, fst, words, backoff = sys.argv[1:]
arpa2fst(arpa, fst, read_symbol_table=words, disambig_symbol=backoff, max_arpa_warnings=0)
"""


def arpa_words(path: str | Path) -> list[str]:
    """The words of the unigrams of an ARPA file (plain or .gz) but for <s> and </s>, which must be among them."""
    from asrtool.lm.ngram_files import is_compiled

    if is_compiled(path):
        arpa = Path(path).with_suffix(".arpa.gz")
        raise UserError(f"{path} is compiled, for rescoring; a graph takes ARPA: `asrtool lm convert {path} {arpa}`")
    with contextlib.closing(read_lines(path, "language model", "make it with `asrtool lm`")) as file:
        lines = map(str.strip, file)
        if not any(line == "\\data\\" for line in lines):
            raise UserError(f"{path} is not an ARPA file: it has no \\data\\ section")
        if not any(line == "\\1-grams:" for line in itertools.takewhile(_not_ngrams, lines)):
            raise UserError(f"{path} has no unigrams: the section \\1-grams: is missing; make the LM anew")
        words = _distinct(itertools.takewhile(lambda line: not line.startswith("\\"), lines), path)
    missing = SENTENCE - words.keys()
    if missing:
        raise UserError(f"{path} has no unigram {' and '.join(sorted(missing))}; make the LM from whole sentences")
    return [word for word in words if word not in SENTENCE]


def _distinct(rows: Iterable[str], path: str | Path) -> dict[str, None]:
    """The words of unigrams, in their order. UserError for one that is there twice, which kaldilm would take twice,
    and for one that is not in NFC, as the words of lexicons are."""
    words: dict[str, None] = {}
    for row in rows:
        fields = row.split(maxsplit=2)
        if not unicodedata.is_normalized("NFC", row):
            raise UserError(f"{path} has words that are not in Unicode's composed form (NFC); see `asrtool lm convert`")
        if len(fields) > 1 and fields[1] in words:
            raise UserError(f"{path} has the unigram '{shortened(fields[1])}' twice; make the model again")
        words |= dict.fromkeys(fields[1:2])
    return words


def _not_ngrams(line: str) -> bool:
    return not line.startswith("\\") or line == "\\1-grams:"


def compare(lexicon: Collection[str], lm: Collection[str]) -> list[str]:
    """What each of the two vocabularies lacks, a line each. UserError when they have no word in common."""
    pronounced, known = set(lexicon) - NOT_WORDS, set(lm) - NOT_WORDS
    if not pronounced & known:
        hint = "give both the same case" if _case(known, pronounced) else "take a lexicon of the LM's words"
        words = f"LM: {_some(known)}; lexicon: {_some(pronounced)}"
        raise UserError(f"no word of the LM is in the lexicon ({words}); {hint}")
    lines = []
    for mine, other, text in (
        (known, pronounced, "words of the LM have no pronunciation, so they are left out"),
        (pronounced, known, "words of the lexicon are not in the LM, so they are left out"),
    ):
        missing = mine - other
        if missing:
            lines.append(f"{len(missing)} of {len(mine)} {text}: {_some(missing)}{_case(missing, other)}")
    return lines


def _some(words: Iterable[str]) -> str:
    words = sorted(words)
    return ", ".join(words[:SHOWN]) + (" ..." if len(words) > SHOWN else "")


def _case(missing: set[str], other: set[str]) -> str:
    folded = {word.casefold() for word in other}
    count = sum(word.casefold() in folded for word in missing)
    return f" ({count} of them would be there in another case)" if count else ""


def grammar_fst(path: str | Path, words: Sequence[str]) -> "StdVectorFst":
    """G of an ARPA file over `words` by label, sorted by input label.

    UserError with the line that is wrong, and for a full temporary folder. kaldilm ends its process at an error, and
    hands a copy of G as text over: so it has a process of its own.
    """
    path = Path(path)
    disk = f"temporary files in {tempfile.gettempdir()} (TMPDIR names another folder)"
    with tempfile.TemporaryDirectory() as folder, report_full_disk(disk):
        plain = _unpacked(path, Path(folder)) if path.suffix == ".gz" else path
        table, fst = Path(folder, "words.txt"), Path(folder, "G.fst")
        write_symbols(table, words)
        result = subprocess.run(
            [sys.executable, "-c", ARPA2FST, plain, fst, table, BACKOFF],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if result.returncode:
            raise UserError(f"{path} is not a sound ARPA file: {_complaint(result)}; make the model again")
        return _read_grammar(path, fst, len(words))


def _unpacked(path: Path, folder: Path) -> Path:
    """A copy of the .gz file `path` that is not compressed, in `folder`."""
    plain = folder / "lm.arpa"
    with open(plain, "wb") as file:
        file.writelines(read_blocks(path, "a language model"))
    return plain


def _read_grammar(path: Path, fst: Path, words: int) -> "StdVectorFst":
    """What kaldilm wrote. Its exit status is 0 also where the disk was full, and then the file is cut short."""
    try:
        grammar = read_fst(fst, Labels(words, words))
    except (BadFst, FileNotFoundError) as error:
        problem = error if isinstance(error, BadFst) else "is missing"
        disk, free = fst.parent.parent, shutil.disk_usage(fst.parent).free
        hint = f"set TMPDIR if no space was left in {disk} ({free:,} bytes now), else make the model again"
        raise UserError(f"{path}: its G.fst, by kaldilm, {problem}; {hint}") from error
    if grammar.properties(DETERMINISTIC, True) != DETERMINISTIC:
        raise UserError(f"{path} has an n-gram twice; make the model again")
    return grammar


def _complaint(result: subprocess.CompletedProcess) -> str:
    """The last thing that kaldilm calls an error in its log; without one, how its process ended."""
    errors = [line.removeprefix("[E] ") for line in result.stderr.splitlines() if line.startswith("[E] ")]
    if errors:
        return errors[-1][:LONGEST]
    if result.returncode < 0:
        return f"kaldilm was ended by signal {-result.returncode}, for memory perhaps"
    return (result.stderr.strip().splitlines() or ["kaldilm says nothing"])[-1]
