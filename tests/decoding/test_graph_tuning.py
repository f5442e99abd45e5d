import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.kaldi_search import search_lattice
from asrtool.decoding.lattice_weights import DecodingWeights, best_words
from asrtool.decoding.log_probs import UtteranceLogProbs, read_log_probs, write_log_probs
from asrtool.decoding.tuning import Grid, TunedSystem, best_weights, reference_lattices, search_grid, tune_systems
from asrtool.errors import UserError
from tests.decoding.graphs import all_word_sequences, random_graph, random_log_probs, word_graph

WIDE = GraphOptions(beam=1e4, lattice_beam=1e4)
SOME = [
    DecodingWeights(1.0, 0.0, 0.0),
    DecodingWeights(0.4, 1.5, -0.7),
    DecodingWeights(2.5, -1.0, 1.2),
    DecodingWeights(0.7, 0.0, 30.0),
]


def shifted(weights: DecodingWeights, lines: list[str], log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """The cost of each word sequence at these weights, by enumeration."""
    changed = log_probs.copy()
    changed[:, 0] -= weights.blank_penalty
    found = all_word_sequences(lines, weights.acoustic_scale * changed)
    return {words: cost + weights.insertion_penalty * len(words) for words, cost in found.items()}


@pytest.mark.parametrize("seed", range(12))
def test_a_lattice_has_the_best_words_for_all_decoding_weights(seed):
    one, log_probs = random_graph(seed), random_log_probs(4, 4, seed)
    lattice, complete = search_lattice(one.fst, log_probs, WIDE)
    if complete:
        for weights, words in zip(SOME, best_words(lattice, SOME), strict=True):
            costs = shifted(weights, one.lines, log_probs)
            assert costs[words] == pytest.approx(min(costs.values()), abs=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_tuning_finds_what_real_searches_find_on_the_grid(scale):
    one = word_graph(5)
    grid = Grid((0.5, 1.0, 2.0), (0.0, 1.0), (-1.0, 0.0, 1.0), rounds=0)
    truth = GraphOptions(beam=1e4, acoustic_scale=2.0, blank_penalty=1.0, insertion_penalty=-1.0)
    utterances = []
    for seed in range(6):
        log_probs = random_log_probs(12, 5, seed)
        ref = " ".join(GraphSearch(one, truth).decode(log_probs).words)
        utterances.append(UtteranceLogProbs(str(seed), ref, log_probs))
    search = GraphSearch(one, GraphOptions(beam=1e4, lattice_beam=1e4, acoustic_scale=scale))
    found = search_grid(reference_lattices(search, utterances), grid)
    assert len(found["tried"]) == 18 and found["wer"] == 0.0
    for row in found["tried"][::5]:
        options = {name: row[name] for name in DecodingWeights._fields}
        wrong = [GraphSearch(one, GraphOptions(beam=1e4, **options)).decode(u.log_probs).words for u in utterances]
        same = all(" ".join(words) == u.ref for words, u in zip(wrong, utterances, strict=True))
        assert (row["wer"] == 0.0) == same


def test_several_processes_find_the_same(tmp_path):
    utterances = [UtteranceLogProbs(str(n), "w1 w2", random_log_probs(10 + n, 5, n)) for n in range(5)]
    alone, together = (GraphSearch(word_graph(5), WIDE, jobs) for jobs in (1, 2))
    one, other = (
        search_grid(reference_lattices(search, iter(utterances)), Grid(rounds=1)) for search in (alone, together)
    )
    assert one == other
    together.close()


def test_an_utterance_without_frames_is_tuned_on_with_all_its_words_deleted():
    utterances = [
        UtteranceLogProbs("a", "w1 w2", random_log_probs(20, 5, 1)),
        UtteranceLogProbs("b", "w1", random_log_probs(0, 5, 1)),
    ]
    search = GraphSearch(word_graph(5), WIDE)
    both, one = (
        search_grid(reference_lattices(search, chosen), Grid(rounds=0)) for chosen in (utterances, utterances[:1])
    )
    for row, alone in zip(both["tried"], one["tried"], strict=True):
        assert row["wer"] == pytest.approx((2 * alone["wer"] + 100) / 3, abs=1e-3)


def test_refinement_continues_from_the_best_and_never_gets_worse():
    utterances = [UtteranceLogProbs("a", "w1 w2 w3", random_log_probs(20, 5, 1))]
    search = GraphSearch(word_graph(5), WIDE)
    coarse, fine = (search_grid(reference_lattices(search, utterances), Grid(rounds=rounds)) for rounds in (0, 2))
    assert fine["wer"] <= coarse["wer"] and fine["tried"][: len(coarse["tried"])] == coarse["tried"]
    tried = [tuple(row[name] for name in DecodingWeights._fields) for row in fine["tried"]]
    assert len(set(tried)) == len(tried) > len(coarse["tried"])
    assert all(math.isfinite(row["wer"]) and row["acoustic_scale"] > 0 for row in fine["tried"])


def test_of_equal_wers_the_weights_nearest_to_the_defaults_are_best():
    found = {
        DecodingWeights(2.0, 0.0, 0.0): 5.0,
        DecodingWeights(1.0, 1.0, 0.0): 5.0,
        DecodingWeights(1.0, 0.0, 0.5): 5.0,
        DecodingWeights(1, 0, 0): 6.0,
    }
    assert best_weights(found) == DecodingWeights(1.0, 0.0, 0.5)


def test_log_probs_are_read_as_they_were_written(tmp_path):
    written = [
        UtteranceLogProbs(f"u{n}", f"ref {n}", random_log_probs(n % 7, 5, n).astype(np.float16)) for n in range(205)
    ]
    write_log_probs(tmp_path, iter(written), "run")
    read = list(read_log_probs(tmp_path))
    assert [(u.name, u.ref) for u in read] == [(u.name, u.ref) for u in written]
    assert all(np.array_equal(one.log_probs, other.log_probs) for one, other in zip(read, written, strict=True))
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["utterances"] == 205


@pytest.fixture
def stored(tmp_path):
    """The folder of log-probs of two utterances."""
    utterances = [UtteranceLogProbs(f"u{n}", "w1", random_log_probs(4, 5, n).astype(np.float16)) for n in range(2)]
    write_log_probs(tmp_path / "log_probs", utterances, "run")
    return tmp_path / "log_probs"


def test_damaged_log_probs_are_named_with_what_to_do(stored):
    path = stored / "00000.npz"
    whole = path.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"00000\.npz is not log-probs.*delete its folder"):
            list(read_log_probs(stored))
    path.unlink()
    with pytest.raises(UserError, match=r"00000\.npz"):
        list(read_log_probs(stored))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"ids": np.array(["a"]), "refs": np.array(["w1"])},
        {"ids": np.array(["a"]), "refs": np.array(["w1", "w2"]), "0": np.zeros((2, 5), np.float16)},
        {"ids": np.array(["a"]), "refs": np.array(["w1"]), "0": np.full((2, 5), np.nan, np.float16)},
        {"ids": np.array(["a"]), "refs": np.array(["w1"]), "0": np.full((2, 5), 1.0, np.float16)},
        {"ids": np.array(["a"]), "refs": np.array(["w1"]), "0": np.zeros(5, np.float16)},
        {"ids": np.array(["a"]), "refs": np.array(["w1"]), "0": np.zeros((2, 5), np.complex64)},
        {"ids": np.array(3), "refs": np.array(["w1"]), "0": np.zeros((2, 5), np.float16)},
    ],
    ids=range(8),
)
def test_arrays_that_are_not_log_probs_are_refused(stored, arrays):
    np.savez(stored / "00000.npz", **arrays)
    with pytest.raises(UserError, match=r"00000\.npz"):
        list(read_log_probs(stored))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"files": -1, "utterances": 1}', '{"files": 1.5, "utterances": 1}']
)
def test_a_damaged_index_is_refused(stored, text):
    (stored / "index.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.json"):
        list(read_log_probs(stored))


def system(folder, cuts="dev.jsonl.gz"):
    return TunedSystem(SimpleNamespace(folder=folder), folder / cuts, GraphSearch(word_graph(5), WIDE))


def test_the_name_of_a_set_is_its_file_name_up_to_the_suffix(tmp_path):
    assert system(tmp_path, "dev.clean.jsonl.gz").folder == tmp_path / "decode" / "dev.clean"


@pytest.mark.parametrize(
    ("out", "content", "complaint"),
    [
        ("weights.txt", None, "does not end in .json"),
        ("tokenizer.json", '{"type": "char"}', "exists and is not decoding weights of `asrtool tune`"),
        ("weights.json", None, "two sets would store their log-probs in .*decode/dev/log_probs"),
    ],
)
def test_tune_refuses_outputs_that_it_must_not_overwrite_before_any_work(tmp_path, out, content, complaint):
    if content:
        (tmp_path / out).write_text(content)
    with pytest.raises(UserError, match=complaint):
        tune_systems([system(tmp_path), system(tmp_path, "dev.jsonl")], tmp_path / out, Grid())
    assert [path.name for path in tmp_path.iterdir()] == ([out] if content else [])
