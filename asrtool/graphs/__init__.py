"""Units, lexicon and language model to graphs, for decoding and for training."""

KINDS = ("HLG", "HL", "LG", "H", "L", "G")  # compositions of the topology H, the lexicon L and the language model G
