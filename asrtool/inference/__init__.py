"""Inference with a trained system: transcription, alignment, segmentation, and the Python interface."""
