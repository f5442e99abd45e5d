"""asrtool: Transformer acoustic models for large-scale speech recognition."""

__version__ = "0.1.0"
