"""Kaldi's transition models: the pdf of each transition id, from both forms, and damaged files."""

import pytest

from asrtool.errors import UserError
from asrtool.text import kaldi_model
from asrtool.text.kaldi_model import read_transition_pdfs
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from tests.kaldi_files import CHAIN, THREE_STATES, State, binary_model, integer, text_model

SILENCE = [State(0, [0, 1, 2]), State(1, [1, 2, 0]), State(2, [2, 3]), State(-1, [])]
TWO_HMMS = [([1], SILENCE), ([2, 4], THREE_STATES)]
ROWS = [(1, 0, 5), (1, 1, 6), (1, 2, 5), (2, 0, 0), (2, 1, 1), (2, 2, 2), (4, 0, 0), (4, 1, 3), (4, 2, 4)]
PDFS = [5, 5, 5, 6, 6, 6, 5, 5, 0, 0, 1, 1, 2, 2, 0, 0, 3, 3, 4, 4]
FORMS = pytest.mark.parametrize("form", [binary_model, text_model])


@pytest.fixture
def write(tmp_path):
    """write(content) -> a file with it"""

    def make(content: bytes):
        path = tmp_path / "final.mdl"
        path.write_bytes(content)
        return path

    return make


@FORMS
def test_each_arc_of_a_state_has_the_pdf_of_the_state(write, form):
    assert read_transition_pdfs(write(form(TWO_HMMS, ROWS) + b"<DIMENSION> a GMM follows")) == PDFS


@FORMS
def test_self_loops_of_chain_models_have_pdfs_of_their_own(write, form):
    rows = [(1, 0, 0, 1), (2, 0, 2, 1)]
    assert read_transition_pdfs(write(form([([1, 2], CHAIN)], rows))) == [1, 0, 1, 2]


def test_a_model_that_ends_early_is_refused_wherever_it_ends(write):
    whole = binary_model(TWO_HMMS, ROWS)
    end = whole.index(b"</Triples>")
    for size in range(end):
        with pytest.raises(UserError, match="is not a model of Kaldi"):
            read_transition_pdfs(write(whole[:size]))
    text = text_model(TWO_HMMS, ROWS)
    for size in range(0, text.index(b"4 2 4"), 3):
        with pytest.raises(UserError, match="is not a model of Kaldi"):
            read_transition_pdfs(write(text[:size]))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"<TransitionModel>", b"<Nnet3>", "'<Nnet3>' stands where <TransitionModel> is due"),
        (b"<Triples> " + integer(9), b"<Triples> " + integer(-1), "-1 states of phones in context"),
        (b"<Triples> " + integer(9), b"<Triples> \5" + bytes(4), "no int32"),
        (integer(4) + integer(1) + integer(3), integer(4) + integer(7) + integer(3), "phone 4 has no state 7"),
        (integer(4) + integer(1) + integer(3), integer(3) + integer(1) + integer(3), "phone 3 has no state 1"),
        (integer(4) + integer(1) + integer(3), integer(4) + integer(1) + integer(-3), "has the pdfs -3 and -3"),
        (integer(3) + b"\1\0\0\0\2\0\0\0", integer(3) + b"\1\0\0\0\x63\0\0\0", "a phone without an HMM"),
        (
            integer(5) + b"\xff\xff\xff\xff\0",
            integer(1 << 30) + b"\xff\xff\xff\xff\0",
            "a vector of 1073741824 elements",
        ),
    ],
)
def test_a_damaged_binary_model_is_refused_with_the_problem(write, old, new, problem):
    content = binary_model(TWO_HMMS, ROWS)
    assert content.count(old) == 1
    with pytest.raises(UserError, match=problem):
        read_transition_pdfs(write(content.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"<Triples> 9", b"<Triples> nine", "'nine' is not an integer"),
        (b"<State> 1", b"<State> 2", "state 1 of an HMM is missing"),
        (b"<ForPhones> \n1", b"<ForPhones> \nx", "'x' is not a phone"),
        (b"<PdfClass>", b"<Class>", "'<Class>' stands where"),
    ],
)
def test_a_damaged_text_model_is_refused_with_the_problem(write, old, new, problem):
    with pytest.raises(UserError, match=problem):
        read_transition_pdfs(write(text_model(TWO_HMMS, ROWS).replace(old, new, 1)))


def test_the_number_of_transitions_is_bounded(write, monkeypatch):
    monkeypatch.setattr(kaldi_model, "MAX_COUNT", 19)
    with pytest.raises(UserError, match="more than 19 transitions"):
        read_transition_pdfs(write(binary_model(TWO_HMMS, ROWS)))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(UserError, match="model of Kaldi not found"):
        read_transition_pdfs(tmp_path / "final.mdl")


def test_a_tokenizer_of_pdfs_survives_its_file(tmp_path):
    save_tokenizer(PdfTokenizer(PDFS), tmp_path / "pdfs.json")
    loaded = load_tokenizer(tmp_path / "pdfs.json")
    assert isinstance(loaded, PdfTokenizer)
    assert loaded.transition_pdfs == PDFS
    assert loaded.symbols == ["<blank>", *(f"pdf_{number}" for number in range(7))]
    assert loaded.aligned_units(["pdf_0", "pdf_6", "pdf_7"]) == [1, 7, None]
    assert loaded.decode([1, 7]) == "pdf_0 pdf_6"
    assert loaded.encode("any words") == loaded.unknown("any words") == []


@pytest.mark.parametrize("pdfs", ["[]", "[-1]", "[1.5]", "[true]", "3", "[2000000]", '["1"]'])
def test_a_damaged_tokenizer_of_pdfs_is_refused(tmp_path, pdfs):
    path = tmp_path / "pdfs.json"
    path.write_text(f'{{"type": "pdf", "transition_pdfs": {pdfs}}}')
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(path)


def test_words_have_no_pdfs_without_kaldi():
    assert PdfTokenizer([0]).pronunciations("word") == ()
    with pytest.raises(UserError, match="pdfs of Kaldi, which words alone do not give"):
        PdfTokenizer([0]).pronunciation_units("word")
