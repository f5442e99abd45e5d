import pickle

import pytest

from asrtool.data.sources import InvalidEntry
from asrtool.errors import MAX_LINE_LENGTH, MAX_PROBLEMS_SHOWN, DataError, UserError, require_file, summarise_problems


def test_problems_of_one_kind_are_shown_ten_times_and_then_counted():
    problems = [f"utt-{n}: {n} Hz, expected 16000: /data/{n}.wav" for n in range(2250)]
    folded = summarise_problems(problems)
    assert folded[:MAX_PROBLEMS_SHOWN] == problems[:MAX_PROBLEMS_SHOWN]
    assert folded[MAX_PROBLEMS_SHOWN:] == ["... and 2240 more like the last one (--debug lists all)"]


def test_a_rare_problem_is_not_lost_among_many_of_another_kind():
    problems = [f"u{n}: empty transcript" for n in range(50)] + ["v: no such audio file: 'x y.wav'"]
    assert summarise_problems(problems)[-1] == "v: no such audio file: 'x y.wav'"


@pytest.mark.parametrize("count", [0, 1, MAX_PROBLEMS_SHOWN])
def test_few_problems_are_all_shown(count):
    problems = [f"u{n}: duplicate id" for n in range(count)]
    assert summarise_problems(problems) == problems


def test_a_data_error_keeps_all_problems_and_survives_pickling():
    error = DataError("fix them", [f"u{n}: duplicate id" for n in range(30)])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and len(str(error).splitlines()) == MAX_PROBLEMS_SHOWN + 2
    assert len(copy.all_lines().splitlines()) == 31 and copy.all_lines().endswith("\nfix them")


@pytest.mark.parametrize("name", ["none", "x" * 5000, "a/" * 3000, "a\0b", "\ud800"])
def test_a_missing_file_is_named_for_any_name(name):
    with pytest.raises(UserError, match="table not found"):
        require_file(name, "table", "give one")


@pytest.mark.parametrize(
    "kind", [UserError, InvalidEntry, lambda text: DataError(text, []), lambda text: DataError("", [text])]
)
def test_a_message_is_one_line_of_bounded_length(kind):
    assert str(kind("a\nb\r\nc\u2028d")).strip() == "a b c d"
    assert len(str(kind("x" * 10_000)).strip()) == MAX_LINE_LENGTH


def test_a_folder_instead_of_a_file_is_reported_as_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint not found: .* is a folder; give a file$"):
        require_file(tmp_path, "checkpoint", "train first")
