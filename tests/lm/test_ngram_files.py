import zipfile

import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.lm.corpus import build_corpus, limit_vocabulary
from asrtool.lm.ngram_files import convert_ngrams, load_lm, read_ngrams, source_hash, write_ngrams
from asrtool.lm.ngram_training import train_ngrams
from asrtool.lm.perplexity import measure_perplexity
from tests.lm.test_ngram import MODEL, PRUNED, toy_text


@pytest.mark.parametrize("model", [MODEL, PRUNED], ids=["all", "pruned"])
def test_compiled_model_is_the_same_model(tmp_path, model):
    write_ngrams(model, tmp_path / "lm.npz")
    again = load_lm(tmp_path / "lm.npz")
    assert again.words == model.words and again.trie.counts() == model.trie.counts() and again.start == model.start
    for name in ("logprobs", "backoffs", "states"):
        assert np.array_equal(getattr(again, name), getattr(model, name)), name
    for name in ("keys", "suffixes"):
        assert np.array_equal(getattr(again.trie, name), getattr(model.trie, name)), name


def test_words_of_other_alphabets_survive_compiling(tmp_path):
    model = type(MODEL)([*MODEL.words[:-1], "\u0161\u4e2d"], MODEL.trie, MODEL.logprobs, MODEL.backoffs)
    write_ngrams(model, tmp_path / "lm.npz")
    assert load_lm(tmp_path / "lm.npz").words == model.words


def test_searches_step_through_a_compiled_model_as_through_the_arpa(tmp_path):
    for name in ("lm.npz", "lm.arpa.gz"):
        write_ngrams(MODEL, tmp_path / name)
    compiled, arpa = load_lm(tmp_path / "lm.npz"), load_lm(tmp_path / "lm.arpa.gz")
    for line in toy_text(20, seed=3):
        mine, other = compiled.start, arpa.start
        for word in [*line, "</s>"]:
            (one, mine), (two, other) = compiled.score(mine, word), arpa.score(other, word)
            assert one == pytest.approx(two, abs=1e-5) and mine == other


def test_compiled_model_has_the_perplexity_of_the_arpa(tmp_path):
    corpus = build_corpus(toy_text(20, seed=3))
    perplexities = []
    for name in ("lm.npz", "lm.arpa"):
        write_ngrams(MODEL, tmp_path / name)
        perplexities.append(measure_perplexity(tmp_path / name, corpus).perplexities[0].without_unknown)
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-5)


def test_compiled_model_knows_the_arpa_that_it_was_converted_from(tmp_path):
    arpa, first, second, other = (tmp_path / name for name in ("lm.arpa", "one.npz", "two.npz", "other.npz"))
    write_ngrams(MODEL, arpa)
    convert_ngrams(arpa, first)
    convert_ngrams(first, second)
    assert source_hash(first) == source_hash(second) == source_hash(arpa) == file_hash(arpa)
    write_ngrams(MODEL, other)  # of no ARPA file
    assert source_hash(other) == file_hash(other)


