"""The options that a system carries: what they are, and which of them the user's own replace."""

from dataclasses import replace
from pathlib import Path

import pytest

from asrtool.decoding.system_options import (
    best_method,
    carried_options,
    options_by_method,
    search_options,
    warn_of_unused_weights,
    with_lattices,
)
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.system_files import SystemFiles

GRAPH = Path("pack/graph")
FILES = SystemFiles(
    graph=GRAPH,
    graph_lm=Path("pack/lm/graph.arpa"),
    rescore=Path("pack/lm/rescore.npz"),
    lm=Path("pack/lm/prefix.npz"),
    priors=Path("pack/priors.json"),
    decoding_weights=Path("pack/decoding_weights.json"),
    options={"graph": {"beam": 12.0, "lattice_beam": 6.0}, "prefix": {"lm_weight": 0.3}},
)


@pytest.fixture(scope="module")
def opened(experiment):
    return open_experiment(experiment, device="cpu")


@pytest.fixture
def system(opened):
    return replace(opened, files=FILES)


def test_an_experiment_carries_its_priors_and_calibration(opened, experiment, tmp_path):
    assert opened.files == SystemFiles()
    for name in ("priors.json", "calibration.json"):
        (experiment / name).write_text("[1, 1, 1, 1, 1]", encoding="utf-8")
    try:
        again = open_experiment(experiment, device="cpu")
    finally:
        for name in ("priors.json", "calibration.json"):
            (experiment / name).unlink()
    assert again.files == SystemFiles(priors=experiment / "priors.json", calibration=experiment / "calibration.json")
    assert carried_options(again, "graph") == {"priors": experiment / "priors.json"}
    assert carried_options(again, "greedy") == carried_options(again, "prefix") == {}


def test_a_method_gets_the_files_that_it_reads(system):
    assert carried_options(system, "greedy") == {}
    assert carried_options(system, "prefix") == {"lm": FILES.lm, "lm_weight": 0.3}
    assert carried_options(system, "graph") == {
        "graph": GRAPH,
        "graph_lm": FILES.graph_lm,
        "rescore": FILES.rescore,
        "priors": FILES.priors,
        "decoding_weights": FILES.decoding_weights,
        "beam": 12.0,
        "lattice_beam": 6.0,
    }


def test_a_stream_builds_no_lattices(system):
    names = {"graph", "priors", "decoding_weights", "beam"}
    assert carried_options(system, "graph", streaming=True).keys() == names


@pytest.mark.parametrize("missing", ["rescore", "graph_lm"])
def test_rescoring_needs_both_models(system, missing):
    partial = replace(system, files=replace(FILES, **{missing: None}))
    assert not {"rescore", "graph_lm"} & carried_options(partial, "graph").keys()


def test_the_users_options_win(system):
    options = search_options(system, "graph", {"beam": 9.0, "priors": Path("mine.json")})
    assert (options["beam"], options["priors"], options["graph"]) == (9.0, Path("mine.json"), GRAPH)


def test_another_graph_comes_without_what_belongs_to_the_carried_one(system):
    options = search_options(system, "graph", {"graph": Path("mine")})
    assert options == {"graph": Path("mine"), "priors": FILES.priors, "beam": 12.0}


def test_another_model_for_rescoring_keeps_the_graphs_own(system):
    without = replace(system, files=replace(FILES, rescore=None))
    options = search_options(without, "graph", {"rescore": Path("mine.npz")})
    assert (options["rescore"], options["graph_lm"]) == (Path("mine.npz"), FILES.graph_lm)


def test_another_lm_comes_without_the_weight_of_the_carried_one(system):
    assert search_options(system, "prefix", {"lm": Path("mine.npz")}) == {"lm": Path("mine.npz")}


def test_a_limit_of_active_states_leaves_rescoring_out(system):
    options = search_options(system, "graph", {"max_active": 500})
    assert not {"rescore", "graph_lm", "lattice_beam"} & options.keys()


def test_options_of_other_methods_are_left_out(system):
    assert search_options(system, "greedy", {"beam": 4.0, "lattices": True}) == {}


def test_a_graph_search_needs_a_graph(opened):
    with pytest.raises(UserError, match="needs --graph"):
        search_options(opened, "graph", {})


def test_the_best_method_is_the_most_accurate_one_that_there_are_files_for(opened, system):
    assert best_method(system) == "graph"
    assert best_method(opened) == "prefix"
    assert best_method(replace(opened, files=SystemFiles(default_method="greedy"))) == "greedy"


def test_graph_search_for_confidences_builds_lattices():
    beams = {"beam": 12.0, "lattice_beam": 6.0, "lattice_max_entropy": 2.0}
    assert with_lattices("graph", {"graph": GRAPH}) == {"graph": GRAPH} | beams
    given = {"graph": GRAPH, "beam": 9.0, "lattice_beam": 4.0}
    assert with_lattices("graph", given) == beams | given
    rescored = {"graph": GRAPH, "rescore": Path("lm"), "graph_lm": Path("old")}
    assert with_lattices("graph", rescored) == beams | rescored


@pytest.mark.parametrize("method, options", [
    ("greedy", {}), ("prefix", {"beam": 8}), ("graph", {"max_active": 100}), ("graph", {"min_active": 5, "beam": 9.0}),
    ("graph", {"engine": "k2"}),
])  # fmt: skip
def test_other_searches_stay_as_they_are(method, options):
    assert with_lattices(method, options) == options


@pytest.fixture
def tuned(opened, tmp_path):
    """A system whose folder has tuned weights, and the path of these."""
    path = tmp_path / "decode/dev/decoding_weights.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    return replace(opened, folder=tmp_path), path


def test_tuned_weights_that_are_not_used_are_named_once(tuned, caplog):
    system, path = tuned
    options_by_method(system, ["greedy", "graph"], {"graph": GRAPH})
    assert len(caplog.messages) == 1
    assert str(path) in caplog.text and "--decoding-weights FILE" in caplog.text


@pytest.mark.parametrize("method, options", [
    ("greedy", {}), ("prefix", {"insertion_penalty": 1.0}), ("graph", {"decoding_weights": Path("mine.json")}),
    ("graph", {"acoustic_scale": 2.0}), ("graph", {"blank_penalty": 0.0}), ("graph", {"insertion_penalty": 1.0}),
])  # fmt: skip
def test_given_weights_and_other_searches_have_no_warning(tuned, method, options, caplog):
    warn_of_unused_weights(tuned[0], method, {"graph": GRAPH} | options)
    assert not caplog.messages


def test_a_folder_without_tuned_weights_has_no_warning(opened, caplog):
    warn_of_unused_weights(opened, "graph", {"graph": GRAPH})
    assert not caplog.messages
