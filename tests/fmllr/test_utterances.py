"""The utterances that fMLLR is estimated on: which of them have words and frames."""

import pytest
from lhotse import CutSet

from asrtool.fmllr.utterances import read_utterances
from asrtool.text.tokenizer import load_tokenizer


@pytest.mark.parametrize("seconds", [0.0001, 0.006, 0.0087])
def test_a_cut_shorter_than_a_frame_has_no_words_and_stops_nothing(corpus, tokenizer_file, tmp_path, seconds):
    short, other = list(CutSet.from_file(corpus))[:2]
    CutSet.from_cuts([short.truncate(duration=seconds, preserve_id=True), other]).to_file(tmp_path / "cuts.jsonl.gz")
    utterances = list(read_utterances(tmp_path / "cuts.jsonl.gz", load_tokenizer(tokenizer_file), num_bins=20))
    assert [utterance.id for utterance in utterances] == [short.id, other.id]
    assert not utterances[0].words and not len(utterances[0].frames)
    assert utterances[1].words and len(utterances[1].frames)
