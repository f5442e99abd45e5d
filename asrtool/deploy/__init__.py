"""A trained system in use: packs, transcription, live audio, alignment, segmentation, Python interface and export."""
