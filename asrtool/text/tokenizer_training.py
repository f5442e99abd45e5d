"""Builds tokenizers from transcripts (asrtool/text/tokenizer.py)."""

import io
import re
from collections.abc import Iterable, Sequence

from asrtool.errors import DataError, UserError
from asrtool.text.context_units import SIDES, ContextTokenizer, untied_trees
from asrtool.text.lexicon import Lexicon, is_reserved
from asrtool.text.tokenizer import (
    BLANK,
    BLANK_SYMBOL,
    MAX_UNITS,
    SPACE,
    BpeTokenizer,
    PhoneTokenizer,
    SymbolTokenizer,
    Tokenizer,
    check_symbols,
)
from asrtool.text.words import composed, count_words, has_control_characters, is_mark, most_frequent_words, shortened


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int = 500) -> Tokenizer:
    """Returns a tokenizer of `kind` "bpe", "char" or "word" from transcripts. `vocab_size` is used for bpe alone.

    Raises UserError without any text, and DataError that counts the words no unit can stand for, such as <unk>.
    """
    texts = [" ".join(composed(text).split()) for text in texts if text.strip()]
    if not texts:
        raise UserError("no transcripts to train a tokenizer on; look at the manifest's supervisions")
    _refuse_words_without_units(kind, texts)
    if kind == "bpe":
        return _train_bpe(texts, vocab_size)
    splitter = SymbolTokenizer(kind, [])
    symbols = {symbol for text in texts for symbol in splitter.split(text)}
    return SymbolTokenizer(kind, [BLANK_SYMBOL, *sorted(symbols)])


def _train_bpe(texts: Sequence[str], vocab_size: int) -> BpeTokenizer:
    """Returns BPE of exactly `vocab_size` units, blank included.

    Raises UserError when the text has too few different ones.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,  # every character of the transcripts has a unit
            max_sentence_length=1 << 24,  # bytes; longer sentences would be left out without a word
            normalization_rule_name="identity",  # the transcripts are normalised by the recipe alone
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    return BpeTokenizer(model.getvalue())


def _explain(message: str, vocab_size: int) -> str:
    """Returns sentencepiece's complaint about the vocabulary size in one line, with the sizes that are possible."""
    if "Vocabulary size too high" in message:
        largest = message.rstrip().rstrip(".").split()[-1]
        return f"--vocab-size {vocab_size} is more than this text has units for; give at most {largest}"
    if "smaller than required_chars" in message or "Vocabulary size is smaller" in message:
        match = re.search(r"\d+ vs (\d+)", message)
        advice = f"at least {match[1]}" if match else "more"
        return f"--vocab-size {vocab_size} is too few for the text's characters; give {advice}"
    return f"sentencepiece could not train on this text: {' '.join(message.split())}"


def _refuse_words_without_units(kind: str, texts: Iterable[str]) -> None:
    counts = count_words(texts)
    reasons = {word: reason for word in most_frequent_words(counts) if (reason := _why_no_unit(kind, word))}
    if reasons:
        rows = [f"{shortened(word)}: {counts[word]} times; {reason}" for word, reason in reasons.items()]
        hint = "remove them, or the sentences that have them, from the transcripts"
        raise DataError(f"{len(rows)} words of the transcripts cannot have units: {hint}", rows)


def _why_no_unit(kind: str, word: str) -> str:
    """Returns why a tokenizer of `kind` can have no unit for `word`; an empty text where it can."""
    if is_mark(word) or (kind == "word" and is_reserved(word)):
        return "a mark of language models and graphs, not a spoken word"
    if has_control_characters(word):
        return "it has control characters"
    return f"{SPACE} stands for a space in the units" if kind != "word" and SPACE in word else ""


def phone_tokenizer(lexicon: Lexicon, texts: Iterable[str], silence: str | None = None) -> PhoneTokenizer:
    """Returns a tokenizer of the lexicon's phones, sorted, after the blank and the unit `silence` if one is named.

    Raises DataError with all words of the transcripts `texts` that have no pronunciation.
    """
    counts = count_words(texts)
    if not counts:
        raise UserError("no transcripts to build a tokenizer for; look at the manifest's supervisions")
    if silence and (is_reserved(silence) or silence.split() != [silence]):
        raise UserError(f"'{silence}' cannot be the name of the silence unit; take SIL, for example")
    missing = [word for word in most_frequent_words(counts) if word not in lexicon.pronunciations]
    if len(missing) == len(counts):
        raise UserError(f"the lexicon has none of the transcripts' {len(counts)} words; are they in another case?")
    if missing:
        rows = [f"{shortened(word)}: {counts[word]} times" for word in missing]
        hint = "create a lexicon with them by `asrtool lexicon --unknown g2p`"
        if marks := [word for word in missing if is_mark(word)]:
            hint = f"give {marks[0]} a line such as `{marks[0]} SPN` in the lexicon, or remove it from the transcripts"
        raise DataError(f"{len(missing)} of {len(counts)} words have no pronunciation; {hint}", rows)
    phones = [phone for phone in lexicon.symbols if phone != silence]
    return PhoneTokenizer([BLANK_SYMBOL, *([silence] if silence else []), *phones], lexicon, silence)


def untied_tokenizer(kind: str, phones: PhoneTokenizer) -> ContextTokenizer:
    """Returns a tokenizer of `kind` "biphone" or "triphone" with a unit for each phone in each context.

    Raises UserError where they are more than a tokenizer may have, or where names of phones make two units equal.
    """
    contexts = phones.size ** len(SIDES[kind])
    if phones.size * contexts > MAX_UNITS:
        raise UserError(
            f"{phones.size - 1} phones have too many contexts for --type {kind}; tie them by `asrtool tree`"
        )
    symbols, trees = untied_trees(kind, phones)
    try:
        check_symbols(symbols)
    except ValueError as error:
        raise UserError(f"units of --type {kind} cannot be named: {error}; rename the phones of the lexicon") from error
    return ContextTokenizer(kind, symbols, phones, trees)
