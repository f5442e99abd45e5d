import unicodedata
from collections import Counter

import pytest

from asrtool.errors import UserError
from asrtool.text.normalisation import count_characters, load_rules, propose_rules, rules_text, write_rules
from asrtool.text.normalisation_rules import NormalisationRules
from asrtool.text.normaliser import Normaliser, normalise, report_lines

SENTENCES = {
    "English": (
        "“Don't stop,” she said — it’s the well-known ‘U.S.A.’!",
        "don't stop she said it's the well known u s a",
    ),
    "German": ("Größe: „Schön!“", "größe schön"),
    "Ukrainian": ("П’ять об'єктів…", "п'ять об'єктів"),
    "Turkish": ("İstanbul’da ILIK bir gün, şimdi.", "istanbul'da ılık bir gün şimdi"),
    "Arabic": ("مرحبـــا، كيف الحال؟", "مرحبا كيف الحال"),
    "Hindi": ("मैं ठीक हूँ।", "मैं ठीक हूँ"),
    "Chinese": ("今天天气很好。我们去公园！", "今 天 天 气 很 好 我 们 去 公 园"),
    "Korean": ("안녕하세요, 여러분!", "안녕하세요 여러분"),
    "Thai": ("สวัสดีครับ", "สวัสดีครับ"),
    "Persian": ("می\u200cخواهم، نمی\u200cدانم.", "می\u200cخواهم نمی\u200cدانم"),  # joiners are part of the spelling
    "Marathi": ("ह्या तऱ\u200dहा।", "ह्या तऱ\u200dहा"),
    "Hebrew": ("\u200fצה״ל אמר: ״צ׳ק״", "צה״ל אמר צ׳ק"),
    "Catalan": ("Col·lecció, paral·lela.", "col·lecció paral·lela"),
    "Armenian": ("Ի՞նչ է սա։ Այո՛, լավ է՜", "ինչ է սա այո լավ է"),
    "Chinese names": ("列奥纳多·达·芬奇画了一幅很美丽的画", "列 奥 纳 多 达 芬 奇 画 了 一 幅 很 美 丽 的 画"),
    "emoji": ("I ❤\ufe0f you 👍🏽 👨\u200d👩\u200d👧 OK 🇩🇪!", "i you ok"),
    "Vietnamese": (unicodedata.normalize("NFD", "Tiếng Việt rất hay."), "tiếng việt rất hay"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_proposed_rules_fit_any_language(language):
    text, expected = SENTENCES[language]
    rules = propose_rules(count_characters([text] * 5))
    assert normalise(text, rules) == unicodedata.normalize("NFC", expected)
    assert normalise(expected, rules) == unicodedata.normalize("NFC", expected)  # normalised text stays as it is


def test_proposed_rules_are_written_with_comments_and_read_again(tmp_path):
    rules = propose_rules(count_characters(['Ein "Satz" mit ß, “é” \\ und [noise] 😀 \u200b'] * 9))
    write_rules(rules, tmp_path / "n.yaml")
    assert load_rules(tmp_path / "n.yaml") == rules
    text = rules_text(rules)
    assert all("\n\n# " in text and f"\n{name}: " in text for name in NormalisationRules.model_fields)
    assert "ß" in text and rules.tags == "remove"


def test_the_case_and_digits_of_the_transcripts_decide():
    assert propose_rules(count_characters(["GO NOW"])).case == "keep"
    assert propose_rules(count_characters(["Go Now"])).case == "lower"
    assert propose_rules(count_characters(["Go Now"]), case="upper").case == "upper"
    assert propose_rules(count_characters(["0 1 1 0"])).digits == "keep"
    rules = propose_rules(count_characters(["in the year two"] * 9 + ["in 1984"]))
    assert rules.digits == "drop" and not set("1984") & set(rules.characters)


@pytest.mark.parametrize("case", ["lower", "upper", "keep", None])
@pytest.mark.parametrize("form", [str, str.upper, str.title])
def test_greek_utterances_are_not_dropped_for_the_sigma_at_the_end_of_words(case, form):
    texts = [
        form("\u03bf \u03c3\u03ba\u03cd\u03bb\u03bf\u03c2 \u03ba\u03b1\u03b9 \u03bf \u03bb\u03cd\u03ba\u03bf\u03c2")
    ] * 400
    normaliser = Normaliser(propose_rules(count_characters(texts), case))
    assert all(normaliser.normalise(text).dropped is None for text in texts)


def test_rare_characters_are_not_among_those_that_may_be_left():
    rules = propose_rules(count_characters(["abc " * 30] * 30 + ["café"]))
    assert rules.characters == "' a b c".replace("' ", "") and rules.other_characters == "drop"
    assert normalise("abc", rules) == "abc" and normalise("café", rules) is None
    small = propose_rules(count_characters(["abc", "wxyz"]))  # all are rare in a small corpus: then none is left out
    assert normalise("wxyz abc", small) == "wxyz abc"


@pytest.mark.parametrize(
    ("rules", "text", "result"),
    [
        ({}, " a  b\u00a0c\u3000d ", "a b c d"),
        ({}, "a\u200bb\ufeff\u00ad", "ab"),
        ({}, "a\x07b", "a b"),
        ({}, "نمی\u200cخواهم", "نمی\u200cخواهم"),  # part of the spelling
        ({"unicode": "NFKC"}, "ﬁne ＡＢＣ", "fine ABC"),
        ({"case": "upper"}, "groß", "GROSS"),
        ({"replace": {"&": " and ", "ß": "ss"}}, "Groß&Klein", "Gross and Klein"),
        ({"replace": {"\u200b": " "}}, "ខ្ញុំ\u200bទៅ\ufeff", "ខ្ញុំ ទៅ"),  # it separates words in Khmer
        ({"replace": {"e\u0301": "e"}}, "caf\u00e9", "cafe"),  # both in the same Unicode form
        ({"characters": "c a f e\u0301", "other_characters": "remove"}, "café", "café"),
        ({"punctuation": "remove"}, "1\ufe0f\u20e3 ❤\ufe0f a", "1 a"),
        ({"tags": "remove"}, "<unk> so [door slams] < 3", "so < 3"),
        ({"quotes": "unify"}, "‘a’ „b“ «c»", '\'a\' "b" "c"'),
        ({"dashes": "unify"}, "a–b—c−d", "a-b-c-d"),
        ({"punctuation": "remove"}, "a,b. c-d (e) 5% $", "a b c d e 5% $"),
        (
            {"punctuation": "remove", "keep_in_words": "'-"},
            "'don't' - well-known -x rock 'n' roll",
            "don't well-known x rock n roll",
        ),
        ({"punctuation": "remove", "keep": "-"}, "a- b.", "a- b"),
        ({"symbols": "remove"}, "5 % & $3", "5 3"),
        ({"separate_cjk": True}, "我有iPhone手机", "我 有 iPhone 手 机"),
        ({"characters": "a b", "other_characters": "remove"}, "abc ab", "ab ab"),
        # values in another form than the rules before leave
        ({"characters": "A B", "case": "lower", "other_characters": "remove"}, "ABC ab", "ab ab"),
        (
            {"characters": "\u0391\u03a3", "case": "lower", "other_characters": "drop"},
            "\u0391\u03a3\u0391\u03a3",
            "\u03b1\u03c3\u03b1\u03c2",
        ),
        ({"characters": "a \u2019", "quotes": "unify", "other_characters": "remove"}, "a\u2019a", "a'a"),
        ({"punctuation": "remove", "keep_in_words": "\u2019", "quotes": "unify"}, "don\u2019t don't '", "don't don't"),
        ({"punctuation": "remove", "keep": "\u2013", "dashes": "unify"}, "a \u2013 b, c", "a - b c"),
        ({"punctuation": "remove", "keep": "\u2026", "unicode": "NFKC"}, "a\u2026 b!", "a... b"),
    ],
)
def test_each_rule_does_what_it_says(rules, text, result):
    assert Normaliser(NormalisationRules(**rules)).normalise(text).text == result


@pytest.mark.parametrize("action", ["drop", "refuse"])
@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        ("digits", "room 5", "digits"),
        ("digits", "x²", "digits"),
        ("symbols", "five €", "symbols that are spoken"),
        ("tags", "a <unk>", "marks such as <unk>"),
        ("other_characters", "naïve", "not listed: ï U+00EF LATIN SMALL LETTER I WITH DIAERESIS"),
    ],
)
def test_an_utterance_is_dropped_or_refused_with_the_reason(action, rule, text, reason):
    normaliser = Normaliser(NormalisationRules(**{rule: action}, characters="a b c n v e"))
    outcome = normaliser.normalise(text, "u1")
    given = outcome.dropped if action == "drop" else outcome.refused
    assert given is not None and reason in given
    assert (outcome.refused if action == "drop" else outcome.dropped) is None
    assert normaliser.changes.dropped.total() == (action == "drop")


