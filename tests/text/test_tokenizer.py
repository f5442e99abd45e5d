import base64
import io
import json
import os
import pickle
import re
import unicodedata

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.errors import DataError, UserError
from asrtool.text.tokenizer import BLANK, load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer

KINDS = ["bpe", "char", "word"]
TEXTS = [
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "PACK MY BOX WITH FIVE DOZEN LIQUOR JUGS",
    "IT'S THE DOG'S DAY",
    "größer als 東京 été",
] * 3
TOKENIZERS = {kind: train_tokenizer(kind, TEXTS, vocab_size=60) for kind in KINDS}
seen_words = st.lists(st.sampled_from(" ".join(TEXTS).split()), min_size=1).map(" ".join)
seen_characters = st.text("".join(sorted(set("".join(TEXTS)))), min_size=1)
few = settings(max_examples=50, deadline=None)


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return TOKENIZERS[request.param]


@few
@given(st.sampled_from(["bpe", "char"]), seen_characters)
def test_units_of_characters_encode_any_text_of_known_characters(kind, text):
    tokenizer = TOKENIZERS[kind]
    units = tokenizer.encode(text)
    assert tokenizer.unknown(text) == []
    assert tokenizer.decode(units) == " ".join(text.split())
    assert all(BLANK < unit < tokenizer.size for unit in units)


@few
@given(seen_words)
def test_units_of_words_encode_any_text_of_known_words(text):
    tokenizer = TOKENIZERS["word"]
    units = tokenizer.encode(text)
    assert len(units) == len(text.split())
    assert tokenizer.decode(units) == text
    assert all(BLANK < unit < tokenizer.size for unit in units)


def test_any_white_space_is_one_space(tokenizer):
    assert tokenizer.encode("\u00a0THE\u3000 \tDOG\n") == tokenizer.encode("THE DOG")


def test_symbols_are_as_many_as_the_size_and_differ(tokenizer):
    assert len(set(tokenizer.symbols)) == len(tokenizer.symbols) == tokenizer.size
    assert tokenizer.symbols[BLANK] == "<blank>"


def test_nothing_decodes_to_nothing(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    ("kind", "text", "missing"),
    [
        ("word", "THE CAT OVER THE HAT", ["CAT", "HAT"]),
        ("word", "the DOG", ["the"]),
        ("char", "THE ©AT z", ["©", "z"]),
        ("bpe", "THE ©AT z", ["©", "z"]),
        ("bpe", "THE DOG", []),
    ],
)
def test_unknown_lists_what_has_no_unit_and_encode_refuses_it(kind, text, missing):
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.unknown(text) == missing
    if missing:
        with pytest.raises(KeyError):
            tokenizer.encode(text)


@few
@given(st.text())
def test_a_text_without_unknown_characters_can_be_encoded(text):
    for tokenizer in TOKENIZERS.values():
        if not tokenizer.unknown(text):
            assert BLANK not in tokenizer.encode(text)


