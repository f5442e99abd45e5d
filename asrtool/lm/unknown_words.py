"""What a language model gives to words that it lacks, such as hotwords, where results have them.

The <unk> of a model stands for all words that it lacks together, so it is far more probable than any of them; a model
without <unk> makes them impossible. Here such a word is as probable as the model's rarest word, after any history.
"""

from typing import Any

from asrtool.lm.ngram import LN10, LOG_ZERO_ARPA, SPECIAL_WORDS, LanguageModel, NgramModel

NEVER_PREDICTED = LOG_ZERO_ARPA * LN10 / 2  # log-probs below this stand for 0, such as the log-prob of <s>


def rarest_word(model: NgramModel) -> str | None:
    """Returns the word with the lowest unigram among those that the model predicts; None if it predicts none."""
    unigrams = model.logprobs[model.trie.nodes(1)].astype(float)
    usable = unigrams > NEVER_PREDICTED
    usable[[model.ids[word] for word in SPECIAL_WORDS if word in model.ids] + [model.unk]] = False
    unigrams[~usable] = 0.0
    return model.words[int(unigrams.argmin())] if usable.any() else None


class RarestForUnknown:
    """A `LanguageModel` that scores each word that `model` lacks as the word `rarest`."""

    def __init__(self, model: NgramModel, rarest: str):
        self.model = model
        self.rarest = rarest
        self.start = model.start

    def __contains__(self, word: str) -> bool:
        """Returns whether the model has a log-prob for `word` itself."""
        return word in self.model

    def score(self, state: Any, word: str) -> tuple[float, Any]:
        """Returns the log-prob of `word` after `state`, and the state after it."""
        return self.model.score(state, word if word in self.model else self.rarest)


def score_unknown_as_rarest(model: LanguageModel) -> LanguageModel:
    """Returns the model with the rarest word's score for words that it lacks.

    A binary of KenLM does not list its words: it keeps its <unk>.
    """
    rarest = rarest_word(model) if isinstance(model, NgramModel) else None
    return RarestForUnknown(model, rarest) if isinstance(model, NgramModel) and rarest else model
