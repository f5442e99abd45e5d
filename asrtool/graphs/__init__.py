"""Units, lexicon and language model to graphs, for decoding and for training."""
