import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.text.ngram_files import load_lm, read_ngrams, write_ngrams
from asrtool.text.ngram_perplexity import measure
from asrtool.text.ngram_text import read_corpus
from tests.text.test_ngram import MODEL, PRUNED, toy_text


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
    corpus = read_corpus(toy_text(20, seed=3))
    found = []
    for name in ("lm.npz", "lm.arpa"):
        write_ngrams(MODEL, tmp_path / name)
        found.append(measure(tmp_path / name, corpus).perplexities[0].known)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


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