def test_the_report_names_and_counts_what_was_changed():
    normaliser = Normaliser(NormalisationRules(quotes="unify", punctuation="remove", case="upper", digits="drop"))
    for number, text in enumerate(["a\u200b, b,", "groß\u0301", "room 5", "...", "OK"]):
        normaliser.normalise(text, f"u{number}")
    lines = [" ".join(line.split()) for line in report_lines(normaliser.changes)]
    assert lines[0] == "5 utterances: 4 changed, 2 dropped"
    assert "2 , U+002C COMMA: became a space" in lines
    assert "1 U+200B ZERO WIDTH SPACE: removed" in lines
    assert "1 in which upper case made SS of ß" in lines
    assert lines[lines.index("utterances dropped:") + 1 :][:4] == [
        "1 digits",
        "u2: room 5",
        "1 no words are left",
        "u3: ...",
    ]
    assert "u0 after: A B" in lines


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cases: lower\n", "unknown key 'cases' (did you mean 'case'?)"),
        ("case: title\n", "case = 'title'"),
        ("- a\n", "expected keys and values"),
        ('replace: {"": "x"}\n', "an empty text cannot be replaced"),
        ("digits: [drop]\n", "digits = "),
    ],
)
def test_a_wrong_rules_file_is_refused(tmp_path, text, problem):
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_rules(tmp_path / "n.yaml")
    assert problem in str(error.value) and "n.yaml" in str(error.value)


def test_no_rules_change_nothing():
    assert Counter("Grüße, 5 % <unk>") == Counter(Normaliser(NormalisationRules()).normalise("Grüße, 5 % <unk>").text)


@pytest.mark.fuzz
def test_normalised_text_is_normalised():
    import random

    draw = random.Random(1)
    alphabet = "aA'’-–.,5%<>[]ßİıée\u0301我ー한\u200b\u200c\u00a0\x07😀ﬁ½ـ·צ״՞ی\ufe0f\u20e3\"\\ "
    for _ in range(3000):
        texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(4)]
        rules = propose_rules(count_characters(texts)).model_copy(update={"unicode": draw.choice(["NFC", "NFKC"])})
        for text in texts:
            once = Normaliser(rules).change(text)
            assert Normaliser(rules).change(once) == once, (text, rules)
