import math

import pytest

from asrtool.lm.ngram_files import read_ngrams
from asrtool.lm.unknown_words import rarest_word, score_unknown_as_rarest
from tests.graphs.paths import Bigram


def model(tmp_path, unigrams):
    return read_ngrams(Bigram(unigrams, {"<s>": -0.1, "A": -0.3}, {("A", "B"): -0.2}).write(tmp_path / "lm.arpa"))


@pytest.mark.parametrize("unknown", [{}, {"<unk>": -0.4}, {"<unk>": -7.0}, {"<UNK>": -7.0}])
def test_unknown_words_are_as_probable_as_the_rarest_word(tmp_path, unknown):
    lm = model(tmp_path, {"A": -0.4, "B": -0.9, "C": -1.7, "NEVER": -99, "</s>": -3.0, **unknown})
    assert rarest_word(lm) == "C"
    scored = score_unknown_as_rarest(lm)
    for history in ("A", "B"):
        _, state = scored.score(scored.start, history)
        assert scored.score(state, "NEW") == lm.score(state, "C")
        assert scored.score(state, "B") == lm.score(state, "B")
    assert scored.score(scored.start, "NEW")[0] == pytest.approx(math.log(10) * -1.8, abs=1e-5)
    assert "NEW" not in scored and "A" in scored


def test_a_model_without_words_is_left_as_it_is(tmp_path):
    lm = model(tmp_path, {"A": -99, "B": -99, "</s>": -0.1})
    assert rarest_word(lm) is None
    assert score_unknown_as_rarest(lm) is lm
