"""The utterances that the GMM learns from and that transforms are estimated on: cepstra, words and speaker."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lhotse import MonoCut
from torch import Tensor

from asrtool.data.features import is_too_short, stored_or_computed
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sources import as_data_error
from asrtool.data.speaker_transforms import cepstra, cosine_transform, transform_key
from asrtool.errors import DataError
from asrtool.text.tokenizer import Tokenizer

MAX_SECONDS = 300.0  # of a cut

Pronunciations = list[list[list[int]]]  # all pronunciations of each word, as units


@dataclass
class Utterance:
    """Frames (T, D) of mean zero, and their transcript."""

    id: str
    key: str  # of its transform: the speaker and the speed
    words: Pronunciations
    frames: Tensor


def read_utterances(
    cuts: Path,
    tokenizer: Tokenizer,
    num_bins: int,
    texts: Mapping[str, str] | None = None,
    max_seconds: float = MAX_SECONDS,
    is_wanted: Callable[[MonoCut], bool] = lambda cut: True,
) -> Iterator[Utterance]:
    """Yields the utterances of a manifest, in its order.

    They are without words and frames where a word has no pronunciation, and where the audio is shorter than a frame.

    Their features, which are computed where none are stored, have `num_bins` bins. `texts` are used instead of the
    manifest's: hypotheses, by the ids of cuts. Raises DataError for a cut without a speaker, and for features that
    cannot be read.
    """
    nothing = torch.zeros(0, len(cosine_transform(num_bins)))
    for cut in open_cuts(cuts):
        if not is_wanted(cut):
            continue
        key = transform_key(cut)
        if key is None:
            raise DataError("a transform needs the speaker of each cut", [f"{cut.id}: no speaker"])
        text = (cut.supervisions[0].text or "") if texts is None else texts.get(cut.id, "")
        if not text.split() or tokenizer.unknown(text) or is_too_short(cut):
            yield Utterance(cut.id, key, [], nothing)
            continue
        words = tokenizer.without_context.pronunciation_units(text)
        with as_data_error():
            features = stored_or_computed(cut, num_bins, max_seconds)
        yield Utterance(cut.id, key, words, cepstra(features))