@pytest.mark.parametrize("text", ["<unk>", "THE <blank> DOG", "<blank>", "<unk> DOG <unk>"])
def test_a_transcript_cannot_name_the_blank(tokenizer, text):
    assert tokenizer.unknown(text)
    with pytest.raises(KeyError):
        tokenizer.encode(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mark", ["<unk>", "<UNK>", "<s>", "</S>", "<blank>", "<eps>", "a\x07b", "\ud800"])
def test_marks_in_transcripts_are_refused_with_their_counts(kind, mark):
    with pytest.raises(DataError, match="1 words of the transcripts cannot have units: remove them") as caught:
        train_tokenizer(kind, [*TEXTS, f"THE {mark} DOG", mark], vocab_size=60)
    [problem] = caught.value.problems
    assert problem.startswith(f"{mark}: 2 times; ")


@pytest.mark.parametrize("kind, word", [("char", "a\u2581b"), ("bpe", "a\u2581b"), ("word", "#1")])
def test_words_that_units_would_take_for_something_else_are_refused(kind, word):
    with pytest.raises(DataError, match="cannot have units"):
        train_tokenizer(kind, [*TEXTS, word], vocab_size=60)


def test_words_in_angle_brackets_that_are_not_marks_are_words():
    assert train_tokenizer("word", ["a <noise> b <"]).symbols == ["<blank>", "<", "<noise>", "a", "b"]


def test_the_text_is_not_normalised(tokenizer):
    """What the recipe wrote is what is learnt: the full-width letter is not the letter."""
    assert tokenizer.unknown("\uff34\uff28\uff25")
    decomposed = unicodedata.normalize("NFD", "été")
    assert tokenizer.unknown(decomposed)


@pytest.mark.parametrize("copy", [lambda t: pickle.loads(pickle.dumps(t)), None], ids=["pickle", "file"])
def test_a_copy_gives_the_same_units(tokenizer, tmp_path, copy):
    if copy is None:
        save_tokenizer(tokenizer, tmp_path / "t.json")
        other = load_tokenizer(tmp_path / "t.json")
    else:
        other = copy(tokenizer)
    assert other.symbols == tokenizer.symbols
    for text in TEXTS:
        units = other.encode(text)
        assert units == tokenizer.encode(text)
        assert other.decode(units) == text


def test_training_twice_gives_the_same_file(tokenizer):
    again = train_tokenizer(tokenizer.to_dict()["type"], TEXTS, vocab_size=60)
    assert again.to_dict() == tokenizer.to_dict()


def test_bpe_has_exactly_the_size_asked_for():
    assert TOKENIZERS["bpe"].size == 60
    assert train_tokenizer("bpe", TEXTS, vocab_size=75).size == 75


def test_a_vocabulary_too_large_is_refused_with_the_largest_that_works():
    with pytest.raises(UserError, match="--vocab-size 5000 .* give at most") as caught:
        train_tokenizer("bpe", TEXTS, vocab_size=5000)
    largest = int(re.search(r"give at most (\d+)$", str(caught.value)).group(1))
    assert train_tokenizer("bpe", TEXTS, vocab_size=largest).size == largest
    with pytest.raises(UserError, match=f"give at most {largest}"):
        train_tokenizer("bpe", TEXTS, vocab_size=largest + 1)


def test_a_vocabulary_too_small_is_refused_with_the_smallest_that_works():
    with pytest.raises(UserError, match="--vocab-size 10 .* characters") as caught:
        train_tokenizer("bpe", TEXTS, vocab_size=10)
    smallest = int(re.search(r"at least (\d+)$", str(caught.value)).group(1))
    assert train_tokenizer("bpe", TEXTS, vocab_size=smallest).size == smallest
    with pytest.raises(UserError, match="characters"):
        train_tokenizer("bpe", TEXTS, vocab_size=smallest - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"]])
def test_a_text_without_words_is_refused(kind, texts):
    with pytest.raises(UserError, match="no transcripts"):
        train_tokenizer(kind, texts)


def test_a_very_long_transcript_counts_as_well():
    assert TOKENIZERS["bpe"].unknown("Ω")
    assert not train_tokenizer("bpe", [*TEXTS, "OMEGA " * 1000 + "Ω"], vocab_size=60).unknown("Ω")


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="not found.*asrtool tokenizer"):
        load_tokenizer(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"type": "word"}',
        '{"symbols": ["<blank>", "a"]}',
        '{"type": "bpe", "model": "AAAA"}',
        '{"type": "bpe", "model": 3}',
        '{"type": "phone", "symbols": ["<blank>", "a"]}',
        '{"type": "word", "symbols": 3}',
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} is not a tokenizer"):
        load_tokenizer(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tokenizer, tmp_path, share):
    path = tmp_path / "t.json"
    save_tokenizer(tokenizer, path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "t.json").write_bytes(b"\x1f\x8b\x00\xff")
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(tmp_path / "t.json")


def word(*symbols):
    return {"type": "word", "symbols": [*symbols]}


def bpe(**changes):
    """A model of sentencepiece that asrtool would not train."""
    model = io.BytesIO()
    options = {"model_type": "bpe", "vocab_size": 60, "unk_id": 0, "bos_id": -1, "eos_id": -1, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=model, **(options | changes))
    return {"type": "bpe", "model": base64.b64encode(model.getvalue()).decode()}


