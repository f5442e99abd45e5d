import itertools
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from asrtool.errors import UserError
from asrtool.lm.corpus import build_corpus, case_hint, limit_vocabulary, read_word_list, read_word_sequences
from asrtool.lm.ngram import SPECIAL_WORDS
from asrtool.lm.ngram_pruning import perplexity_rises, prune_ngrams, recompute_backoffs
from asrtool.lm.ngram_training import FALLBACK_DISCOUNTS, kneser_ney_discounts, train_ngrams
from asrtool.text.tokenizer_training import train_tokenizer

BOS, EOS = "<s>", "</s>"


def toy_text(count=300, seed=1):
    """Sentences of six words of very different frequency, each with a liking for some others: Zipf's law in small."""
    draw = random.Random(seed)
    words = ["a", "b", "c", "d", "e", "f"]
    lines = []
    for _ in range(count):
        line = [draw.choice(words)]
        while draw.random() < 0.85:
            weights = [1 / (1 + (i - 2 * words.index(line[-1])) % 6) ** 2 for i in range(6)]
            line.append(draw.choices(words, weights)[0])
        lines.append(line)
    return lines


TEXT = toy_text()
CORPUS = limit_vocabulary(build_corpus(TEXT))
MODEL = train_ngrams(CORPUS, 4)
CUT = train_ngrams(CORPUS, 4, [0, 0, 1, 2])
PRUNED = prune_ngrams(MODEL, 1e-3)


def textbook(lines, order, cutoffs, vocabulary):
    """{n-gram: probability}, {history: gamma} by the formulas, with dictionaries of tuples."""
    raw, before = Counter(), defaultdict(set)
    for line in lines:
        line = [BOS, *line, EOS]
        for n in range(1, order + 1):
            for at in range(len(line) - n + 1):
                gram = tuple(line[at : at + n])
                raw[gram] += 1
                if at:
                    before[gram].add(line[at - 1])
    full = {gram: raw[gram] if len(gram) == order or gram[0] == BOS else len(before[gram]) for gram in raw}
    full |= {(word,): 0 for word in vocabulary if (word,) not in full} | {(BOS,): 0}
    probs, gammas = {}, {}
    for n in range(1, order + 1):
        grams = [gram for gram in full if len(gram) == n]
        times = Counter(full[gram] for gram in grams)
        y = times[1] / (times[1] + 2 * times[2]) if times[1] else 0
        d = [0] + [j - (j + 1) * y * times[j + 1] / times[j] if times[j] else -1 for j in (1, 2, 3)]
        d = d if min(d[1:]) > 0 else [0, 0.5, 1, 1.5]
        followers = defaultdict(list)
        for gram in grams:
            followers[gram[:-1]].append(gram)
        for history, grams in followers.items():
            total = sum(full[gram] for gram in grams)
            kept = [gram for gram in grams if n == 1 or raw[gram] > cutoffs[n - 1]]
            spent = {gram: d[min(full[gram], 3)] for gram in kept}
            gamma = (total - sum(full[gram] - spent[gram] for gram in kept)) / total if total else 1
            gammas[history] = gamma
            for gram in kept:
                lower = probs[gram[1:]] if n > 1 else 1 / (len(vocabulary) - 1)
                probs[gram] = (full[gram] - spent[gram]) / (total or 1) + gamma * lower
    return probs, gammas


def ngrams(model):
    """{n-gram: (log-prob, log back-off weight)} of a model."""
    entries = {}
    for n in range(1, model.order + 1):
        nodes = np.arange(model.trie.nodes(n).start, model.trie.nodes(n).stop)
        for node, *numbers in zip(nodes, *model.trie.ngram_words(nodes, n), strict=True):
            gram = tuple(model.words[number] for number in numbers)
            entries[gram] = float(model.logprobs[node]), float(model.backoffs[node])
    return entries


def sums(model, rounds=60):
    """The sums of the probabilities of all words but <s> after random histories, seen or not."""
    draw = random.Random(2)
    for _ in range(rounds):
        history = [draw.randrange(len(model.words)) for _ in range(draw.randrange(model.order + 1))]
        history = [model.bos] * draw.randrange(2) + [number for number in history if number != model.bos]
        yield sum(math.exp(model.logprob(history, word)) for word in range(len(model.words)) if word != model.bos)


