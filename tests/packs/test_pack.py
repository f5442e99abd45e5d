"""Packing an experiment: the pack recognises the same words wherever it lies, and needs nothing else."""

import json
import shutil

import pytest
from lhotse import CutSet

from asrtool import checkpoint
from asrtool.data.lhotse_sets import open_cuts
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.graphs.build import build_graph
from asrtool.graphs.folder import load_graph
from asrtool.pack_manifest import open_pack
from asrtool.packs.pack import PackSettings, write_pack
from asrtool.packs.pack_contents import chosen_files
from asrtool.training.data_counts import unit_counts
from tests.pack_files import carried_files, make_pack
from tests.tiny import make_experiment, write_other_weights

FAST = ("--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def pack(experiment, tokenizer_file, tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("packs") / "pack", experiment, tokenizer_file)


@pytest.fixture(scope="module")
def cuts(corpus, tmp_path_factory):
    """The manifest of five cuts of the corpus, of three speakers."""
    path = tmp_path_factory.mktemp("few") / "cuts.jsonl.gz"
    CutSet.from_cuts(list(open_cuts(corpus))[:5]).to_file(path)
    return path


@pytest.fixture
def files(tokenizer_file, tmp_path):
    return carried_files(tmp_path / "lang", tokenizer_file)


@pytest.fixture
def moved(pack, tmp_path):
    """A copy at another place."""
    return shutil.copytree(pack, tmp_path / "elsewhere" / "there")


def options(files, *names):
    return [part for name in names for part in (f"--{name.replace('_', '-')}", files[name])]


def hypotheses(folder):
    return (folder / "hyps.jsonl").read_bytes()


GRAPH_OPTIONS = ("graph", "graph_lm", "rescore", "priors", "decoding_weights")


@pytest.mark.parametrize(
    "method, given, folder",
    [
        ("greedy", (), "greedy"),
        ("prefix", ("lm",), "prefix"),
        ("graph", GRAPH_OPTIONS, "rescored"),
        ("graph", ("graph", "priors", "decoding_weights"), "graph"),
    ],
)
def test_a_moved_pack_gives_the_same_hypotheses_without_options(
    asr, experiment, moved, cuts, files, tmp_path, method, given, folder
):
    values = {"greedy": (), "prefix": ("--lm-weight", 0.3), "graph": ("--beam", 14)}[method]
    command = ("decode", experiment, cuts, "--method", method, *options(files, *given), *values, *FAST)
    status, _, err = asr(*command, "--out", tmp_path / "before")
    assert status == 0, err
    shutil.rmtree(tmp_path / "lang")
    plain = ("--no-rescore",) if folder == "graph" else ()
    command = ("decode", moved, cuts, "--method", method, *plain, *FAST, "--out", tmp_path / "after")
    status, _, err = asr(*command)
    assert status == 0, err
    assert hypotheses(tmp_path / "before/cuts" / folder) == hypotheses(tmp_path / "after/cuts" / folder)
    assert json.loads((tmp_path / "after/cuts" / folder / "decode.json").read_text())["utterances"] == 5
    assert not (moved / "decode").exists()


def test_given_options_win(asr, moved, cuts, tmp_path):
    command = ("decode", moved, cuts, "--method", "graph", "--acoustic-scale", 3, "--beam", 5, *FAST)
    assert asr(*command, "--out", tmp_path / "out")[0] == 0
    facts = json.loads((tmp_path / "out/cuts/rescored/decode.json").read_text())
    assert (facts["acoustic_scale"], facts["blank_penalty"], facts["beam"]) == (3.0, 1.0, 5.0)


def test_rescoring_can_be_left_out_but_not_given_as_well(asr, moved, cuts, files):
    command = ("decode", moved, cuts, "--method", "graph", "--no-rescore", *options(files, "rescore"))
    status, _, err = asr(*command)
    assert status == 2 and "exclude each other" in err


def test_results_in_the_pack_do_not_break_it(asr, moved, cuts):
    assert asr("decode", moved, cuts, "--method", "graph", *FAST)[0] == 0
    assert asr("score", moved / "decode/cuts/rescored")[0] == 0
    status, out, _ = asr("report", moved)
    assert status == 0 and "`there`" in out and "rescored" in out
    assert asr("decode", moved, cuts, "--method", "graph", *FAST)[0] == 0  # replaces its own result
    moved = moved.rename(moved.with_name("again"))
    assert asr("decode", moved, cuts, "--method", "graph", *FAST)[0] == 0  # even where the pack lies elsewhere
    open_pack(moved, large_files=True)


def test_a_damaged_language_model_is_found_before_it_is_used(asr, moved, cuts):
    path = moved / "lm/rescore.arpa"
    path.write_bytes(path.read_bytes().replace(b"-0.9", b"-0.1"))
    assert asr("decode", moved, cuts, *FAST)[0] == 0
    status, _, err = asr("decode", moved, cuts, "--method", "graph", *FAST)
    assert status == 2 and err.count("\n") == 1 and str(path) in err
    assert asr("decode", moved, cuts, "--method", "graph", "--no-rescore", *FAST)[0] == 0


def test_a_damaged_graph_is_found_before_it_is_used(asr, moved, cuts):
    path = moved / "graph/HLG.fst"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    status, _, err = asr("decode", moved, cuts, "--method", "graph", *FAST)
    assert status == 2 and err.count("\n") == 1 and str(path) in err


def test_a_pack_streams_with_its_own_graph(asr, stream_experiment, tokenizer_file, cuts, tmp_path):
    pack = make_pack(tmp_path / "pack", stream_experiment, tokenizer_file)
    files = carried_files(tmp_path / "given", tokenizer_file)
    given = options(files, "graph", "priors", "decoding_weights")
    before = ("stream", stream_experiment, cuts, "--method", "graph", *given, "--beam", 14)
    assert asr(*before, "--out", tmp_path / "before")[0] == 0
    assert asr("stream", pack, cuts, "--method", "graph", "--out", tmp_path / "after")[0] == 0
    assert hypotheses(tmp_path / "before/cuts/graph") == hypotheses(tmp_path / "after/cuts/graph")
    assert open_pack(pack).latency is not None


def test_words_are_added_to_the_graph_of_a_pack(asr, experiment, tokenizer_file, files, cuts, tmp_path):
    build_graph(tmp_path / "graph", tokenizer_file, lm=files["graph_lm"])
    pack = make_pack(tmp_path / "pack", experiment, tokenizer_file, graph=tmp_path / "graph")
    for folder in ("lang", "graph"):  # what the pack was made from
        shutil.rmtree(tmp_path / folder)
    words = tmp_path / "words.txt"
    words.write_text("WORD one two\nTOO like=two two\n")
    status, out, err = asr("graph", tmp_path / "named", "--from", pack, "--add-words", words)
    assert status == 0 and "(2 added)" in out, err
    graph = load_graph(tmp_path / "named")
    assert set(graph.words) == {*load_graph(pack / "graph").words, "WORD", "TOO"}
    assert graph.lexicon.pronunciations["WORD"] == (("one", "two"),)
    given = ("--graph", tmp_path / "named", "--graph-lm", tmp_path / "named" / "lm.arpa.gz")
    command = ("decode", pack, cuts, "--method", "graph", *given, "--rescore", pack / "lm/rescore.arpa", *FAST)
    assert asr(*command, "--out", tmp_path / "out")[0] == 0


def test_every_command_takes_a_pack(asr, moved, cuts, tmp_path):
    commands = [
        ("align", moved, cuts, tmp_path / "aligned.jsonl.gz", *FAST),
        ("tune", moved, cuts, "--rounds", 0, *FAST),
        ("adapt", moved, cuts, "--epochs", 1, *FAST),
        ("info", moved),
    ]
    for command in commands:
        status, out, err = asr(*command)
        assert status == 0 and out, err
    assert asr("decode", moved, cuts, "--adapted", moved / "adapted/cuts", *FAST)[0] == 0
    weights = moved / "decode/cuts/decoding_weights.json"
    assert asr("pack", moved, tmp_path / "tuned", "--weights", weights)[0] == 0
    packed = json.loads((tmp_path / "tuned/decoding_weights.json").read_text())
    assert packed["best"] == json.loads(weights.read_text())["best"]


@pytest.mark.parametrize("kind", ["mmi", "ce"])
def test_a_pack_has_the_counts_that_adaptation_needs(asr, tiny_config, tokenizer_file, cuts, tmp_path, kind):
    config = tiny_config(objective={"kind": kind})
    exp = make_experiment(tmp_path / "exp", config, tokenizer_file, bias=0.0)
    opened = open_experiment(exp, device="cpu")
    if kind == "mmi":
        unit_counts(config.data, config.objective, opened.tokenizer, exp / "unit_ngram.json")
    else:
        (exp / "priors.json").write_text("[5, 1, 1, 1, 1]")
    assert asr("pack", exp, tmp_path / "pack")[0] == 0
    shutil.rmtree(exp)
    status, _, err = asr("adapt", tmp_path / "pack", cuts, "--epochs", 1, *FAST)
    assert status == 0, err


def test_a_training_starts_from_a_pack(asr, moved, tmp_path):
    (tmp_path / "c.yaml").write_text((moved / "config.yaml").read_text(), encoding="utf-8")
    steps = ("--set", "training.max_steps=2", "--set", "training.validate_every=2", "--set", "training.warmup_steps=1")
    command = ("train", tmp_path / "c.yaml", "--exp", tmp_path / "exp", "--init-from", moved, "--device", "cpu")
    status, _, err = asr(*command, *steps)
    assert status == 0 and f"initialised from {moved / 'model.safetensors'}" in err, err
    assert checkpoint.initial_checkpoint(moved / "model.safetensors") == moved / "model.safetensors"
    (moved / "tokenizer.json").write_text("{}", encoding="utf-8")
    status, _, err = asr("train", tmp_path / "c.yaml", "--exp", tmp_path / "x", "--init-from", moved)
    assert status == 2 and str(moved / "tokenizer.json") in err


def test_a_training_starts_from_an_experiment_folder(experiment, moved, tmp_path):
    assert checkpoint.initial_checkpoint(experiment) == experiment / "checkpoints/best.pt"
    assert checkpoint.initial_checkpoint(experiment / "checkpoints/best.pt") == experiment / "checkpoints/best.pt"
    with pytest.raises(UserError, match="neither a checkpoint nor"):
        checkpoint.initial_checkpoint(tmp_path)


def test_a_pack_has_one_checkpoint(moved, experiment):
    other = experiment / "checkpoints/best.pt"
    assert checkpoint.find_checkpoint(moved, "averaged") == moved / "model.safetensors"
    assert checkpoint.find_checkpoint(moved, str(other)) == other
    for name in ("best", "last", "step-00000001.pt", "../x"):
        with pytest.raises(UserError, match="is a pack"):
            checkpoint.find_checkpoint(moved, name)


def test_packing_a_pack_changes_nothing_but_the_names(pack, tmp_path):
    write_pack(open_experiment(pack, device="cpu"), tmp_path / "again", {}, PackSettings())
    before, after = open_pack(pack), open_pack(tmp_path / "again")
    assert after.hashes == before.hashes
    assert after.model_copy(update={"name": "pack", "provenance": before.provenance}) == before


def test_a_second_pack_replaces_the_first_and_keeps_the_users_files(experiment, files, tmp_path):
    opened = open_experiment(experiment, device="cpu")
    write_pack(opened, tmp_path / "pack", files, PackSettings())
    (tmp_path / "pack/decode").mkdir()
    (tmp_path / "pack/decode/mine").write_text("x")
    write_pack(opened, tmp_path / "pack", {}, PackSettings())
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {
        *("model.json", "README.md", "config.yaml", "tokenizer.json", "model.safetensors", "decode")
    }
    assert open_pack(tmp_path / "pack").default_method == "prefix"


@pytest.fixture
def exported(experiment, tmp_path, monkeypatch):
    """A pack with a file that stands for its ONNX graphs."""

    def export(_, folder):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"graph")

    monkeypatch.setattr("asrtool.packs.pack._export", export)
    write_pack(open_experiment(experiment, device="cpu"), tmp_path / "pack", {}, PackSettings(export=True))
    return tmp_path / "pack"


