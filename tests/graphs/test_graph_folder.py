import errno
import json
import re
import shutil
import subprocess
import sys

import pytest

from asrtool.errors import UserError
from asrtool.graphs.compile import Compiler
from asrtool.graphs.folder import lexicon_hash, load_graph, save_graph, tokenizer_hash
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import SymbolTokenizer

TOKENIZER = SymbolTokenizer("char", ["<blank>", "a", "b", "\u2581"])
LEXICON = Lexicon({"ab": (("a", "b"),), "b": (("b",),), "été": (("a",),)})


@pytest.fixture
def compiled() -> Compiler:
    return Compiler(TOKENIZER.symbols, LEXICON, None, "ctc", WordBoundary(separator="\u2581"))


@pytest.fixture
def save(tmp_path, compiled):
    def write(*kinds):
        meta = {"kind": kinds[0], "topology": "ctc", "outputs": TOKENIZER.size}
        meta |= {"sizes": {kind: {} for kind in kinds}, "sha256": {"tokenizer": tokenizer_hash(TOKENIZER)}}
        fsts = {kind: getattr(compiled, kind) for kind in kinds}
        save_graph(tmp_path / "graph", fsts, compiled.words, compiled.units, meta)
        return tmp_path / "graph"

    return write


def test_a_saved_graph_is_loaded(save, compiled):
    folder = save("HL", "L")
    graph = load_graph(folder, TOKENIZER)
    assert graph.words == ["<eps>", "ab", "b", "été", "#0"] and graph.units == compiled.units
    assert graph.folder == folder and graph.meta["kind"] == "HL"
    assert graph.fst.to_str() == compiled.HL.to_str() and graph.read("L").to_str() == compiled.L.to_str()
    assert graph.meta["sizes"]["L"]["bytes"] == (folder / "L.fst").stat().st_size


@pytest.mark.parametrize("lexicon", [
    {"c#": (("c", "#"),), "#c": (("#", "c"),)},
    {"10.5": (("1", "0", ".5"),), "5": (("5",),)},
    {".5": ((".5",),), "1": (("1",),)},
])  # fmt: skip
def test_pronunciations_may_have_all_units_of_the_tokenizer(tmp_path, lexicon):
    symbols = ["<blank>", "#", ".5", "0", "1", "5", "c"]
    compiled = Compiler(symbols, Lexicon(lexicon), None, "ctc", WordBoundary())
    meta = {"kind": "HL", "topology": "ctc", "outputs": len(symbols), "sizes": {"HL": {}}, "sha256": {"tokenizer": ""}}
    save_graph(tmp_path / "g", {"HL": compiled.HL}, compiled.words, compiled.units, meta, lexicon=Lexicon(lexicon))
    stored = {word: several for word, several in lexicon.items() if not word.startswith("#")}
    assert load_graph(tmp_path / "g").lexicon == Lexicon(stored)


def test_another_tokenizer_is_refused_in_one_line(save):
    folder = save("HL")
    other = SymbolTokenizer("char", ["<blank>", "b", "a", "\u2581"])
    with pytest.raises(UserError, match="another tokenizer") as raised:
        load_graph(folder, other)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    assert load_graph(folder, SymbolTokenizer("char", list(TOKENIZER.symbols))).words  # the same symbols


def test_graphs_of_an_earlier_build_are_removed(save):
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


