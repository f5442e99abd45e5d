"""A trained system in use: packs, transcription, live audio, alignment, segmentation, the Python interface, and export."""
