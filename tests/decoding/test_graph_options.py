"""Files that options of a graph search name: scales and priors, also those of strangers."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asrtool.cli.decode import decode
from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.options import (
    DEFAULT_LATTICE_BEAM,
    DEFAULT_LM_WEIGHT,
    DEFAULT_PREFIX_BEAM,
    LATTICE_SEARCH_BEAM,
    check_options,
    graph_options,
    read_priors,
)
from asrtool.errors import UserError

SHOWN = ["nbest", "insertion_penalty", "max_active", "min_active", "acoustic_scale", "blank_penalty"]
GRAPH = SimpleNamespace(meta={"outputs": 3})
WEIGHTS = {"acoustic_scale": 0.8, "blank_penalty": 1, "insertion_penalty": -4.5}


@pytest.fixture
def write(tmp_path):
    """write(text) -> the file of it"""

    def make(text):
        (tmp_path / "file.json").write_text(text, encoding="utf-8")
        return tmp_path / "file.json"

    return make


def test_options_that_are_given_replace_those_of_the_file_of_decoding_weights(write):
    options = graph_options({"decoding_weights": write(json.dumps({"best": WEIGHTS})), "acoustic_scale": 2.0})
    assert (options.acoustic_scale, options.blank_penalty, options.insertion_penalty) == (2.0, 1.0, -4.5)


@pytest.mark.parametrize("given", [{"lattices": True}, {"nbest": 2}, {"rescore": Path("lm")}, {"lattice_beam": 5.0}])
def test_a_search_that_builds_lattices_has_a_narrower_beam_unless_one_is_given(given):
    assert graph_options(given).beam == LATTICE_SEARCH_BEAM < graph_options({}).beam == GraphOptions().beam
    assert graph_options(given | {"beam": 14.0}).beam == 14.0


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1e30", "true", "null", '"1"', "[1]", "1" + 400 * "0"])
def test_decoding_weights_that_are_not_numbers_are_refused_with_the_name_of_the_file(write, name, value):
    path = write(json.dumps({"best": WEIGHTS | {name: "HERE"}}).replace('"HERE"', value))
    with pytest.raises(UserError, match=r"file\.json.*create them with `asrtool tune`") as raised:
        graph_options({"decoding_weights": path})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["0", "-1", "-0.0"])
def test_an_acoustic_scale_that_is_not_above_0_is_refused(write, value):
    with pytest.raises(UserError, match=r"file\.json: --acoustic-scale"):
        graph_options(
            {
                "decoding_weights": write(
                    f'{{"best": {{"acoustic_scale": {value}, "blank_penalty": 0, "insertion_penalty": 0}}}}'
                )
            }
        )


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"best": []}', '{"best": {}}', "[" * 100_000])
def test_files_without_decoding_weights_are_refused(write, text):
    with pytest.raises(UserError, match=r"file\.json"):
        graph_options({"decoding_weights": write(text)})


@pytest.mark.parametrize("text", ["[1, 2, 0]", "[1e-100, 1e100, 0]", "[0, 0, 5]", "[0.5, 0.25, 0.25]"])
def test_priors_are_finite(write, text):
    assert np.isfinite(read_priors(write(text), GRAPH)).all()


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", "-1", "1e300", "1e-320", "true", "null", '"1"', "1" + 400 * "0"]
)
def test_priors_that_are_not_counts_are_refused_with_the_name_of_the_file(write, value):
    with pytest.raises(UserError, match=r"file\.json") as raised:
        read_priors(write(f"[1, 2, {value}]"), GRAPH)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "[0, 0, 0]", "[1, 2]", "[1, 2, 3, 4]", "[[1], [2], [3]]"])
def test_files_without_priors_are_refused(write, text):
    with pytest.raises(UserError, match=r"file\.json"):
        read_priors(write(text), GRAPH)


@pytest.mark.parametrize(
    "options", [{"beam": math.nan}, {"lm_weight": math.nan, "lm": "x"}, {"insertion_penalty": math.inf, "lm": "x"}]
)
def test_numbers_of_a_prefix_search_are_checked(options):
    with pytest.raises(UserError, match="out of range"):
        check_options(["prefix"], options)


@pytest.mark.parametrize("name", SHOWN)
def test_the_help_of_decode_shows_the_defaults_of_graph_search(name):
    (option,) = (option for option in decode.params if option.name == name)
    assert float(option.show_default) == getattr(GraphOptions(), name)


def test_the_help_of_decode_shows_the_other_defaults_of_searches():
    shown = {option.name: getattr(option, "show_default", None) for option in decode.params}
    graph_beams = f"{GraphOptions().beam}, with lattices {LATTICE_SEARCH_BEAM}"
    assert shown["beam"] == f"{DEFAULT_PREFIX_BEAM} prefixes; in graph search {graph_beams}"
    assert float(shown["lattice_beam"]) == DEFAULT_LATTICE_BEAM and float(shown["lm_weight"]) == DEFAULT_LM_WEIGHT
