"""Scoring a decode folder: what is read, written and refused."""

import json
import subprocess
import sys
import unicodedata

import pytest

from asrtool.errors import DataError, UserError
from asrtool.files import file_hash
from asrtool.scoring import folder as scoring_folder
from asrtool.scoring.folder import SCORE_FILES, read_hypotheses, score_folder, set_name

ROWS = [
    {"id": "u1", "ref": "a b c", "hyp": "a c", "score": -1.5},
    {"id": "u2", "ref": "中文 d", "hyp": "中文 d", "score": -2.0, "frames": [1, 5]},
]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "greedy"
    folder.mkdir()
    write_rows(folder / "hyps.jsonl", ROWS)
    return folder


def test_rows_are_read_in_order_with_all_their_fields(folder):
    assert read_hypotheses(folder / "hyps.jsonl") == ROWS


def test_the_unicode_form_of_a_text_is_not_an_error(folder):
    rows = [{"id": "u1", "ref": "caf\u00e9 no\u0308", "hyp": "cafe\u0301 n\u00f6"}]
    write_rows(folder / "hyps.jsonl", rows)
    assert score_folder(folder).wer == 0


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_all_texts_of_a_row_have_one_unicode_form(folder, form):
    word = unicodedata.normalize(form, "\u00f2")
    row = {"id": "u1", "ref": "\u00f2 a", "hyp": f"{word} a", "score": -1.0, "words": [[word, 0, 0.1, 0.9], ["a", 0.2]]}
    row["nbest"] = [{"hyp": f"{word} a", "score": -1.0}, {"hyp": word, "score": -2.0}]
    [read] = read_hypotheses(write_rows(folder / "hyps.jsonl", [row]))
    assert read["hyp"].split() == [entry[0] for entry in read["words"]] == ["\u00f2", "a"]
    assert [entry["hyp"] for entry in read["nbest"]] == ["\u00f2 a", "\u00f2"]


@pytest.mark.parametrize("odd", [{"words": None}, {"words": [3, [], [None]]}, {"nbest": [3, {}, {"hyp": None}]}])
def test_the_unicode_form_of_other_values_is_not_asked_for(folder, odd):
    row = {"id": "u1", "ref": "a", "hyp": "a"} | odd
    assert read_hypotheses(write_rows(folder / "hyps.jsonl", [row])) == [row]


def test_scores_of_hypotheses_that_are_replaced_meanwhile_are_not_those_of_the_new_ones(folder, monkeypatch):
    scored = scoring_folder._score

    def replaced_meanwhile(rows, alignments):
        score = scored(rows, alignments)
        write_rows(folder / "hyps.jsonl", [row | {"hyp": row["ref"]} for row in ROWS])
        return score

    monkeypatch.setattr(scoring_folder, "_score", replaced_meanwhile)
    score_folder(folder)
    facts = json.loads((folder / "wer.json").read_text(encoding="utf-8"))
    assert facts["hypotheses"] != file_hash(folder / "hyps.jsonl")