def numbers(model, lines):
    return np.array([number for line in lines for number in model.word_ids([BOS, *line, EOS])])


@pytest.mark.parametrize("order, cutoffs", [(1, [0]), (2, [0, 0]), (3, [0, 0, 0]), (4, [0] * 4), (4, [0, 0, 1, 2])])
def test_trained_model_is_what_the_textbook_says(order, cutoffs):
    entries = ngrams(train_ngrams(CORPUS, order, cutoffs))
    probs, gammas = textbook(TEXT, order, cutoffs, CORPUS.words)
    assert entries.keys() == probs.keys() and sum(len(gram) == order for gram in probs) > 6
    for gram, (logprob, backoff) in entries.items():
        if gram != (BOS,):
            assert math.exp(logprob) == pytest.approx(probs[gram], rel=1e-5), gram
        assert math.exp(backoff) == pytest.approx(gammas.get(gram, 1), rel=1e-5), gram


@pytest.mark.parametrize(
    "model", [MODEL, CUT, PRUNED, prune_ngrams(CUT, size=60)], ids=["all", "cut", "pruned", "both"]
)
def test_probabilities_sum_to_one_after_any_history(model):
    assert list(sums(model)) == pytest.approx([1] * 60, abs=2e-5)


def test_words_outside_the_vocabulary_are_learned_as_unknown():
    model = train_ngrams(limit_vocabulary(build_corpus(TEXT), vocabulary=["a", "b", "c", "never"]), 3)
    assert model.words == [*SPECIAL_WORDS, "a", "b", "c", "never"]
    assert list(sums(model)) == pytest.approx([1] * 60, abs=2e-5)
    assert model.score(model.start, "f") == model.score(model.start, "<unk>") > model.score(model.start, "never")
    assert model.score(model.start, "never")[0] > -10


@pytest.mark.parametrize("model", [MODEL, CUT, PRUNED], ids=["all", "cut", "pruned"])
def test_scoring_a_whole_text_or_word_by_word_or_by_histories_is_the_same(model):
    lines = [*toy_text(20, seed=5), ["a", "zzz", "b"], []]
    whole = iter(model.token_logprobs(numbers(model, lines)))
    for line in lines:
        assert next(whole) == 0
        state, history = model.start, [model.bos]
        for word in [*line, EOS]:
            logprob, state = model.score(state, word)
            assert logprob == pytest.approx(next(whole), abs=1e-5)
            assert logprob == pytest.approx(model.logprob(history, model.ids.get(word, model.unk)), abs=1e-5)
            history.append(model.ids.get(word, model.unk))
    assert next(whole, None) is None


def test_states_are_equal_where_the_history_no_longer_matters():
    model = train_ngrams(limit_vocabulary(build_corpus([["a", "b", "c"], ["d", "b", "e"], ["a", "c"]])), 3)
    state = {line: model.start for line in itertools.product("acde", "cde")}
    for line in state:
        for word in line:
            state[line] = model.score(state[line], word)[1]
    assert state["c", "d"] == state["e", "d"] == state["d", "d"]  # none of these bigrams was seen
    assert state["a", "c"] != state["e", "c"]  # this one was


def test_too_few_ngrams_get_fallback_discounts_with_a_warning(capsys):
    assert (kneser_ney_discounts(np.array([1, 1, 2, 7]), 3) == FALLBACK_DISCOUNTS).all()
    assert "WARNING" in capsys.readouterr().err
    enough = np.repeat([1, 2, 3, 4], [40, 20, 10, 5])
    assert kneser_ney_discounts(enough, 3) == pytest.approx([0, 0.5, 1.25, 2])  # y = 40 / 80
    assert capsys.readouterr().err == ""


