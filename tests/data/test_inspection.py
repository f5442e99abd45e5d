"""A look through a manifest lists all cuts that would be misread, and says what to do about all of them at once."""

from dataclasses import replace

import pytest
import torch
from lhotse import CutSet

from asrtool.data.inspection import CutRequirements, alignment_problem, inspect_cuts
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.statistics import feature_statistics
from asrtool.errors import DataError, UserError
from asrtool.objectives.ctc import min_frames
from asrtool.text.tokenizer import load_tokenizer
from tests.tiny import feature_batch


@pytest.fixture
def cuts(corpus):
    return list(open_cuts(corpus))


@pytest.fixture
def inspect(tiny_config, tokenizer_file, tmp_path):
    """inspect(cuts, **config) -> what `inspect_cuts` finds, with four frames for an output frame."""

    def look(cuts, **changes):
        CutSet.from_cuts(cuts).to_file(tmp_path / "in.jsonl.gz")
        config = tiny_config(**changes)
        requirements = CutRequirements(
            data=config.data,
            sampling_rate=config.features.sampling_rate,
            tokenizer=load_tokenizer(tokenizer_file),
            min_frames=min_frames,
            out_length=lambda frames: frames // 4,
        )
        return inspect_cuts(tmp_path / "in.jsonl.gz", requirements)

    return look


def part(cut, start=0.0, seconds=None):
    """The cut with a supervision of this span."""
    return replace(cut, supervisions=[replace(cut.supervisions[0], start=start, duration=seconds or cut.duration)])


def test_cuts_that_would_be_misread_are_listed_with_their_reasons(cuts, inspect):
    (supervision,) = cuts[2].supervisions
    cuts[2] = replace(cuts[2], supervisions=[supervision, replace(supervision, id="b")])
    cuts[5] = part(cuts[5], seconds=0.4)
    cuts[7] = replace(cuts[7], recording=None)
    with pytest.raises(DataError) as caught:
        inspect([*cuts, cuts[0]])
    found = [problem.split(";")[0] for problem in caught.value.problems]
    assert found == [
        f"{cuts[2].id}: 2 supervisions",
        f"{cuts[5].id}: its supervision covers 0.00 to 0.40 s of the cut's {cuts[5].duration:.2f} s",
        f"{cuts[7].id}: no recording and no features",
        f"{cuts[0].id}: duplicate id",
    ]


def test_a_window_with_an_overhanging_transcript_is_dropped_by_name(cuts, inspect):
    window = replace(cuts[5], duration=cuts[5].duration / 2)
    found = inspect([*cuts[:5], window])
    assert list(found.dropped) == [window.id]
    assert "goes beyond the cut" in found.dropped[window.id]
    too_short = replace(cuts[5], duration=0.05)  # its length is reported first
    assert "0.05 s is outside" in inspect([*cuts[:5], too_short]).dropped[too_short.id]


@pytest.mark.parametrize("speeds", [[1.0], [0.9, 1.1]])
def test_a_cut_shorter_than_a_frame_is_dropped_even_if_short_cuts_are_allowed(cuts, inspect, speeds):
    short = part(replace(cuts[0], duration=0.006))
    data = {"min_seconds": 0.001, "augment": {"speeds": speeds}}
    assert "shorter than one frame" in inspect([*cuts[1:4], short], data=data).dropped[short.id]


def test_if_all_data_has_another_rate_the_setting_to_change_is_named(cuts, inspect):
    slow = [cut.resample(8000) for cut in cuts]
    with pytest.raises(DataError) as caught:
        inspect(slow)
    assert "set features.sampling_rate=8000, or resample with `asrtool prepare --resample`" in caught.value.summary
    assert str(caught.value).count("\n") < 12 and len(caught.value.problems) == 24
    with pytest.raises(DataError) as caught:
        inspect([*cuts[:20], *slow[20:]])
    assert caught.value.summary.endswith("; resample with `asrtool prepare --resample`")


@pytest.mark.parametrize("unit", [["x"], "x", [["one", 0.0]], [3], {"a": 1}])
def test_an_alignment_of_another_shape_is_a_problem_of_its_cut(cuts, unit):
    cut_dict = cuts[0].to_dict()
    cut_dict["supervisions"][0]["alignment"] = {"unit": unit}
    assert "is not a list of [symbol, start, duration]" in alignment_problem(cut_dict, None)


def test_statistics_without_frames_or_finite_mean_are_an_error():
    def batch(features, lens):
        return feature_batch(features, torch.tensor(lens), seconds=1.0)

    for given in ([], [batch(torch.zeros(0, 0, 3), [])]):
        with pytest.raises(UserError, match=r"data\.train has no cut with a whole frame"):
            feature_statistics(given, per_utterance=False)
    for value in (torch.nan, torch.inf):
        features = torch.zeros(1, 5, 3)
        features[0, 2, 1] = value
        with pytest.raises(UserError, match=r"mean of the features is not finite.*data\.train"):
            feature_statistics([batch(features, [5])], per_utterance=False)
