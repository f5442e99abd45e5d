"""Transcripts in, units out."""
