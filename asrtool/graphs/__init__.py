"""Units, lexicon and language model in, decoding graphs out (OpenFst)."""
