import json

import pytest

from asrtool.errors import UserError
from asrtool.graphs.compile import Compiler
from asrtool.graphs.folder import lexicon_hash, load_graph, save_graph, tokenizer_hash
from asrtool.graphs.lexicon_fst import Between
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import SymbolTokenizer

TOKENIZER = SymbolTokenizer("char", ["<blank>", "a", "b", "\u2581"])
LEXICON = Lexicon({"ab": (("a", "b"),), "b": (("b",),), "été": (("a",),)})


@pytest.fixture
def made() -> Compiler:
    return Compiler(TOKENIZER.symbols, LEXICON, None, "ctc", Between(separator="\u2581"))


@pytest.fixture
def save(tmp_path, made):
    def write(*kinds):
        meta = {"kind": kinds[0], "topology": "ctc", "outputs": TOKENIZER.size}
        meta |= {"sizes": {kind: {} for kind in kinds}, "sha256": {"tokenizer": tokenizer_hash(TOKENIZER)}}
        fsts = {kind: getattr(made, kind) for kind in kinds}
        save_graph(tmp_path / "graph", fsts, made.words, made.units, meta)
        return tmp_path / "graph"

    return write


def test_what_was_saved_is_loaded(save, made):
    folder = save("HL", "L")
    graph = load_graph(folder, TOKENIZER)
    assert graph.words == ["<eps>", "ab", "b", "été", "#0"] and graph.units == made.units
    assert graph.folder == folder and graph.meta["kind"] == "HL"
    assert graph.fst.to_str() == made.HL.to_str() and graph.read("L").to_str() == made.L.to_str()
    assert graph.meta["sizes"]["L"]["bytes"] == (folder / "L.fst").stat().st_size


def test_another_tokenizer_is_refused_in_one_line(save):
    folder = save("HL")
    other = SymbolTokenizer("char", ["<blank>", "b", "a", "\u2581"])
    with pytest.raises(UserError, match="another tokenizer") as raised:
        load_graph(folder, other)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    assert load_graph(folder, SymbolTokenizer("char", list(TOKENIZER.symbols))).words  # the same, made anew


def test_graphs_of_an_earlier_making_are_gone(save):
    save("HL", "L")
    graph = load_graph(save("L"))
    assert graph.meta["kind"] == "L" and graph.fst.num_states
    with pytest.raises(UserError, match="HL.fst"):
        graph.read("HL")


def test_folder_without_graph_is_refused(tmp_path):
    with pytest.raises(UserError, match="asrtool graph"):
        load_graph(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("words.txt", "a 0\nb 2\n"), ("units.txt", "a\n"), ("graph.json", "{"), ("graph.json", "[]"), ("words.txt", None)],
)
def test_damaged_folder_is_refused_in_one_line(save, name, content):
    folder = save("HL")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match="asrtool graph") as raised:
        load_graph(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no graph at all, but some bytes"])
def test_damaged_fst_is_refused(save, content):
    folder = save("HL")
    (folder / "HL.fst").write_bytes(content)
    with pytest.raises(UserError, match=r"HL\.fst"):
        load_graph(folder).fst  # noqa: B018


def test_truncated_fst_is_refused(save):
    folder = save("HL")
    whole = (folder / "HL.fst").read_bytes()
    (folder / "HL.fst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"HL\.fst"):
        load_graph(folder).fst  # noqa: B018


def test_interrupted_saving_leaves_the_earlier_graph(save, monkeypatch, made):
    folder = save("HL")
    monkeypatch.setattr("asrtool.graphs.folder.write_symbols", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save("L")
    assert load_graph(folder).fst.to_str() == made.HL.to_str()
    assert {path.name for path in folder.parent.iterdir()} == {"graph"}


def test_hashes_know_what_matters_and_no_more():
    turned = Lexicon(dict(reversed(LEXICON.pronunciations.items())))
    assert lexicon_hash(turned) == lexicon_hash(LEXICON)
    assert lexicon_hash(Lexicon({**LEXICON.pronunciations, "b": (("a",),)})) != lexicon_hash(LEXICON)
    again = SymbolTokenizer("char", json.loads(json.dumps(TOKENIZER.symbols)))
    assert tokenizer_hash(again) == tokenizer_hash(TOKENIZER)
