"""Text: words, lexicons, grapheme-to-phoneme conversion, and tokenizers."""