@pytest.mark.parametrize("out", ["pack", "again"])
def test_packing_a_pack_takes_its_onnx_graphs_over(exported, out):
    write_pack(open_experiment(exported, device="cpu"), exported.parent / out, {}, PackSettings())
    assert "onnx/model.onnx" in open_pack(exported.parent / out).hashes
    assert (exported.parent / out / "onnx/model.onnx").read_bytes() == b"graph"


def test_onnx_graphs_of_other_weights_are_not_taken_over(exported, experiment):
    opened = open_experiment(experiment, device="cpu")
    write_pack(opened, exported, {}, PackSettings())
    assert not (exported / "onnx").exists()


def test_a_model_card_that_was_edited_is_kept(pack, tmp_path, caplog):
    shutil.copytree(pack, tmp_path / "pack")
    card = tmp_path / "pack/README.md"
    for text in (None, "mine\n"):
        if text:
            card.write_text(text)
        write_pack(open_experiment(tmp_path / "pack", device="cpu"), tmp_path / "pack", {}, PackSettings(licence="new"))
        assert ("new" in card.read_text()) == (text is None)
        assert ("was edited, and is kept" in caplog.text) == (text is not None)
    assert card.read_text() == "mine\n"


def test_another_folder_is_not_replaced(experiment):
    with pytest.raises(UserError, match="was not written by `asrtool pack`"):
        write_pack(open_experiment(experiment, device="cpu"), experiment, {}, PackSettings())


