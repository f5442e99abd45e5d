"""Batches that have texts but no features, for objectives that are called with log-probabilities."""

from collections.abc import Sequence

import torch

from asrtool.data.batch import Batch
from asrtool.text.tokenizer import Tokenizer


def text_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> Batch:
    """Returns a batch of utterances with these texts and their units."""
    targets = [torch.tensor(tokenizer.encode(text)) for text in texts]
    lens = torch.tensor([len(units) for units in targets])
    return Batch(
        ids=[str(number) for number in range(1, len(texts) + 1)],
        texts=list(texts),
        features=torch.zeros(len(texts), 1, 1),
        feature_lens=lens,
        targets=torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
        target_lens=lens,
        seconds=1.0,
    )
