"""Drivers of the readers of text: lexicons, n-gram models, tokenizers, neural language models."""

from pathlib import Path

from asrtool.graphs.grammar import arpa_words, grammar_fst
from asrtool.lm.ngram_files import load_lm
from asrtool.text.lexicon import read_lexicon
from asrtool.text.tokenizer import load_tokenizer
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.material import TEXT, asrtool, build


def _lexicon_seeds(folder: Path) -> list[Path]:
    (plain,) = material.copy(folder, material.lexicon())
    (folder / "lexiconp.txt").write_text("one 1.0 w u n\ntwo 0.5 t u\ntwo 0.25 t o\n", encoding="utf-8")
    (folder / "cmudict.dict").write_text(";;; comment\nONE  W AH1 N\nONE(2)  HH W AH1 N # x\n", encoding="utf-8")
    return [plain, folder / "lexiconp.txt", folder / "cmudict.dict"]


def _read_lexicon(path: Path) -> None:
    ways = read_lexicon(path, stress="drop", case="upper").pronunciations
    if not all(way and all(way) for word in ways.values() for way in word):
        raise Wrong("an empty pronunciation")


def _read_arpa(path: Path) -> None:
    """Score sentences, for an endless chain of back-offs shows only then."""
    model = load_lm(path)
    for sentence in [*TEXT, "one five </s>"]:
        state = model.start
        for word in [*sentence.split(), "</s>"]:
            logprob, state = model.score(state, word)
            if not logprob < float("inf"):  # back-off weights need not be normalised, so it may be above 0
                raise Wrong(f"a log-prob of {logprob}")


def _perplexity(path: Path) -> None:
    _read_arpa(path)
    asrtool("lm", "perplexity", path, material.text())


def _grammar(path: Path) -> None:
    words = arpa_words(path)
    if grammar_fst(path, ["<eps>", *words, "#0"]) is None:
        raise Wrong("no graph")


def _tokenizer_seeds(folder: Path) -> list[Path]:
    bpe, char, phone = folder / "bpe.json", folder / "char.json", folder / "phone.json"
    build("tokenizer", material.manifest(), bpe, "--type", "bpe", "--vocab-size", 14)
    build("tokenizer", material.manifest(), char, "--type", "char")
    build("tokenizer", material.manifest(), phone, "--type", "phone", "--lexicon", material.lexicon())
    return [*material.copy(folder, material.tokenizer()), bpe, char, phone]


def _read_tokenizer(path: Path) -> None:
    found = load_tokenizer(path)
    if found.size < 2 or len({*found.symbols}) != found.size or not all(map(str.strip, found.symbols)):
        raise Wrong("symbols that are empty or not unique")
    for sentence in TEXT:
        if not found.unknown(sentence):
            units = found.encode(sentence)
            if not all(0 < unit < found.size for unit in units):
                raise Wrong("a unit that is not there")
            found.decode(units), found.pronunciation_units(sentence)


def _neural_seeds(folder: Path) -> list[Path]:
    shape = ("--vocab-size", 12, "--dim", 8, "--layers", 1, "--heads", 2, "--epochs", 1, "--device", "cpu")
    build("lm", "train-neural", material.text(), folder / "lm.pt", *shape)
    return [folder / "lm.pt"]


def _text_seeds(folder: Path) -> list[Path]:
    return material.copy(folder, material.text(), material.manifest())


DRIVERS = [
    Driver("lexicon", _lexicon_seeds, _read_lexicon),
    Driver("tokenizer", _tokenizer_seeds, _read_tokenizer),
    Driver("arpa", lambda f: material.copy(f, *map(material.language_model, ("lm.arpa", "lm.arpa.gz"))), _read_arpa),
    Driver("grammar", lambda f: material.copy(f, material.language_model("lm.arpa")), _grammar, spawns=True),
    Driver("compiled-ngram", lambda f: material.copy(f, material.language_model("lm.npz")), _perplexity),
    Driver("neural-lm", _neural_seeds, lambda path: asrtool("lm", "perplexity", path, material.text())),
    Driver("text", _text_seeds, lambda path: asrtool("lm", "train", path, "out.arpa", "--order", 2)),
]