WRONG = {
    "rescoring without the graph's model": (("graph", "rescore"), {}, "--rescore needs --graph-lm"),
    "models without a graph": (("rescore", "graph_lm"), {}, "--rescore needs --graph"),
    "weights without a graph": (("decoding_weights",), {}, "--decoding-weights needs --graph"),
    "a weight without a model": ((), {"lm_weight": 0.5}, "--lm-weight needs --lm"),
    "a missing graph": ((), {"graph": "nothing"}, "graph.json"),
    "a missing model": ((), {"lm": "nothing.arpa"}, "nothing.arpa"),
    "another model than the graph's": (("graph", "rescore"), {"graph_lm": "rescore"}, "sha256 is another"),
    "priors of another size": (("graph",), {"priors": "[1, 2]"}, "2 numbers"),
    "weights of another kind": (("graph",), {"decoding_weights": "[1, 2]"}, "no decoding weights"),
    "a model that is none": (("graph",), {"lm": "[1, 2]"}, "lm"),
}


@pytest.mark.parametrize("names, changed, expected", WRONG.values(), ids=WRONG)
def test_files_that_do_not_fit_are_named_and_nothing_is_written(experiment, files, tmp_path, names, changed, expected):
    given = {name: files[name] for name in names}
    for name, value in changed.items():
        if value in files:
            value = files[value]
        elif isinstance(value, str):
            path = tmp_path / value.strip("[]").replace(", ", "_")
            if value.startswith("["):
                path.write_text(value)
            value = path
        given[name] = value
    with pytest.raises(UserError) as caught:
        write_pack(open_experiment(experiment, device="cpu"), tmp_path / "pack", given, PackSettings())
    assert expected in str(caught.value)
    assert not (tmp_path / "pack").exists() and not list(tmp_path.glob(".tmp*"))


