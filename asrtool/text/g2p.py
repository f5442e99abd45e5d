"""Grapheme-to-phoneme conversion: pronunciations for words outside a lexicon, learned from it by Phonetisaurus.

Phonetisaurus (Novak, Minematsu and Hirose, 2012) aligns letters with phones, trains an n-gram model of the pairs, and
finds the best sequence of pairs for a word. It knows no language and no set of phones but the lexicon's.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import atomic_path, report_full_disk
from asrtool.progress import progress
from asrtool.text.lexicon import Lexicon, Pronunciation
from asrtool.user_cache import user_cache

logger = logging.getLogger(__name__)

# Passes of expectation maximisation over the alignments. With 3, 6 and the package's default 11 the phone error rates
# are within 0.1 % of each other.
PASSES = 4
ORDER = 8  # of the n-gram model of pairs: the default of the package
# Words of a lexicon whose model is kept: training takes half a minute and more for 60,000 words, a second for 2,000.
MIN_CACHED_WORDS = 10_000
MARKS = frozenset("|_}")  # Phonetisaurus joins pairs with these


class _G2pError(Exception):
    """A reason why nothing can be predicted."""


def predict_pronunciations(
    words: Sequence[str], lexicon: Lexicon, otherwise: str = "use --unknown drop"
) -> dict[str, Pronunciation]:
    """Returns pronunciations of `words`, learned from all of `lexicon`.

    Words with letters that the lexicon lacks are left out. What was learned from a large lexicon is kept in the user's
    cache folder. Raises UserError when Phonetisaurus is not installed, or cannot learn from so small a lexicon; it ends
    with `otherwise`, what the user may do instead.
    """
    try:
        return _predict(words, lexicon)
    except _G2pError as error:
        raise UserError(f"{error}; {otherwise}") from error


def _predict(words: Sequence[str], lexicon: Lexicon) -> dict[str, Pronunciation]:
    environment = _environment()
    letters = {letter for word in lexicon.pronunciations for letter in word} - MARKS
    words = [word for word in words if letters.issuperset(word)]
    if not words:
        return {}
    with tempfile.TemporaryDirectory() as folder, report_full_disk(folder):
        _train_or_copy(lexicon, Path(folder), environment)
        (Path(folder) / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        logger.info(f"g2p: predicting pronunciations of {len(words)} words")
        command = ["phonetisaurus-g2pfst", "--model=model.fst", "--wordlist=words"]
        return dict(_parse_predictions(_run(command, folder, environment).split("\n")))


def _environment() -> dict[str, str]:
    """Returns the environment variables for the package's binaries: PATH and LD_LIBRARY_PATH."""
    if find_spec("phonetisaurus") is None:
        raise _G2pError("predicting pronunciations needs the package phonetisaurus: pip install phonetisaurus")
    try:
        from phonetisaurus import guess_environment

        return guess_environment()
    except Exception as error:  # whatever the package raises on a machine that it has no binaries for
        raise _G2pError(f"phonetisaurus does not work on this machine ({error})") from error


def _train_or_copy(lexicon: Lexicon, folder: Path, environment: dict[str, str]) -> None:
    """Writes the model of the lexicon to `folder`, by way of the cache if the lexicon is large."""
    cache = user_cache()
    if cache is None or len(lexicon.pronunciations) < MIN_CACHED_WORDS:
        return _train(lexicon, folder, environment)
    content = [sorted(lexicon.pronunciations.items()), PASSES, ORDER, version("phonetisaurus")]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    cached = cache / f"g2p-{digest[:24]}.fst"
    if cached.is_file():
        logger.info(f"g2p: the model of these {len(lexicon.pronunciations)} words is in {cached}")
        shutil.copyfile(cached, folder / "model.fst")
        return None
    _train(lexicon, folder, environment)
    with contextlib.suppress(OSError, UserError):  # a cache that cannot be written saves no time, and does no harm
        cached.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cached) as temporary:
            shutil.copyfile(folder / "model.fst", temporary)
    return None


def _train(lexicon: Lexicon, folder: Path, environment: dict[str, str]) -> None:
    lines = [
        f"{word}\t{' '.join(pronunciation)}\n"
        for word, pronunciations in lexicon.pronunciations.items()
        for pronunciation in pronunciations
        if MARKS.isdisjoint(word) and MARKS.isdisjoint("".join(pronunciation))
    ]
    (folder / "lexicon").write_text("".join(lines), encoding="utf-8")
    align = ["phonetisaurus-align", "--input=lexicon", "--ofile=pairs", f"--iter={PASSES}"]
    align += ["--seq1_del=false", "--seq2_del=true"]  # a letter may be silent, a phone always has a letter
    for _ in progress(_passes(align, folder, environment), f"g2p: aligning {len(lines)} words", PASSES, "passes"):
        pass
    pairs = (folder / "pairs").read_text(encoding="utf-8", errors="replace").split("\n")
    longest = max(len(line.split()) for line in pairs)
    if not longest:
        raise _G2pError("phonetisaurus could align no word of the lexicon with its phones")
    order = str(min(ORDER, longest + 1))  # with <s>; estimate-ngram crashes on an order above every word's length
    _run(["estimate-ngram", "-o", order, "-t", "pairs", "-wl", "arpa"], folder, environment)
    _run(["phonetisaurus-arpa2wfst", "--lm=arpa", "--ofile=model.fst"], folder, environment)


def _passes(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Runs the aligner; yields its line on each pass as it comes."""
    with _start(command, folder, environment) as process:
        assert process.stderr is not None
        yield from (line for line in process.stderr if line.startswith("Iteration"))
    _require_success(process.returncode, command)


def _run(command: list[str], folder: str | Path, environment: dict[str, str]) -> str:
    """Runs a command of Phonetisaurus; returns its standard output."""
    with _start(command, folder, environment) as process:
        out, _ = process.communicate()
    _require_success(process.returncode, command)
    return out


def _start(command: list[str], folder: str | Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise _G2pError(f"phonetisaurus has no {command[0]} for this machine") from error


def _require_success(status: int, command: list[str]) -> None:
    if status:
        raise _G2pError(f"{command[0]} failed (status {status}): too few words to learn from?")


def _parse_predictions(lines: Iterable[str]) -> Iterator[tuple[str, Pronunciation]]:
    """Yields words and their phones from lines of word, cost and phones."""
    for line in lines:
        word, _, rest = line.partition("\t")
        _, _, phones = rest.partition("\t")
        if phones.split():
            yield word, tuple(phones.split())
