"""A trained system in use: transcription, live audio, alignment, segmentation and the Python interface."""