def test_weights_that_are_replaced_meanwhile_are_not_packed(experiment, tmp_path, monkeypatch):
    """A training that runs links best.pt to another file."""
    folder = shutil.copytree(experiment, tmp_path / "exp")
    opened = open_experiment(folder, "best", "cpu")

    def choose_and_replace(*arguments):
        write_other_weights(opened.checkpoint, opened.checkpoint)
        return chosen_files(*arguments)

    monkeypatch.setattr("asrtool.packs.pack.chosen_files", choose_and_replace)
    with pytest.raises(UserError, match="best.pt was replaced meanwhile"):
        write_pack(opened, tmp_path / "pack", {}, PackSettings())
    assert not (tmp_path / "pack").exists()


def test_a_graph_of_other_units_is_refused(experiment, tokenizer_file, tmp_path):
    from asrtool.text.tokenizer import load_tokenizer
    from tests.decoding.graphs import save_word_graph

    other = save_word_graph(tmp_path / "other", load_tokenizer(tokenizer_file), sha256={"tokenizer": "0"})
    with pytest.raises(UserError, match="another tokenizer"):
        write_pack(open_experiment(experiment, device="cpu"), tmp_path / "pack", {"graph": other}, PackSettings())


def test_the_method_of_an_option_without_files_is_refused(asr, experiment, tmp_path):
    status, _, err = asr("pack", experiment, tmp_path / "pack", "--method", "graph")
    assert status == 2 and "needs --graph" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--method", "greedy", "--beam", 10], "--beam has no effect on --method greedy"),
        (["--lattice-beam", 3], "--lattice-beam needs --graph"),
        (["--method", "greedy", "--lattice-beam", 3], "--lattice-beam needs --graph"),
        (["--method", "prefix", "--lattice-beam", 3], "--lattice-beam needs --graph"),
        (["--lm-weight", 0.3], "--lm-weight needs --lm"),
        (["--insertion-penalty", 0.3], "--insertion-penalty needs --lm"),
    ],
)
def test_options_without_an_effect_are_refused(asr, experiment, tmp_path, options, complaint):
    status, _, err = asr("pack", experiment, tmp_path / "pack", *options)
    assert status == 2 and complaint in err and err.count("\n") == 1
    assert not (tmp_path / "pack").exists()
