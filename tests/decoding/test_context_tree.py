"""Growing units in context from an aligned manifest."""

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from asrtool.data.sampling import OrderedSampler
from asrtool.decoding.context_tree import feature_statistics, grow_units, log_prob_statistics
from asrtool.errors import DataError, UserError
from asrtool.experiment import open_experiment
from asrtool.text.context_statistics import StatisticsCollector
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer
from asrtool.training.train import train
from tests.decoding.alignments import align_evenly
from tests.tiny import WORDS

LEXICON = Lexicon({"one": (("W", "N"),), "two": (("T", "U"),), "three": (("R", "I"),), "four": (("F", "O"),)})


@pytest.fixture(scope="module")
def phones_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("phones") / "tokenizer.json"
    save_tokenizer(phone_tokenizer(LEXICON, list(WORDS)), path)
    return path


@pytest.fixture(scope="module")
def aligned(corpus, tmp_path_factory):
    """The tiny corpus, with phones of equal lengths."""
    return align_evenly(corpus, LEXICON, tmp_path_factory.mktemp("aligned") / "cuts.jsonl.gz")


@pytest.fixture(scope="module")
def biphones_file(aligned, phones_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("biphones") / "tokenizer.json"
    grow_units(aligned, path, phones_file, "biphone", 14, 10)
    return path


def test_units_are_grown_on_features(aligned, phones_file, tmp_path):
    out = tmp_path / "units.json"
    summary = grow_units(aligned, out, phones_file, "triphone", 12, 10)
    units = load_tokenizer(out)
    assert isinstance(units, ContextTokenizer) and units.kind == "triphone" and units.size == 13
    assert summary.startswith("13 units (triphone): 12 leaves of 8 phones, from")
    grow_units(aligned, tmp_path / "again.json", phones_file, "triphone", 12, 10)
    assert (tmp_path / "again.json").read_text() == out.read_text()


def test_statistics_of_features_count_the_frames_of_phones_and_are_normalised(aligned, phones_file):
    statistics = feature_statistics(aligned, load_tokenizer(phones_file), 5.0)
    cuts = list(CutSet.from_file(aligned))
    frames = sum(
        round(item.end / 0.01) - round(item.start / 0.01) for c in cuts for item in c.supervisions[0].alignment["unit"]
    )
    assert abs(statistics.num_frames - frames) <= len(cuts)
    assert statistics.moments.shape[1] == 1 + 2 * 39
    count, sums, squares = np.split(statistics.moments.sum(axis=0), [1, 40])
    assert (np.abs(sums / count) < 0.5).all() and (squares / count < 1.5).all()


def test_units_are_grown_on_log_probs(tiny_config, aligned, phones_file, tmp_path):
    config = tiny_config(data={"tokenizer": str(phones_file)})
    train(config, tmp_path / "exp", device="cpu")
    experiment = open_experiment(tmp_path / "exp", device="cpu")
    statistics = log_prob_statistics(experiment, aligned, load_tokenizer(phones_file), 10.0, 0, 5.0)
    assert statistics.moments.shape[1] == 1 + 2 * 9
    _, sums, _ = np.split(statistics.moments.sum(axis=0), [1, 10])
    assert (sums < 0).all()
    summary = grow_units(aligned, tmp_path / "u.json", phones_file, "biphone", 10, 1, experiment, 10.0, 0)
    assert load_tokenizer(tmp_path / "u.json").size == 11, summary
    by_hand = StatisticsCollector()
    for cut in CutSet.from_file(aligned):
        (row,) = experiment.log_probs(next(experiment.batches(one_batch(aligned, cut.id), 0)))[0]
        items = cut.supervisions[0].alignment["unit"]
        begins, ends = [round(i.start / 0.04) for i in items], [round(i.end / 0.04) for i in items]
        phones = load_tokenizer(phones_file).aligned_units([item.symbol for item in items])
        by_hand.add(row.clamp(min=-10).numpy(), phones, begins, ends)
    assert (by_hand.result().contexts == statistics.contexts).all()
    np.testing.assert_allclose(by_hand.result().moments, statistics.moments, rtol=1e-3, atol=1e-3)


def one_batch(manifest, name):
    """The batch of this cut alone."""
    return (batch for batch in OrderedSampler(manifest, 0.01) if batch.entries[0].id == name)


def remove_alignment(cut):
    cut.supervisions[0].alignment = None


def align_with_another_phone(cut):
    cut.supervisions[0].alignment["unit"][0] = AlignmentItem("XX", 0.0, 0.1)


@pytest.mark.parametrize("spoil", [remove_alignment, align_with_another_phone])
def test_cuts_without_an_alignment_of_phones_are_all_named(aligned, phones_file, tmp_path, spoil):
    cuts = list(CutSet.from_file(aligned))
    for cut in cuts[:3]:
        spoil(cut)
    CutSet.from_cuts(cuts).to_file(tmp_path / "bad.jsonl.gz")
    with pytest.raises(DataError) as error:
        grow_units(tmp_path / "bad.jsonl.gz", tmp_path / "u.json", phones_file, "biphone", 10, 1)
    assert [problem.split(":")[0] for problem in error.value.problems] == [cut.id for cut in cuts[:3]]
    assert not (tmp_path / "u.json").exists()


def test_a_tokenizer_without_phones_is_refused(aligned, tokenizer_file, biphones_file, tmp_path):
    for other in (tokenizer_file, biphones_file):
        with pytest.raises(UserError, match="is not of type phone"):
            grow_units(aligned, tmp_path / "u.json", other, "biphone", 10, 1)


def test_the_command_grows_units(asr, aligned, phones_file, tmp_path):
    out = tmp_path / "units.json"
    status, printed, _ = asr("tree", aligned, out, "--tokenizer", phones_file, "--leaves", 10, "--min-frames", 5)
    assert status == 0 and printed.startswith(f"{out}: 11 units (biphone): 10 leaves of 8 phones")
    for options in (["--statistics", "log-probs"], ["--model", tmp_path]):
        assert asr("tree", aligned, out, "--tokenizer", phones_file, *options)[0] == 2


def test_the_command_creates_untied_units(asr, corpus, tmp_path):
    (tmp_path / "lexicon.txt").write_text("".join(f"{w} {' '.join(p[0])}\n" for w, p in LEXICON.pronunciations.items()))
    out = tmp_path / "units.json"
    options = ["--lexicon", tmp_path / "lexicon.txt", "--silence", "SIL"]
    status, printed, _ = asr("tokenizer", corpus, out, "--type", "biphone", *options)
    assert (status, printed) == (0, f"{out}: {2 + 8 * 10} units (biphone)\n")
    assert asr("tokenizer", corpus, out, "--type", "triphone")[0] == 2