def test_interrupted_saving_leaves_the_earlier_graph(save, monkeypatch, compiled):
    folder = save("HL")
    monkeypatch.setattr("asrtool.graphs.folder.write_symbols", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save("L")
    assert load_graph(folder).fst.to_str() == compiled.HL.to_str()
    assert {path.name for path in folder.parent.iterdir()} == {"graph"}


def test_a_full_disk_leaves_the_earlier_graph(save, monkeypatch, compiled):
    folder = save("HL")

    def full(path, symbols):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("asrtool.graphs.folder.write_symbols", full)
    with pytest.raises(UserError, match="no space left to write .*graph:"):
        save("L")
    assert load_graph(folder).fst.to_str() == compiled.HL.to_str()


def test_a_folder_of_another_tool_is_not_touched(save, tmp_path):
    (tmp_path / "graph").mkdir()
    for name in ("L.fst", "G.fst", "words.txt"):
        (tmp_path / "graph" / name).write_text("Kaldi's")
    with pytest.raises(UserError, match="not written by `asrtool graph`"):
        save("HL")
    files = {path.name: path.read_text() for path in (tmp_path / "graph").iterdir()}
    assert files == dict.fromkeys(("L.fst", "G.fst", "words.txt"), "Kaldi's")


def test_files_of_the_user_beside_a_graph_stay(save):
    folder = save("HL", "L")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    save("HL")
    assert (folder / "notes" / "a.txt").read_text() == "mine" and not (folder / "L.fst").exists()


def test_a_second_writer_of_a_folder_is_refused(save, tmp_path):
    hold = "import sys, time; from asrtool.locks import write_lock\nwith write_lock(sys.argv[1], 'asrtool graph'):\n"
    command = [sys.executable, "-c", hold + "    print(1, flush=True); time.sleep(60)", tmp_path / "graph"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=f"in use by asrtool graph .process {other.pid}"):
            save("HL")
        other.kill()
    assert load_graph(save("HL")).fst.num_states


def change(folder, **values):
    """Changes fields of graph.json."""
    meta = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
    (folder / "graph.json").write_text(json.dumps(meta | values), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        *({"kind": kind} for kind in ("../sub/HLG", "XLG", 1, None, ["HL"])),
        *({"topology": name} for name in ("none", None, 3)),
        *({"outputs": count} for count in (0, -1, True, "4", 4.0, 10**18, None)),
        *({"silence": silence} for silence in ("SIL", {"unit": 3}, [1])),
        *({"sha256": hashes} for hashes in (None, {}, {"tokenizer": None}, {"tokenizer": "0", "lm": 3})),
        *({"sizes": sizes} for sizes in (None, {"HL": {}}, {"HL": {"sha256": 3}}, {"../HL": {"sha256": "0"}})),
    ],
    ids=str,
)
def test_graph_json_with_odd_values_is_refused_in_one_line(save, values):
    folder = save("HL")
    change(folder, **values)
    with pytest.raises(UserError, match=rf"graph\.json: {next(iter(values))}.*asrtool graph") as raised:
        load_graph(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("words.txt", b"<eps> 0\n\xff\xfe 1\n", "words.txt:2"),
        ("words.txt", b"<eps> 0\nb 1\nb\n", "words.txt:3"),
        ("words.txt", b"a 0\n", "words.txt: label 0"),
        ("words.txt", b"<eps> 0\no\x1b[31mne 1\n", "words.txt:2: the symbol has control characters"),
        ("words.txt", b"<eps> 0\na 1\nt\x1b]0;title\x07 2\n", "words.txt:3: the symbol has control characters"),
        ("units.txt", "<eps> 0\n<blank> 1\nx\u009b31m 2\n".encode(), "units.txt:3: the symbol has control characters"),
        ("words.txt", b"", "words.txt: label 0"),
        ("units.txt", b"<eps> 0\n<blank> 2\n", "units.txt:2"),
        ("units.txt", b"<eps> 0\n" + b"a" * 9_000_000 + b" 1\n", "units.txt:2"),
        ("graph.json", b'{"kind": NaN}', "graph.json"),
        ("graph.json", b"[" * 100_000, "graph.json"),
        ("graph.json", b"\xff", "graph.json"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_invalid_tables_and_json_are_named_with_the_line(save, name, content, place):
    folder = save("HL")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(place)):
        load_graph(folder)


def test_an_fst_that_was_changed_is_refused_by_its_hash(save):
    folder = save("HL", "L")
    shutil.copy(folder / "L.fst", folder / "HL.fst")
    with pytest.raises(UserError, match=r"HL\.fst is not the file that graph\.json describes"):
        load_graph(folder).fst  # noqa: B018
    assert load_graph(folder).read("L").num_states


def test_a_harmful_fst_is_refused_although_its_hash_is_right(save):
    folder = save("HL", "L")
    sizes = json.loads((folder / "graph.json").read_text(encoding="utf-8"))["sizes"]
    units = (folder / "units.txt").read_text(encoding="utf-8")
    (folder / "units.txt").write_text("".join(units.splitlines(True)[:2]), encoding="utf-8")  # L's units are gone
    with pytest.raises(UserError, match=r"L\.fst has an arc of state \d+ with input label"):
        load_graph(folder).read("L")
    change(folder, outputs=2, sizes=sizes)
    with pytest.raises(UserError, match=r"HL\.fst has an arc of state \d+ with input label"):
        load_graph(folder).fst  # noqa: B018


def test_the_symbols_of_units_are_compared(save):
    folder = save("HL")
    units = (folder / "units.txt").read_text(encoding="utf-8")
    (folder / "units.txt").write_text(units.replace("a 2\nb 3", "b 2\na 3"), encoding="utf-8")
    with pytest.raises(UserError, match="another tokenizer than the model's .its unit 'b' is 'a' there."):
        load_graph(folder, TOKENIZER)


@pytest.mark.parametrize("kind", ["L", "H"])
def test_kinds_that_decoders_cannot_search_are_refused_for_a_model(save, kind):
    folder = save(kind)
    assert load_graph(folder).fst.num_states
    with pytest.raises(UserError, match=f"holds {kind}, which decoders cannot search"):
        load_graph(folder, TOKENIZER)


def test_hashes_depend_on_content_alone():
    turned = Lexicon(dict(reversed(LEXICON.pronunciations.items())))
    assert lexicon_hash(turned) == lexicon_hash(LEXICON)
    assert lexicon_hash(Lexicon({**LEXICON.pronunciations, "b": (("a",),)})) != lexicon_hash(LEXICON)
    again = SymbolTokenizer("char", json.loads(json.dumps(TOKENIZER.symbols)))
    assert tokenizer_hash(again) == tokenizer_hash(TOKENIZER)
