"""A trained system in use: transcription, alignment, segmentation and the Python interface."""