@pytest.mark.parametrize(
    "content, complaint",
    [
        (word(), "0 symbols"),
        (word("<blank>"), "1 symbols, not 2 to"),
        (word("<blank>", *map(str, range(1_000_001))), "1000002 symbols"),
        (word("a", "<blank>"), "first symbol is not <blank>"),
        (word("<blank>", "a", "a"), "a symbol occurs twice"),
        (word("<blank>", "a", "<blank>"), "twice"),
        (word("<blank>", "a", ""), "'' cannot be a unit"),
        (word("<blank>", "a b"), "'a b' cannot be a unit"),
        (word("<blank>", "a\u00a0"), "cannot be a unit"),
        (word("<blank>", "a\n"), "cannot be a unit"),
        (word("<blank>", "a\0b"), "cannot be a unit"),
        (word("<blank>", "\x7f"), "cannot be a unit"),
        (word("<blank>", "<unk>"), "'<unk>' cannot be a unit"),
        (word("<blank>", "</S>"), "'</S>' cannot be a unit"),
        (word("<blank>", 3), "not a list of strings"),
        (word("<blank>", None), "not a list of strings"),
        (word("<blank>", ["a"]), "not a list of strings"),
        ({"type": "word", "symbols": "ab"}, "not a list of strings"),
        ({"type": "word", "symbols": {"<blank>": 0, "a": 1}}, "not a list of strings"),
        ({"type": "char", "symbols": ["<blank>", "ab"]}, "several characters"),
        ({"type": "word"}, "no 'symbols'"),
        ({"symbols": ["<blank>", "a"]}, "no 'type'"),
        ({"type": "words", "symbols": ["<blank>", "a"]}, "type is unknown"),
        ({"type": ["word"], "symbols": ["<blank>", "a"]}, "type is unknown"),
        (["<blank>", "a"], "not an object"),
        (None, "not an object"),
        ({"type": "bpe", "model": ""}, "t.json is not a tokenizer"),
        ({"type": "bpe", "model": "A" * 1000}, "t.json is not a tokenizer"),
        ({"type": "bpe", "model": "%%%%"}, "t.json is not a tokenizer"),
        ({"type": "bpe", "model": ["AAAA"]}, "t.json is not a tokenizer"),
        (bpe(unk_id=1, bos_id=0), "unknown one"),
        (bpe(bos_id=1), "'<s>' cannot be a unit"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_files_with_invalid_units_are_refused_by_name(tmp_path, content, complaint):
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="t.json is not a tokenizer") as caught:
        load_tokenizer(tmp_path / "t.json")
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"type": "word", "symbols": ["<blank>", NaN]}', '"\\ud800"', "\ufeff{}"]
)
def test_json_that_is_not_strict_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="t.json is not a tokenizer"):
        load_tokenizer(tmp_path / "t.json")


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_trained_on_the_composed_form(kind):
    texts = [unicodedata.normalize("NFD", text) for text in TEXTS]
    assert train_tokenizer(kind, texts, vocab_size=60).symbols == TOKENIZERS[kind].symbols


@pytest.mark.parametrize("piece", ["\u2581", "E", "東"])
def test_characters_that_a_changed_bpe_model_cannot_encode_are_unknown(tmp_path, piece):
    content = TOKENIZERS["bpe"].to_dict()
    model = base64.b64decode(content["model"])
    name = piece.encode()
    entry = b"\n" + bytes([len(name)]) + name  # field 1 of a piece: its text
    assert model.count(entry) >= 1
    changed = model.replace(entry, entry[:2] + ("€" if len(name) == 3 else "\x07").encode())
    (tmp_path / "bpe.json").write_text(json.dumps({"type": "bpe", "model": base64.b64encode(changed).decode()}))
    try:
        loaded = load_tokenizer(tmp_path / "bpe.json")
    except UserError:
        return
    for text in TEXTS:
        if not loaded.unknown(text):
            assert BLANK not in loaded.encode(text)
    assert loaded.unknown(TEXTS[0] + TEXTS[3])