def test_vocabulary_is_the_most_frequent_words_or_those_seen_often_enough():
    corpus = build_corpus([["b"] * 5 + ["a"] * 3 + ["c"] * 3 + ["d"]])
    assert limit_vocabulary(corpus, top=2).words == [*SPECIAL_WORDS, "a", "b"]  # of a and c the first by name
    assert limit_vocabulary(corpus, min_count=3).words == [*SPECIAL_WORDS, "a", "b", "c"]
    assert limit_vocabulary(corpus, top=9).word_counts().tolist() == [0, 1, 1, 3, 5, 3, 1]
    assert limit_vocabulary(corpus, top=1).word_counts().tolist() == [7, 1, 1, 5]


def test_perplexity_rises_are_exact_when_one_ngram_is_removed():
    model = train_ngrams(CORPUS, 3)
    rises, joint = perplexity_rises(model), {(BOS,): model.logprobs[1 + model.eos]}
    entries = ngrams(model)
    for gram, (logprob, _) in entries.items():
        joint.setdefault(gram, joint.get(gram[:-1], 0) + logprob)
    needed = np.isin(np.arange(len(rises)), model.trie.suffixes) | model.trie.has_children
    leaves = np.flatnonzero(~needed & np.isfinite(rises))
    for node in leaves[:: len(leaves) // 25]:
        chosen = np.arange(len(rises)) != node
        values = (values[chosen] for values in (model.logprobs, model.backoffs))
        without = recompute_backoffs(type(model)(model.words, model.trie.subset(chosen), *values))
        *history, _ = gram = list(entries)[node - 1]
        after = [[m.logprob(m.word_ids(history), w) for w in range(len(m.words))] for m in (model, without)]
        divergence = sum(math.exp(p) * (p - q) for w, (p, q) in enumerate(zip(*after, strict=True)) if w != model.bos)
        rise = math.expm1(math.exp(joint[tuple(history)]) * divergence)
        assert rises[node] == pytest.approx(rise, rel=1e-2, abs=1e-7), gram


def test_pruning_keeps_words_prefixes_and_suffixes_and_removes_more_at_a_higher_threshold():
    sizes = [set(ngrams(prune_ngrams(MODEL, threshold))) for threshold in (1e-9, 1e-4, 1e-2, 1e9)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == {(word,) for word in CORPUS.words}
    assert all({gram[:-1], gram[1:]} <= kept for kept in sizes for gram in kept if len(gram) > 1)


@pytest.mark.parametrize("size", range(4, 9))
def test_no_model_is_larger_than_asked_for(size):
    """Also where histories leave no probability to other words, as without smoothing."""
    sentences = [["a", "b"], ["b"], ["a"], ["b", "a", "b"]]
    model = train_ngrams(limit_vocabulary(build_corpus(sentences * 4)), 2)
    nodes = model.trie.nodes(2)
    prefixes, _ = model.trie.prefixes_and_words(2)
    sums = np.bincount(prefixes, np.exp(model.logprobs[nodes].astype(float)))
    model.logprobs[nodes] -= np.log(sums[prefixes]).astype(np.float32)
    try:
        pruned = prune_ngrams(model, size=size)
    except UserError as error:
        assert f"--size {size} has no room for the" in str(error)
    else:
        assert sum(pruned.trie.counts()) <= size


@pytest.mark.parametrize("size", [20, 77, 10**6])
def test_pruning_to_a_size_keeps_the_most_useful(size):
    model = prune_ngrams(MODEL, size=size)
    assert min(size, len(MODEL.trie) - 1) * 0.8 < sum(model.trie.counts()) <= size
    tokens = numbers(MODEL, TEXT)
    assert model.token_logprobs(tokens).sum() <= MODEL.token_logprobs(tokens).sum() + 1e-2


def test_impossible_requests_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "torn.gz").write_bytes(b"\x1f\x8b\x08\x00\x00")
    wishes = {
        "--order 3": lambda: train_ngrams(limit_vocabulary(build_corpus([["a"]])), 4),
        "cutoffs 0,2,1": lambda: train_ngrams(CORPUS, 3, [0, 2, 1]),
        "the first must be 0": lambda: train_ngrams(CORPUS, 3, [1]),
        "no room": lambda: prune_ngrams(MODEL, size=3),
        "no words": lambda: build_corpus(read_word_sequences([tmp_path / "empty.txt"])),
        "not UTF-8": lambda: build_corpus(read_word_sequences([tmp_path / "latin.txt"])),
        "torn.gz": lambda: build_corpus(read_word_sequences([tmp_path / "torn.gz"])),
        "none.txt": lambda: build_corpus(read_word_sequences([tmp_path / "none.txt"])),
        "sentence 2": lambda: build_corpus([["a"], ["a", "</s>", "b"]]),
        "--case upper": lambda: limit_vocabulary(CORPUS, vocabulary=["A", "B", "C"]),
        "'x'": lambda: limit_vocabulary(CORPUS, vocabulary=["x", "y"]),
        "no words in": lambda: read_word_list(tmp_path / "empty.txt"),
        "word list": lambda: read_word_list(tmp_path / "none.txt"),
    }
    for complaint, wish in wishes.items():
        with pytest.raises(UserError) as caught:
            wish()
        assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_words_come_from_lists_lexicons_and_symbol_tables(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<eps> 0\nA AH\nA(2) EY\n\nbé B EY\nA AH\n<s> 4\n#0 5\n<UNK> 6\n", encoding="utf-8")
    assert read_word_list(path) == ["A", "bé"]


def test_the_case_hint_is_given_only_where_case_is_the_cause():
    assert "--case lower" in case_hint(["A", "B", "x"], ["a", "b"])
    assert case_hint(["a", "b", "X"], ["a", "b", "x"]) == case_hint(["q"], ["a"]) == case_hint([], ["a"]) == ""


@pytest.mark.parametrize("case", ["keep", "upper", "lower"])
@pytest.mark.parametrize("line", ["<s> yes no </s>", "yes <S>", "</S>", "no </s> yes"])
@pytest.mark.parametrize("units", [None, "char"])
def test_sentence_marks_in_a_text_are_refused_in_any_case(tmp_path, case, line, units):
    (tmp_path / "t.txt").write_text(f"yes\n{line}\n")
    tokenizer = units and train_tokenizer(units, ["yes no < > / s S"])
    with pytest.raises(UserError, match=r"sentence 2 of .*t.txt has <.*> among its words; remove <s> and </s>"):
        list(read_word_sequences([tmp_path / "t.txt"], case, tokenizer))


@pytest.mark.parametrize("case, words", [("keep", ["Yes", "no"]), ("upper", ["YES", "NO"]), ("lower", ["yes", "no"])])
def test_the_unknown_word_of_a_text_stays_the_unknown_word_in_any_case(tmp_path, case, words):
    (tmp_path / "t.txt").write_text("<unk> Yes\n<UNK> no\n<Unk> Yes\n")
    corpus = build_corpus(read_word_sequences([tmp_path / "t.txt"], case))
    assert corpus.words == ["<unk>", "<s>", "</s>", *words] and corpus.word_counts()[0] == 3


def test_a_tokenizer_leaves_out_sentences_with_the_unknown_word(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("un <unk>\nnuk\n<UNK>\n")
    tokenizer = train_tokenizer("char", ["unk < > UNK"])
    assert list(read_word_sequences([tmp_path / "t.txt"], "keep", tokenizer)) == [["n", "u", "k"]]
    assert "2 sentences were left out" in capsys.readouterr().err


def test_log_probs_of_trained_models_are_never_above_zero():
    assert all((model.logprobs <= 0).all() for model in (MODEL, CUT, PRUNED))


WORD_LISTS = {
    "comments": ("# of names\n;;; of CMUdict\n#one\na\nb # the second\n\n", ["a", "b"]),
    "alternatives": ("a AH\na(1) EY\nb(2) B IY\n(1) W AH N\n", ["a", "b", "(1)"]),
    "words.txt": ("<eps> 0\na 1\nb 2\n#0 3\n<s> 4\n</s> 5\n", ["a", "b"]),
    "composed": ("e\u0301 EY\n", ["\u00e9"]),
}


@pytest.mark.parametrize("text, words", WORD_LISTS.values(), ids=WORD_LISTS)
def test_a_word_list_has_the_words_of_a_lexicon_of_the_same_lines(tmp_path, text, words):
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    assert read_word_list(path) == words
