"""Counting the pronunciations that an alignment takes."""

import json
from pathlib import Path

import pytest

from asrtool.data.pronunciation_counts import count_pronunciations
from asrtool.errors import DataError
from asrtool.text.lexicon import Lexicon

LEXICON = Lexicon({"the": (("DH", "AH"), ("DH", "IY")), "a": (("AH",), ("EY",)), "I": (("AY",),)})


def write_manifest(path: Path, *utterances: list[tuple[str, str]]) -> Path:
    """Writes a manifest; an utterance is a list of words with their phones, or an empty word with its silence."""
    lines = []
    for number, utterance in enumerate(utterances):
        words, units, frame = [], [], 0
        for word, phones in utterance:
            begin = frame
            for phone in phones.split():
                units.append([phone, round(frame * 0.03, 4), 0.06, -0.1])
                frame += 2
            if word:
                words.append([word, round(begin * 0.03, 4), round((frame - begin) * 0.03, 4), -0.1])
            frame += 1
        name = f"utterance{number}"
        supervision = {"id": name, "recording_id": name, "start": 0.0, "duration": 9.0, "channel": 0, "text": "the"}
        if utterance:
            supervision["alignment"] = {"word": words, "unit": units}
        source = {"type": "file", "channels": [0], "source": "a.wav"}
        recording = {"id": name, "sources": [source], "sampling_rate": 16000, "num_samples": 144000, "duration": 9.0}
        cut = {"id": name, "start": 0.0, "duration": 9.0, "channel": 0, "type": "MonoCut"}
        lines.append(json.dumps(cut | {"supervisions": [supervision], "recording": recording}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pronunciations_are_counted_between_silence_and_neighbours(tmp_path):
    first = [("", "SIL"), ("the", "DH IY"), ("a", "AH"), ("the", "DH AH"), ("", "SIL")]
    cuts = write_manifest(tmp_path / "cuts.jsonl", first, [("the", "DH IY"), ("I", "AY")])
    counts = count_pronunciations(cuts, LEXICON).counts
    assert counts == {("the", ("DH", "IY")): 2, ("the", ("DH", "AH")): 1, ("a", ("AH",)): 1, ("I", ("AY",)): 1}


def test_other_words_and_pronunciations_are_not_counted(tmp_path):
    cuts = write_manifest(tmp_path / "cuts.jsonl", [("the", "DH OW"), ("zoo", "Z UW"), ("a", "EY"), ("a", "EY")])
    result = count_pronunciations(cuts, LEXICON)
    assert result.counts == {("a", ("EY",)): 2}
    assert "2 words counted, 1 not" in str(result) and "the with DH OW 1 times" in str(result)
    assert str(result).endswith("1 are not words of the lexicon")


def test_a_manifest_that_was_aligned_with_other_phones_is_refused(tmp_path):
    words = [("the", "DH0 AH0"), ("a", "AH0"), ("I", "AY")]
    with pytest.raises(DataError, match="1 words counted, 2 not.*align it with a system of these phones"):
        count_pronunciations(write_manifest(tmp_path / "cuts.jsonl", words), LEXICON)


def test_the_case_of_words_is_changed(tmp_path):
    cuts = write_manifest(tmp_path / "cuts.jsonl", [("THE", "DH IY"), ("A", "EY")])
    assert count_pronunciations(cuts, LEXICON, "lower").counts.total() == 2
    with pytest.raises(DataError, match="0 words counted, 2 are not words of the lexicon"):
        count_pronunciations(cuts, LEXICON)


def test_all_cuts_without_an_alignment_are_named(tmp_path):
    cuts = write_manifest(tmp_path / "cuts.jsonl", [("a", "EY")], [], [("a", "EY")], [])
    with pytest.raises(DataError, match="2 cuts of .* have no alignment to count") as error:
        count_pronunciations(cuts, LEXICON)
    assert [problem.split(":")[0] for problem in error.value.problems] == ["utterance1", "utterance3"]


@pytest.mark.parametrize("alignment", [{"word": 3, "unit": []}, {"word": [["a"]], "unit": [["EY", 0, 1]]}, {},
                                       {"word": [["a", "x", 1]], "unit": [["EY", 0, 1]]}])  # fmt: skip
def test_an_alignment_of_another_form_is_named(tmp_path, alignment):
    cuts = write_manifest(tmp_path / "cuts.jsonl", [("a", "EY")])
    cut_dict = json.loads(cuts.read_text())
    cut_dict["supervisions"][0]["alignment"] = alignment
    cuts.write_text(json.dumps(cut_dict) + "\n")
    with pytest.raises(DataError, match="1 cuts of .* have no alignment to count"):
        count_pronunciations(cuts, LEXICON)