def test_broken_compiled_models_are_refused_in_one_line(tmp_path):
    write_ngrams(MODEL, tmp_path / "lm.npz")
    whole = (tmp_path / "lm.npz").read_bytes()
    torn = bytearray(whole)
    torn[len(torn) // 2] ^= 255
    with open(tmp_path / "other.npz", "wb") as file:
        np.savez(file, words=np.zeros(3))
    broken = {"text": b"THE POOR", "empty": b"", "cut": whole[:-100], "torn": bytes(torn)}
    for name, content in broken.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in [*broken, "other"]:
        with pytest.raises(UserError, match="lm convert") as caught:
            read_ngrams(tmp_path / f"{name}.npz")
        assert f"{name}.npz" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not found"):
        read_ngrams(tmp_path / "none.npz")


def swap(values, one, other):
    values[[one, other]] = values[[other, one]]


DAMAGE = {
    "a word is gone from the unigrams": lambda a: a["keys"].__setitem__(4, 9),
    "the empty history is not first": lambda a: a["keys"].__setitem__(0, 0),
    "two n-grams are swapped": lambda a: swap(a["keys"], 70, 71),
    "an n-gram is there twice": lambda a: a["keys"].__setitem__(71, a["keys"][70]),
    "an n-gram has a prefix of its own order": lambda a: a["keys"].__setitem__(-1, 9 * len(a["keys"]) - 1),
    "a suffix is itself": lambda a: a["suffixes"].__setitem__(100, 100),
    "a suffix is of the same order": lambda a: a["suffixes"].__setitem__(300, 299),
    "a suffix is below zero": lambda a: a["suffixes"].__setitem__(100, -1),
    "a suffix of a word": lambda a: a["suffixes"].__setitem__(3, 1),
    "a suffix of the empty history": lambda a: a["suffixes"].__setitem__(0, 1),
    "a state is outside": lambda a: a["states"].__setitem__(5, len(a["keys"])),
    "a state is below zero": lambda a: a["states"].__setitem__(5, -7),
    "a log-prob above zero": lambda a: a["logprobs"].__setitem__(50, 0.5),
    "a log-prob that is NaN": lambda a: a["logprobs"].__setitem__(50, np.nan),
    "a log-prob that is -inf": lambda a: a["logprobs"].__setitem__(50, -np.inf),
    "a back-off that is NaN": lambda a: a["backoffs"].__setitem__(50, np.nan),
    "a back-off that is inf": lambda a: a["backoffs"].__setitem__(50, np.inf),
    "a back-off beyond all models": lambda a: a["backoffs"].__setitem__(50, 1e30),
    "fewer back-offs": lambda a: a.update(backoffs=a["backoffs"][:-1]),
    "fewer states": lambda a: a.update(states=a["states"][:-1]),
    "more keys": lambda a: a.update(keys=np.append(a["keys"], a["keys"][-1] + 1)),
    "offsets that fall": lambda a: swap(a["offsets"], 3, 4),
    "offsets of other words": lambda a: a["offsets"].__setitem__(2, 5),
    "no offsets": lambda a: a.update(offsets=a["offsets"][:0]),
    "an order without end": lambda a: a.update(offsets=np.append(a["offsets"], [len(a["keys"])] * 1000)),
    "no <s>": lambda a: a.update(words=np.frombuffer(a["words"].tobytes().replace(b"<s>", b"<t>"), np.uint8)),
    "no <unk>": lambda a: a.update(words=np.frombuffer(a["words"].tobytes().replace(b"<unk>", b"<unc>"), np.uint8)),
    "a word twice": lambda a: a.update(words=np.frombuffer(a["words"].tobytes().replace(b"a", b"b"), np.uint8)),
    "a word with a space": lambda a: a.update(words=np.frombuffer(a["words"].tobytes().replace(b"a", b" "), np.uint8)),
    "not UTF-8": lambda a: a.update(words=np.frombuffer(a["words"].tobytes().replace(b"a", b"\xff"), np.uint8)),
    "float keys": lambda a: a.update(keys=a["keys"].astype(float)),
    "keys in rows": lambda a: a.update(keys=a["keys"][None]),
    "log-probs of float64": lambda a: a.update(logprobs=a["logprobs"].astype(float)),
    "a scalar": lambda a: a.update(states=np.int32(3)),
    "objects": lambda a: a.update(states=np.array([{}])),
    "no keys": lambda a: a.pop("keys"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_unsound_compiled_models_are_refused_in_one_line(tmp_path, damage):
    write_ngrams(MODEL, tmp_path / "lm.npz")
    with np.load(tmp_path / "lm.npz") as file:
        arrays = dict(file)
    damage(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=r"bad.npz is not a compiled n-gram model.*lm convert") as caught:
        read_ngrams(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value)


def test_a_member_that_is_not_an_array_is_refused(tmp_path):
    write_ngrams(MODEL, tmp_path / "lm.npz")
    with zipfile.ZipFile(tmp_path / "lm.npz") as old, zipfile.ZipFile(tmp_path / "bad.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name.replace("states.npy", "states"), b"THE POOR" if name == "states.npy" else old.read(name))
    with pytest.raises(UserError, match="states is not a row of numbers"):
        read_ngrams(tmp_path / "bad.npz")


def test_a_compiled_model_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", words=np.zeros(110 << 20, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 200_000
    with pytest.raises(UserError, match="bomb.npz .*unpacked it would have 115,"):
        read_ngrams(tmp_path / "bomb.npz")


@pytest.mark.parametrize("word", ["", " ", "a b", "a\nb", "a\tb"])
@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.npz"])
def test_words_that_a_file_cannot_hold_are_not_written(tmp_path, name, word):
    model = train_ngrams(limit_vocabulary(build_corpus([["a", "b"]] * 9), ["a", "b", word]), 2)
    with pytest.raises(UserError, match="of the language model (is empty|has white space)") as raised:
        write_ngrams(model, tmp_path / name)
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())