def test_a_folder_that_another_process_writes_is_not_scored(folder):
    code = """
import sys
from asrtool.locks import write_lock
with write_lock(sys.argv[1], "asrtool decode"):
    print("locked", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(UserError, match="asrtool decode"):
            score_folder(folder)
        writer.communicate("\n")
    assert score_folder(folder)


def test_a_missing_folder_is_not_created(tmp_path):
    with pytest.raises(UserError, match="hypotheses"):
        score_folder(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_decode_folder_gets_its_reports_and_nothing_else(folder):
    score = score_folder(folder, "test")
    assert score.wer == pytest.approx(20.0)
    made = [".lock", "alignments.jsonl", "alignments.txt", "report.txt", "wer.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*made, "hyps.jsonl"])
    first = json.loads((folder / "alignments.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["alignment"] == [["a", "a"], ["b", ""], ["c", "c"]] and first["deletions"] == 1
    facts = json.loads((folder / "wer.json").read_text(encoding="utf-8"))
    assert (facts["set"], facts["wer"]) == ("test", pytest.approx(20.0))
    assert (folder / "report.txt").read_text(encoding="utf-8").startswith("test WER 20.00 %")
    assert "中文" in (folder / "alignments.txt").read_text(encoding="utf-8")


def test_errors_are_counted_by_speaker_also_for_numeric_names(folder):
    more = [{"id": "u3", "ref": "a", "hyp": "b", "speaker": 7}, {"id": "u4", "ref": "a", "hyp": "a", "speaker": "ann"}]
    write_rows(folder / "hyps.jsonl", [*ROWS, *more])
    assert {name: counts.rate for name, counts in score_folder(folder).speakers.items()} == {"7": 100.0, "ann": 0.0}


@pytest.mark.parametrize("given, expected", [(None, "dev-clean"), ("mine", "mine")])
def test_the_set_name_comes_from_the_caller_or_decode_json(folder, given, expected):
    (folder / "decode.json").write_text('{"set": "dev-clean", "beam": 8}', encoding="utf-8")
    score_folder(folder, given)
    assert json.loads((folder / "wer.json").read_text(encoding="utf-8"))["set"] == expected


def test_without_decode_json_the_folder_names_the_set(folder):
    assert set_name(folder) == "greedy"


def test_a_broken_decode_json_is_named(folder):
    (folder / "decode.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"decode\.json:1: not JSON"):
        score_folder(folder)


def test_a_missing_file_points_to_the_decode_command(tmp_path):
    with pytest.raises(UserError, match=r"hyps\.jsonl; make them with `asrtool decode`"):
        score_folder(tmp_path / "nowhere")


def test_a_file_without_lines_is_refused(tmp_path):
    with pytest.raises(UserError, match="no hypotheses in"):
        read_hypotheses(write_rows(tmp_path / "hyps.jsonl", []))


@pytest.mark.parametrize(
    "row, complaint",
    [
        ({"id": "u3", "ref": "a"}, "no text under hyp"),
        ({"hyp": "a"}, "no text under id, ref"),
        ({"id": "u3", "ref": None, "hyp": "a"}, "no text under ref"),
        (["u3", "a", "a"], "not a JSON object"),
    ],
)
def test_an_incomplete_row_is_refused_with_its_line(tmp_path, row, complaint):
    path = write_rows(tmp_path / "hyps.jsonl", [*ROWS, row])
    with pytest.raises(UserError, match=complaint) as caught:
        read_hypotheses(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_all_repeated_ids_are_listed(tmp_path):
    path = write_rows(tmp_path / "hyps.jsonl", [*ROWS, *ROWS, ROWS[0], {**ROWS[0], "id": "u9"}])
    with pytest.raises(DataError) as caught:
        read_hypotheses(path)
    assert caught.value.problems == ["u1: 3 lines", "u2: 2 lines"]


def test_a_failed_scoring_leaves_no_report(folder):
    write_rows(folder / "hyps.jsonl", [{"id": "u1", "ref": "", "hyp": "a"}])
    with pytest.raises(UserError):
        score_folder(folder)
    assert not [name for name in SCORE_FILES if (folder / name).exists()]


def test_several_folders_are_pooled_into_one_set(asr, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_rows(other / "hyps.jsonl", [{"id": "u3", "ref": "a b c d e", "hyp": "a b c x y"}])
    status, printed, _ = asr("score", folder, other, "--pool", "all folds")
    assert status == 0
    lines = printed.splitlines()  # 1 error in 5 words, 2 in 5, 3 in 10
    assert [line.split(" %")[0] for line in lines] == ["greedy WER 20.00", "other WER 40.00", "all folds WER 30.00"]
    for fold, name in ((folder, "eve"), (other, "ann")):
        rows = [json.loads(line) | {"speaker": name} for line in (fold / "hyps.jsonl").read_text().splitlines()]
        (fold / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = asr("score", folder, other, "--pool", "all folds")[1].splitlines()
    assert len(lines) == 4 and lines[3].startswith("    [") and lines[3].endswith("] by bootstrap over the 2 speakers")
    status, _, err = asr("score", folder, folder, "--pool", "twice")
    assert status == 1 and "2 ids occur more than once" in err


def test_words_and_phones_are_not_scored_as_one_set(asr, folder, tmp_path):
    phones = {"id": "u3", "ref": "AH B", "hyp": "AH", "token_type": "phones"}
    (tmp_path / "phones").mkdir()
    write_rows(tmp_path / "phones/hyps.jsonl", [phones])
    status, _, err = asr("score", folder, tmp_path / "phones", "--pool", "all")
    expected = f"{folder} {tmp_path}/phones: some hypotheses are words, others phones; score results of one type"
    assert status == 2 and expected in err.splitlines()[-1]
    write_rows(folder / "hyps.jsonl", [*ROWS, phones])
    with pytest.raises(UserError, match=r"hyps\.jsonl: some hypotheses are words, others phones"):
        read_hypotheses(folder / "hyps.jsonl")


def test_a_folder_without_transcripts_is_named(folder):
    write_rows(folder / "hyps.jsonl", [{"id": "u1", "ref": "", "hyp": "a"}])
    with pytest.raises(UserError, match=rf"^{folder}: no reference words in 1 utterances"):
        score_folder(folder)
    assert not [name for name in SCORE_FILES if (folder / name).exists()]


def test_texts_of_strangers_do_not_control_the_terminal(asr, folder):
    escape = "\x1b]0;title\x07"
    rows = [
        {"id": f"u{n}{escape}", "speaker": f"s{n}{escape}", "ref": f"a{escape} b", "hyp": f"c{escape}"} for n in (1, 2)
    ]
    write_rows(folder / "hyps.jsonl", rows)
    (folder / "decode.json").write_text(json.dumps({"set": f"set{escape}"}), encoding="utf-8")
    status, printed, said = asr("score", folder, "--pool", f"all{escape}")
    assert status == 0 and "set\\x1b" in printed
    shown = [printed, said, *((folder / name).read_text(encoding="utf-8") for name in ("report.txt", "alignments.txt"))]
    assert not any(character in text for text in shown for character in "\x1b\x07")
