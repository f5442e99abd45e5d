"""A trained system in use: packs, transcription, live audio, alignment, segmentation and the Python interface."""
